"""Where the models come from: each source with what it really has, and what is said when none of them gives a model."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.command_line import Terminal
from support.hub_server import Fault, HubServer
from support.model_releases import archive_of, fitted, sha256_of, wenet_archive, wenet_files
from support.model_scene import (
    CHINESE,
    CONVERTED,
    ENGLISH,
    HUB,
    SCOPE,
    XTTS_HUB,
    XTTS_SCOPE,
    ask_hub_at,
    install,
    models,
    names_in,
    refused,
    succeeded,
)
from support.running_server import free_port

from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.store import read_record
from mirrorchat.xtts.model import load_network

COPY = RELEASES["xtts-v2"].hub_copies[0].name
RERUN, MIRROR = "run the command again", "HF_ENDPOINT=https://hf-mirror.com"
WITHOUT_SPEAKERS = {"config.json", "vocab.json", "model.safetensors", "installed.json"}


# XTTS


def test_xtts_installs_without_its_studio_speakers(published_xtts: HubServer, models_dir: Path) -> None:
    del published_xtts.files[XTTS_HUB, "speakers_xtts.pth"]
    output = succeeded(install("xtts-v2"))
    assert re.search(r"speakers_xtts\.pth: HTTP 404.*; the model works without it", output)
    assert names_in(models_dir / "xtts-v2") == WITHOUT_SPEAKERS
    assert load_network(models_dir / "xtts-v2").gpt.layers == 2
    record = read_record(models_dir / "xtts-v2")
    assert record and record.source == "huggingface" and len(record.released) == 3
    assert succeeded(models("verify")) == "xtts-v2: unchanged since its installation\n"


def test_changed_speakers_are_not_taken(published_xtts: HubServer, models_dir: Path) -> None:
    published_xtts.publish(XTTS_HUB, "speakers_xtts.pth", b"something else")
    assert "speakers_xtts.pth is not the released one there" in succeeded(install("xtts-v2"))
    assert names_in(models_dir / "xtts-v2") == WITHOUT_SPEAKERS


def test_modelscope_gives_the_edition_that_it_has(published_xtts: HubServer, models_dir: Path) -> None:
    """It has an earlier one than the release's, without studio speakers, and publishes its own checksums."""
    publish_earlier_edition(published_xtts)
    output = succeeded(install("xtts-v2", "--source", "modelscope"))
    assert "it has no speakers_xtts.pth; the model works without it" in output
    assert "only what modelscope says about it can be checked" in output
    assert names_in(models_dir / "xtts-v2") == WITHOUT_SPEAKERS
    assert load_network(models_dir / "xtts-v2").gpt.layers == 2
    record = read_record(models_dir / "xtts-v2")
    assert record and record.source == "modelscope"
    released = {file.name: file.sha256 for file in record.released}
    assert released["model.pth"] == sha256_of(published_xtts.files[XTTS_SCOPE, "model.pth"])


def publish_earlier_edition(server: HubServer) -> None:
    """Put an XTTS with other bytes than the release's on ModelScope."""
    for name in ("config.json", "vocab.json"):
        server.publish(XTTS_SCOPE, name, server.files[XTTS_HUB, name] + b" ")
    content = server.files[XTTS_HUB, "model.pth"]
    server.publish(XTTS_SCOPE, "model.pth", content + b"\0")


def test_modelscope_s_edition_serves_where_the_hub_is_away(
    published_xtts: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_earlier_edition(published_xtts)
    ask_hub_at(f"http://127.0.0.1:{free_port()}", monkeypatch)
    succeeded(install("xtts-v2"))
    record = read_record(models_dir / "xtts-v2")
    assert record and record.source == "modelscope"


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (b'{"Data": {"Files": []}}', "it has no config.json"),
        (b'{"Data": {"Files": [7]}}', "cannot be read"),
        (b'{"Data": {"Files": [{"Path": "config.json", "Sha256": "../../etc", "Size": 3}]}}', "cannot be read"),
        (b'{"Data": {"Files": [{"Path": "config.json", "Size": 99999999999}]}}', "99999999999 bytes there"),
        (b'{"Data": {"Files": [{"Path": "config.json", "Size": "many"}]}}', "many bytes there"),
    ],
)
def test_a_bad_list_of_modelscope_is_refused(
    published_xtts: HubServer, models_dir: Path, listing: bytes, message: str
) -> None:
    published_xtts.misbehave("listing", XTTS_SCOPE, Fault(body=listing))
    assert message in refused(install("xtts-v2", "--source", "modelscope"))
    assert not (models_dir / "xtts-v2").exists()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_copy_on_the_hub_serves_where_the_first_repository_is_closed(
    published_xtts: HubServer, models_dir: Path, status: int
) -> None:
    for name in [file.name for file in RELEASES["xtts-v2"].files]:
        published_xtts.publish(COPY, name, published_xtts.files[XTTS_HUB, name])
        published_xtts.misbehave("head", name, Fault(status=status))
    succeeded(install("xtts-v2"))
    record = read_record(models_dir / "xtts-v2")
    assert record and record.source == "huggingface" and len(record.released) == 4
    assert any(request.startswith(f"GET /cdn/{COPY}/model.pth") for request in published_xtts.requests)


