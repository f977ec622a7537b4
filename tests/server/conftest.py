"""Servers that several files ask through OpenAI's API."""

from collections.abc import Iterator

import pytest
from support.openai_scene import Scene, open_scene


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
