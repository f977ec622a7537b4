"""`mirrorchat models` as its users run it, against a server that speaks the hubs' protocols."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import torch
from support.command_line import Terminal
from support.hub_server import Fault, HubServer
from support.model_releases import WENET_NAMES, WENET_REFERENCE, WENET_TINY, archive_of, copy_of, wenet_archive
from support.model_scene import (
    CHINESE,
    CONVERTED,
    ENGLISH,
    GIGASPEECH,
    HUB,
    SCOPE,
    XTTS_HUB,
    install,
    models,
    names_in,
    refused,
    succeeded,
)
from support.places import ROOT

from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.store import REPLACED_PREFIX, read_record
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.xtts.model import load_network

# install


def test_a_wenet_model_is_fetched_and_converted(server: HubServer, models_dir: Path) -> None:
    output = succeeded(install("wenet-en"))
    assert "LibriSpeech" in output and "https://creativecommons.org" in output
    folder = models_dir / "wenet-en"
    assert names_in(folder) == CONVERTED
    assert names_in(models_dir) == {"wenet-en", ".lock"}
    original = read_checkpoint(WENET_REFERENCE / "librispeech")
    weights = read_checkpoint(folder).model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in original.model.state_dict().items())
    record = read_record(folder)
    assert record and (record.name, record.source, record.licence_accepted) == ("wenet-en", "huggingface", "cc-by-4.0")
    assert {file.name for file in record.files} == CONVERTED - {"installed.json"}
    assert [file.size_bytes for file in record.released] == [len(wenet_archive())]


def test_cmvn_is_in_the_converted_weights(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    (models_dir / "wenet-en" / "global_cmvn").unlink()
    kept = read_checkpoint(models_dir / "wenet-en").model.state_dict()
    expected = read_checkpoint(WENET_REFERENCE / "librispeech").model.state_dict()
    assert torch.equal(kept["encoder.global_cmvn.mean"], expected["encoder.global_cmvn.mean"])
    assert torch.equal(kept["encoder.global_cmvn.istd"], expected["encoder.global_cmvn.istd"])


def test_xtts_is_fetched_and_converted(published_xtts: HubServer, models_dir: Path) -> None:
    succeeded(install("xtts-v2"))
    folder = models_dir / "xtts-v2"
    expected = {"config.json", "vocab.json", "model.safetensors", "speakers_xtts.safetensors", "installed.json"}
    assert names_in(folder) == expected
    assert load_network(folder).gpt.layers == 2
    assert succeeded(models("verify")) == "xtts-v2: unchanged since its installation\n"


def test_the_original_is_kept_on_demand(published_xtts: HubServer, models_dir: Path, released_xtts: Path) -> None:
    succeeded(install("xtts-v2", "--keep-original"))
    assert (models_dir / "xtts-v2" / "model.pth").read_bytes() == (released_xtts / "model.pth").read_bytes()
    assert (models_dir / "xtts-v2" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("head", Fault(status=404)),
        ("head", Fault(status=403)),
        ("cdn", Fault(body=b"\x1f\x8b no archive")),
        ("head", Fault(claims=10**12)),
    ],
)
def test_the_next_source_is_tried(server: HubServer, models_dir: Path, place: str, fault: Fault) -> None:
    server.misbehave(place, ENGLISH, fault)
    output = succeeded(install("wenet-en"))
    assert "wenet-en: huggingface: " in output
    record = read_record(models_dir / "wenet-en")
    assert record and record.source == "modelscope"


def test_a_corrupt_archive_is_given_up_everywhere(server: HubServer, models_dir: Path) -> None:
    content = bytearray(wenet_archive())
    content[len(content) // 2] ^= 1
    for repository in (HUB, SCOPE):
        server.publish(repository, ENGLISH, bytes(content))
    message = refused(install("wenet-en"))
    assert message.count("is damaged or no tar archive") == 2 and "--from" in message
    assert names_in(models_dir) == {".lock", ".downloads"}
    for repository in (HUB, SCOPE):
        server.publish(repository, ENGLISH, wenet_archive())
    succeeded(install("wenet-en"))  # what was wrong was not kept


def test_an_archive_that_leads_out_writes_nothing(server: HubServer, models_dir: Path, tmp_path: Path) -> None:
    for repository in (HUB, SCOPE):
        server.publish(repository, ENGLISH, archive_of({"final.pt": b"evil"}, folder="../../.."))
    assert "leads out" in refused(install("wenet-en"))
    assert list(tmp_path.rglob("final.pt")) == []


def test_a_changed_pickle_is_not_opened(published_xtts: HubServer, models_dir: Path) -> None:
    changed = published_xtts.files[XTTS_HUB, "model.pth"][:-1] + b"x"
    published_xtts.publish(XTTS_HUB, "model.pth", changed)
    published_xtts.misbehave("scope", "model.pth", Fault(body=changed))  # it is not what ModelScope itself lists
    message = refused(install("xtts-v2"))
    assert "not the released one" in message and "is damaged: its SHA-256" in message
    assert not (models_dir / "xtts-v2").exists()


def test_an_installed_model_is_not_fetched_again(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    asked = len(server.requests)
    assert "wenet-en is installed; --replace installs it again" in succeeded(install("wenet-en"))
    assert len(server.requests) == asked
    succeeded(install("wenet-en", "--replace"))
    assert len(server.requests) > asked


def test_another_model_takes_the_place_on_demand_only(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    message = refused(install("wenet-en-gigaspeech"))
    assert message.endswith("--replace installs wenet-en-gigaspeech in its place")
    succeeded(install("wenet-en-gigaspeech", "--replace"))
    record = read_record(models_dir / "wenet-en")
    assert record and record.name == "wenet-en-gigaspeech"
    assert names_in(models_dir) == {"wenet-en", ".lock"}
    assert models("install", "wenet-en", "wenet-en-gigaspeech").exit_code == 2


def test_a_failed_replacement_leaves_the_old_one(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    before = {path.name: path.read_bytes() for path in (models_dir / "wenet-en").iterdir()}
    spoilt = archive_of(dict.fromkeys(WENET_NAMES, b"nonsense"))
    server.publish(HUB, GIGASPEECH, spoilt)
    refused(install("wenet-en-gigaspeech", "--replace"))
    assert {path.name: path.read_bytes() for path in (models_dir / "wenet-en").iterdir()} == before


def test_a_folder_that_was_filled_by_hand_is_left_alone(server: HubServer, models_dir: Path) -> None:
    copy_of(WENET_REFERENCE / "librispeech", models_dir / "wenet-en", *WENET_NAMES)
    assert "was filled by hand" in refused(install("wenet-en"))
    assert "put there by hand are removed with --force" in refused(models("remove", "wenet-en"))
    assert names_in(models_dir / "wenet-en") == set(WENET_NAMES)
    rows = {row["name"]: row["installed"] for row in json.loads(succeeded(models("list", "--json")))}
    assert rows["wenet-en"] == "by hand" and rows["wenet-en-gigaspeech"] == "no"
    succeeded(install("wenet-en", "--replace"))
    assert names_in(models_dir / "wenet-en") == CONVERTED


def test_no_room_is_told_before_anything_is_fetched(
    server: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    message = refused(install("wenet-zh"))
    assert f"{models_dir} has 100 MB free, and " in message
    assert server.requests == []


def test_two_installations_do_not_meet(server: HubServer, models_dir: Path) -> None:
    models_dir.mkdir()
    with (models_dir / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another `mirrorchat models` is running" in refused(install("wenet-en"))
    succeeded(install("wenet-en"))


def test_what_a_killed_replacement_left_is_put_right(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    (models_dir / "wenet-en").rename(models_dir / f"{REPLACED_PREFIX}wenet-en")
    (models_dir / ".installing-abc").mkdir()
    (models_dir / ".installing-abc" / "final.pt").write_bytes(b"half")
    assert "is not installed" in refused(models("remove", "xtts-v2"))
    assert names_in(models_dir) == {"wenet-en", ".lock"}
    assert succeeded(models("verify", "wenet-en")) == "wenet-en: unchanged since its installation\n"


# licences


def test_nothing_is_fetched_without_the_licence(server: HubServer, models_dir: Path) -> None:
    message = refused(models("install", "xtts-v2", "--accept-licence", "cc-by-4.0"))
    assert "--accept-licence cpml" in message
    assert server.requests == [] and not models_dir.exists()
    wrong = models("install", "xtts-v2", "--accept-licence", "mit")
    assert wrong.exit_code == 2 and "'mit' is not one of cpml, " in wrong.output


def at_terminal(answer: str, *arguments: str) -> tuple[int, str]:
    """Run `mirrorchat` at a terminal, where `answer` is typed; return the exit status and what it showed."""
    with Terminal(arguments, dict(os.environ)) as terminal:
        terminal.type(answer)
        return terminal.end(), terminal.shown


def test_the_licence_is_asked_for_at_a_terminal(models_dir: Path, tmp_path: Path) -> None:
    archive = tmp_path / "wenet.tar.gz"
    archive.write_bytes(wenet_archive())
    command = ("models", "install", "wenet-en", "--no-packages", "--from", str(archive))
    status, output = at_terminal("n\n", *command)
    assert status == 1 and "any use, with attribution" in output and "was not accepted" in output
    assert not models_dir.exists()
    status, output = at_terminal("y\n", *command)
    assert status == 0, output
    assert names_in(models_dir / "wenet-en") == CONVERTED


# offline install


def test_an_archive_is_installed_offline(models_dir: Path, tmp_path: Path) -> None:
    archive = tmp_path / "anything.tgz"
    archive.write_bytes(wenet_archive())
    succeeded(install("wenet-en", "--from", str(archive)))
    record = read_record(models_dir / "wenet-en")
    assert record and record.source == "offline install" and record.released[0].name == "anything.tgz"


def test_several_models_are_installed_from_one_folder(models_dir: Path, tmp_path: Path, released_xtts: Path) -> None:
    offline = tmp_path / "offline"
    shutil.copytree(released_xtts, offline / "xtts-v2")
    (offline / ENGLISH).write_bytes(wenet_archive())
    before = {path: path.read_bytes() for path in offline.rglob("*") if path.is_file()}
    message = refused(install("xtts-v2", "wenet-en", "--from", str(offline)))
    assert "is not the released file" in message and "--allow-changed" in message
    succeeded(install("xtts-v2", "wenet-en", "--from", str(offline), "--allow-changed"))
    assert {path: path.read_bytes() for path in offline.rglob("*") if path.is_file()} == before
    assert load_network(models_dir / "xtts-v2").gpt.layers == 2


def test_checksums_hold_within_an_archive_too(
    published_xtts: HubServer, models_dir: Path, tmp_path: Path, released_xtts: Path
) -> None:
    contents = {path.name: path.read_bytes() for path in released_xtts.iterdir()}
    archive = tmp_path / "xtts.tar.gz"
    archive.write_bytes(archive_of(contents | {"vocab.json": contents["vocab.json"] + b" "}))
    assert "vocab.json is not the released file" in refused(install("xtts-v2", "--from", str(archive)))
    archive.write_bytes(archive_of(contents))
    succeeded(install("xtts-v2", "--from", str(archive)))
    assert load_network(models_dir / "xtts-v2").gpt.layers == 2


def test_a_folder_on_another_disk_is_left_there(server: HubServer, models_dir: Path, tmp_path: Path) -> None:
    elsewhere = copy_of(WENET_REFERENCE / "librispeech", tmp_path / "elsewhere", *WENET_NAMES)
    models_dir.mkdir()
    (models_dir / "wenet-en").symlink_to(elsewhere)
    succeeded(install("wenet-en", "--replace"))
    assert names_in(models_dir / "wenet-en") == CONVERTED and names_in(elsewhere) == set(WENET_NAMES)


def test_installed_models_are_copied_to_another_computer(
    published_xtts: HubServer, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeeded(install("xtts-v2", "wenet-en"))
    other = models_dir.rename(tmp_path / "stick")
    published_xtts.requests.clear()
    succeeded(install("xtts-v2", "wenet-en", "--from", str(other)))
    assert published_xtts.requests == []
    for name in ("xtts-v2", "wenet-en"):
        assert names_in(models_dir / name) == names_in(other / name)
        record = read_record(models_dir / name)
        assert record and record.released and record.source == "offline install"
    (other / "wenet-en" / "units.txt").write_text("damaged on the way\n")
    assert "units.txt has" in refused(install("wenet-en", "--replace", "--from", str(other)))


def test_a_runtime_release_is_installed_offline(models_dir: Path, tmp_path: Path) -> None:
    files = {name: (WENET_TINY / "en" / name).read_bytes() for name in ("final.zip", "units.txt")}
    (tmp_path / "librispeech_u2pp_conformer_libtorch.tar.gz").write_bytes(archive_of(files))
    succeeded(install("wenet-en", "--from", str(tmp_path)))
    assert names_in(models_dir / "wenet-en") == {"final.zip", "units.txt", "installed.json"}


@pytest.mark.parametrize("missing", WENET_NAMES[:3])
def test_a_model_that_lacks_a_file_is_refused(models_dir: Path, tmp_path: Path, missing: str) -> None:
    kept = [name for name in WENET_NAMES if name != missing]
    folder = copy_of(WENET_REFERENCE / "librispeech", tmp_path / "part", *kept)
    assert f"lacks {missing}" in refused(install("wenet-en", "--from", str(folder)))
    assert not (models_dir / "wenet-en").exists()


class Planted:
    """Makes a folder when it is unpickled by a careless reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["wenet-en", "xtts-v2"])
