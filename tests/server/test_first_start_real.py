"""What scripts/serve --models does before the server starts: licences, packages, and the models that are missing."""

from pathlib import Path

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import os

from click.testing import Result
from support.command_line import Terminal
from support.hub_server import HubServer
from support.model_releases import fitted, wenet_archive
from support.model_scene import CHINESE, ENGLISH, HUB, SCOPE, XTTS_HUB, XTTS_SCOPE, models, refused, succeeded

from mirrorchat.models import packages
from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.store import read_record

CODES = "cpml,wenetspeech,cc-by-4.0"
REAL = ("xtts-v2", "wenet-zh", "wenet-en")


@pytest.fixture
def hub(published_xtts: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """Return the hub with all real models, for a user who has the small ones."""
    content = wenet_archive("wenetspeech")
    monkeypatch.setitem(RELEASES, "wenet-zh", fitted("wenet-zh", {CHINESE: content}, known=False))
    for repository in (HUB, SCOPE):
        published_xtts.publish(repository, CHINESE, content)
    for name, file in (("whisper-base", "model.bin"), ("kokoro", "voices-v1.0.bin")):
        (models_dir / name).mkdir(parents=True)
        (models_dir / name / file).touch()
    return published_xtts


def start(*options: str) -> Result:
    return models("first-start", "--real", *options)


def installed(models_dir: Path) -> list[str]:
    return [name for name in REAL if read_record(models_dir / name)]


def test_all_that_is_missing_is_installed_once(hub: HubServer, models_dir: Path) -> None:
    told = succeeded(start("--accept-licence", CODES))
    assert told.index("Coqui Public Model License") < told.index("in all")
    assert installed(models_dir) == list(REAL)
    asked = len(hub.requests)
    assert succeeded(start()) == "" and len(hub.requests) == asked  # no question, no download


def test_without_a_terminal_all_licences_are_named_at_once(hub: HubServer, models_dir: Path) -> None:
    message = refused(start("--accept-licence", "cc-by-4.0"))
    assert message == (
        "mirrorchat: the licences of xtts-v2, wenet-zh must be accepted: "
        "read them, and add --accept-licence cpml,wenetspeech"
    )
    assert hub.requests == [] and installed(models_dir) == []


def test_a_licence_that_was_accepted_is_not_asked_for_again(hub: HubServer, models_dir: Path) -> None:
    kept = {place: hub.files.pop((place, "model.pth")) for place in (XTTS_HUB, XTTS_SCOPE)}
    assert "xtts-v2 could not be downloaded" in refused(start("--accept-licence", CODES))
    for place, content in kept.items():
        hub.publish(place, "model.pth", content)
    succeeded(start())
    assert installed(models_dir) == list(REAL) and not (models_dir / ".downloads").exists()
    assert "must be accepted" in refused(models("install", "wenet-zh", "--replace", "--no-packages"))


def test_packages_come_after_the_licences_and_before_the_models(
    hub: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extras: list[str] = []
    monkeypatch.setattr(packages, "missing_packages", lambda requirements: requirements[:1])
    monkeypatch.setattr(packages, "install_packages", lambda requirements, *, extra: extras.append(extra))
    refused(start())
    assert extras == []
    told = succeeded(start("--accept-licence", CODES))
    assert told.index("Coqui Public") < told.index("installing the packages") < told.index("xtts-v2: downloading")
    succeeded(start())
    assert extras == ["full", "full"]  # a new environment beside models that are there


def test_what_the_settings_do_not_choose_is_not_installed(hub: HubServer, models_dir: Path) -> None:
    config = models_dir.parent / "config.py"
    both = "{'english': 'small', 'chinese': 'small'}"
    config.write_text(f"models_dir = {str(models_dir)!r}\nrecognizer = {both}\n")
    succeeded(start("--accept-licence", "cpml"))
    assert installed(models_dir) == ["xtts-v2"]


def test_what_was_put_there_by_hand_stays(hub: HubServer, models_dir: Path) -> None:
    (models_dir / "wenet-zh").mkdir()
    (models_dir / "wenet-zh" / "final.pt").write_bytes(b"mine")
    succeeded(start("--accept-licence", "cpml,cc-by-4.0"))
    assert installed(models_dir) == ["xtts-v2", "wenet-en"]
    assert (models_dir / "wenet-zh" / "final.pt").read_bytes() == b"mine"


def test_one_answer_accepts_all_licences(models_dir: Path, tmp_path: Path) -> None:
    for file, variant in ((ENGLISH, "librispeech"), (CHINESE, "wenetspeech")):
        (tmp_path / file).write_bytes(wenet_archive(variant))
    command = ("models", "install", "wenet-zh", "wenet-en", "--no-packages", "--allow-changed", "--from", str(tmp_path))
    with Terminal(command, dict(os.environ)) as terminal:
        terminal.type("y\n")
        status, shown = terminal.end(), terminal.shown
    assert status == 0 and shown.count("Do you accept all of them?") == 1, shown
    assert installed(models_dir) == ["wenet-zh", "wenet-en"]