def test_the_copy_must_have_the_released_bytes(published_xtts: HubServer, models_dir: Path) -> None:
    del published_xtts.files[XTTS_HUB, "model.pth"]
    published_xtts.publish(COPY, "model.pth", b"something else")
    message = refused(install("xtts-v2", "--source", "huggingface"))
    assert f"{XTTS_HUB}: model.pth: HTTP 404; {COPY}: model.pth is not the released one there" in message
    assert RERUN not in message and MIRROR not in message


# WeNet


def test_the_archives_of_wenet_are_pinned() -> None:
    wenet = [release for release in RELEASES.values() if release.is_archive]
    known = {release.name: release.files[0].sha256[:8] for release in wenet}
    assert known == {
        "wenet-zh": "",
        "wenet-zh-aishell": "b8daacf7",
        "wenet-en": "fa95c21b",
        "wenet-en-gigaspeech": "061ccfa5",
    }
    assert all(re.fullmatch(r"[0-9a-f]{40}", release.hugging_face.revision) for release in wenet)
    assert RELEASES["wenet-en-gigaspeech"].files[0].exact_bytes == 503_845_602
    assert RELEASES["wenet-en"].files[0].exact_bytes is None  # nobody has published the size


def pinned(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Let `content` be WeNet's English model, by its SHA-256; the size is only roughly known."""
    release = fitted("wenet-en", {ENGLISH: content}, known=True)
    file = dataclasses.replace(release.files[0], size_bytes=200_000, has_exact_size=False)
    monkeypatch.setitem(RELEASES, "wenet-en", dataclasses.replace(release, files=(file,)))


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_an_archive_has_the_known_checksum(
    server: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    pinned(monkeypatch, wenet_archive())
    other = archive_of(wenet_files(), folder="another_folder")
    for repository in (HUB, SCOPE):
        server.publish(repository, ENGLISH, other)
    message = refused(install("wenet-en", "--source", source))
    assert "SHA-256" in message and "--from" in message and RERUN not in message
    assert not (models_dir / "wenet-en").exists()
    for repository in (HUB, SCOPE):
        server.publish(repository, ENGLISH, wenet_archive())
    assert "no SHA-256" not in succeeded(install("wenet-en", "--source", source))
    assert names_in(models_dir / "wenet-en") == CONVERTED


def test_the_pinned_revision_is_asked_for(server: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(monkeypatch, wenet_archive())
    succeeded(install("wenet-en"))
    revision = RELEASES["wenet-en"].hugging_face.revision
    assert f"HEAD /{HUB}/resolve/{revision}/{ENGLISH}" in server.requests


def test_an_archive_that_was_carried_has_the_known_checksum(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(monkeypatch, wenet_archive())
    (tmp_path / ENGLISH).write_bytes(archive_of(wenet_files(), folder="another_folder"))
    message = refused(install("wenet-en", "--from", str(tmp_path)))
    assert f"{ENGLISH} is not the released file" in message and "--allow-changed" in message
    succeeded(install("wenet-en", "--from", str(tmp_path), "--allow-changed"))


def test_it_is_said_that_an_archive_has_no_known_checksum(server: HubServer, models_dir: Path) -> None:
    server.publish(HUB, CHINESE, wenet_archive("wenetspeech"))
    output = succeeded(install("wenet-zh"))
    assert f"no SHA-256 of {CHINESE} of huggingface is known here" in output


# what is said when nothing works


@pytest.mark.parametrize(
    ("fault", "helps"),
    [
        (Fault(status=404), False),
        (Fault(status=403), False),
        (Fault(claims=10**12), False),
        (Fault(status=503), True),
        (Fault(status=429), True),
    ],
)
def test_run_it_again_is_said_where_that_helps(server: HubServer, models_dir: Path, fault: Fault, helps: bool) -> None:
    server.misbehave("head", ENGLISH, *[fault] * 20)
    server.files.pop((SCOPE, ENGLISH))
    message = refused(install("wenet-en"))
    assert (RERUN in message) == helps and (MIRROR in message) == helps
    assert message.endswith("install from local files with --from")


def test_a_transfer_that_breaks_off_is_worth_another_run(server: HubServer, models_dir: Path) -> None:
    server.misbehave("cdn", ENGLISH, Fault(cut_after=70_000), *[Fault(cut_after=0)] * 4)
    message = refused(install("wenet-en", "--source", "huggingface"))
    assert f"{RERUN} to resume the download, or set {MIRROR}" in message
    succeeded(install("wenet-en", "--source", "huggingface"))
    assert server.ranges[-1] == "bytes=70000-"


def test_damaged_bytes_are_not_worth_another_run(server: HubServer, models_dir: Path) -> None:
    changed = wenet_archive()[:-1] + b"x"
    server.misbehave("cdn", ENGLISH, Fault(body=changed))
    message = refused(install("wenet-en", "--source", "huggingface"))
    assert "is damaged: its SHA-256" in message and RERUN not in message and MIRROR not in message


def test_a_hub_that_is_away_has_a_mirror(server: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    ask_hub_at(gone, monkeypatch)
    message = refused(install("wenet-en", "--source", "huggingface"))
    assert f"{RERUN} to resume the download, or set {MIRROR}, a mirror of Hugging Face, or install" in message
    monkeypatch.setenv("HF_ENDPOINT", gone)  # it is a mirror already
    assert MIRROR not in refused(install("wenet-en", "--source", "huggingface"))


def test_a_mirror_that_names_no_sizes_serves(server: HubServer, models_dir: Path) -> None:
    server.hides_sizes = True
    succeeded(install("wenet-en", "--source", "huggingface"))
    assert names_in(models_dir / "wenet-en") == CONVERTED


# licences

TEXT = b"Coqui Public Model License\n\nThis license allows only \x1b[2Jnon-commercial use.\n"


def at_terminal(answer: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Run `mirrorchat models install` at a terminal, where `answer` is typed; return its status and what it showed."""
    with Terminal(("models", "install", "--no-packages", *arguments), os.environ | environ) as terminal:
        terminal.type(answer)
        return terminal.end(), terminal.shown


def test_the_licence_s_text_is_the_hub_s_own_file(models_dir: Path) -> None:
    with HubServer() as server:
        server.publish(XTTS_HUB, "LICENSE.txt", TEXT)
        status, shown = at_terminal("n\n", "xtts-v2", HF_ENDPOINT=server.url)
        revision = RELEASES["xtts-v2"].hugging_face.revision
        assert status == 1 and "was not accepted" in shown
        assert f"{server.url}/{XTTS_HUB}/blob/{revision}/LICENSE.txt" in shown
        assert "This license allows only [2Jnon-commercial use." in shown and "\x1b[2J" not in shown
        assert [request for request in server.requests if "model.pth" in request] == []
        assert f"GET /{XTTS_HUB}/resolve/{revision}/LICENSE.txt" in server.requests


@pytest.mark.parametrize(("content", "reason"), [(None, "HTTP 404"), (b"x" * 200_000, "it is too long")])
def test_a_licence_s_text_that_cannot_be_had_is_named(models_dir: Path, content: bytes | None, reason: str) -> None:
    with HubServer() as server:
        if content is not None:
            server.publish(XTTS_HUB, "LICENSE.txt", content)
        status, shown = at_terminal("n\n", "xtts-v2", HF_ENDPOINT=server.url)
    assert status == 1 and "its text could not be fetched: " in shown and reason in shown
    assert "Do you accept it?" in shown


def test_an_offline_copy_has_its_own_licence_s_text(models_dir: Path, tmp_path: Path, released_xtts: Path) -> None:
    with HubServer() as server:
        (tmp_path / "xtts-v2").symlink_to(released_xtts)
        (released_xtts / "LICENSE.txt").write_bytes(TEXT)
        status, shown = at_terminal(
            "y\n", "xtts-v2", "--from", str(tmp_path), "--allow-changed", HF_ENDPOINT=server.url
        )
        (released_xtts / "LICENSE.txt").unlink()
        assert status == 0 and "non-commercial use." in shown, shown
        assert server.requests == []