def test_what_a_pickle_names_is_not_run(models_dir: Path, tmp_path: Path, released_xtts: Path, name: str) -> None:
    source = WENET_REFERENCE / "librispeech" if name == "wenet-en" else released_xtts
    folder = Path(shutil.copytree(source, tmp_path / "offline"))
    for pickle in ("final.pt", "model.pth"):
        if (folder / pickle).is_file():
            torch.save({"model": {}, "config": Planted(tmp_path / "it ran")}, folder / pickle)
    refused(install(name, "--allow-changed", "--from", str(folder)))
    assert not (tmp_path / "it ran").exists() and not (models_dir / name).exists()


# list, verify, remove, path


def test_list_says_what_the_configuration_needs(models_dir: Path) -> None:
    output = succeeded(models("list"))
    assert "1.88 GB" in output and "cpml: non-commercial use only" in output
    rows: list[dict[str, Any]] = json.loads(succeeded(models("list", "--json")))
    assert [row["name"] for row in rows] == list(RELEASES)
    needed = {row["name"]: row["needed"] for row in rows}
    assert needed["wenet-en"] == "yes" and needed["xtts-v2"] == "if installed"
    assert {row["installed"] for row in rows} == {"no"}


def test_verify_notices_every_change(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    folder = models_dir / "wenet-en"
    assert json.loads(succeeded(models("verify", "--json"))) == {"wenet-en": {"ok": True, "faults": []}}
    weights = bytearray((folder / "final.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "final.safetensors").write_bytes(weights)
    (folder / "units.txt").write_text("other\n")
    (folder / "global_cmvn").unlink()
    result = models("verify")
    assert refused(result).endswith("wenet-en: install again with --replace")
    for fault in ("final.safetensors has changed", "units.txt has 6 bytes, not", "global_cmvn is missing"):
        assert fault in result.stdout
    assert "not installed" in models("verify", "xtts-v2").stdout
    (folder / "installed.json").write_text('{"name": "wenet-en"}')
    assert "installed.json is damaged" in models("verify").stdout


def test_a_damaged_record_keeps_nobody_from_the_rest(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    (models_dir / "wenet-en" / "installed.json").write_text("[]")
    rows = {row["name"]: row["installed"] for row in json.loads(succeeded(models("list", "--json")))}
    assert rows["wenet-en"] == "damaged" and rows["wenet-en-gigaspeech"] == "no"
    assert "is damaged" in refused(install("wenet-en"))
    assert "--force" in refused(models("remove", "wenet-en"))
    succeeded(install("wenet-en", "--replace"))
    assert succeeded(models("verify")) == "wenet-en: unchanged since its installation\n"
    (models_dir / "wenet-en" / "installed.json").write_text("{}")
    succeeded(models("remove", "wenet-en", "--force"))
    assert not (models_dir / "wenet-en").exists()


def test_a_record_cannot_name_files_elsewhere(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    path = models_dir / "wenet-en" / "installed.json"
    path.write_text(path.read_text().replace('"units.txt"', '"../units.txt"'))
    assert "installed.json is damaged" in models("verify").stdout


def test_remove(server: HubServer, models_dir: Path) -> None:
    succeeded(install("wenet-en"))
    assert "wenet-en-gigaspeech is not installed" in refused(models("remove", "wenet-en-gigaspeech"))
    assert succeeded(models("remove", "wenet-en")) == "wenet-en: removed\n"
    assert names_in(models_dir) == {".lock"}
    assert "wenet-en is not installed" in refused(models("remove", "wenet-en"))


def test_path(models_dir: Path) -> None:
    assert succeeded(models("path")) == f"{models_dir}\n"
    assert succeeded(models("path", "wenet-en-gigaspeech")) == f"{models_dir / 'wenet-en'}\n"
    assert json.loads(succeeded(models("path", "--json")))["folders"]["xtts-v2"] == str(models_dir / "xtts-v2")


# as a process


def run(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mirrorchat", *arguments],
        cwd=ROOT, env=os.environ | environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_installation_is_gone_on_with(
    server: HubServer, models_dir: Path, tmp_path: Path, end: signal.Signals
) -> None:
    content = wenet_archive("wenetspeech")  # a process of its own knows no other checksums than those of the releases
    server.publish(HUB, CHINESE, content)
    command = ("models", "install", "wenet-zh", "--no-packages", "--accept-licence", "wenetspeech")
    environ = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub"), "PYTHONUNBUFFERED": "1"}
    server.misbehave("cdn", CHINESE, Fault(cut_after=100_000), Fault(drip_s=0.5))
    process = run(*command, **environ)
    limit = time.monotonic() + 60
    while server.sent["cdn", CHINESE] <= 100_000 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(end)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in output, output
    had = sum(path.stat().st_size for path in models_dir.rglob("*.part"))
    assert 100_000 <= had < len(content)
    process = run(*command, **environ)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert server.ranges[-1] == f"bytes={had}-"
    assert succeeded(models("verify")) == "wenet-zh: unchanged since its installation\n"
