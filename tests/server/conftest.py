"""Servers that several files ask: through OpenAI's API, and as the sources of models."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.openai_scene import Scene, open_scene

if TYPE_CHECKING:
    from support.hub_server import HubServer


@pytest.fixture(scope="session")
def openai_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A real gunicorn with two keys and two real chat APIs, embedded engines, and a folder for voices."""
    with open_scene(tmp_path_factory.mktemp("openai")) as scene:
        yield scene


@pytest.fixture(scope="session")
def weights_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same with weights: WeNet's trained tiny models for both languages, a tiny XTTS."""
    from make_tiny_xtts import make_checkpoint
    from support.trained_wenet import write_trained_checkpoint

    folder = tmp_path_factory.mktemp("weights")
    write_trained_checkpoint(folder / "models" / "wenet-zh", "zh")
    write_trained_checkpoint(folder / "models" / "wenet-en", "en")
    make_checkpoint(folder / "models" / "xtts-v2")
    with open_scene(folder) as scene:
        yield scene


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models of a configuration that is in force."""
    from support.model_scene import configured

    return configured(tmp_path, monkeypatch)


@pytest.fixture
def server(models_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[HubServer]":
    """A server that stands for both hubs, with WeNet's English models on each."""
    from support.model_scene import hub_with_wenet

    with hub_with_wenet(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture(scope="session")
def released_xtts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XTTS with the files of the release."""
    from support.model_scene import make_released_xtts

    return make_released_xtts(tmp_path_factory.mktemp("released"))


@pytest.fixture
def published_xtts(released_xtts: Path, server: "HubServer", monkeypatch: pytest.MonkeyPatch) -> "HubServer":
    """The hub with the tiny XTTS, whose checksums are known."""
    from support.model_scene import publish_xtts

    publish_xtts(released_xtts, server, monkeypatch)
    return server
