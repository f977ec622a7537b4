"""A whole release, as published, fetched, converted, and answering: on a disk that is read-only, without a network."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts
import tiny_wenet_speech
import torch
from support import tiny_xtts
from support.hub_server import HubServer
from support.model_releases import archive_of
from support.places import ROOT
from support.running_server import RunningServer
from support.trained_wenet import write_trained_checkpoint

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.models.manifest import RELEASES

ACCEPT = "cpml,wenetspeech,cc-by-4.0"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a config.py whose models were installed by the command: one of WeNet's from the hub.

    The weights of WeNet's know the tests' words; XTTS's speak noise.
    """
    folder = tmp_path_factory.mktemp("installed")
    (folder / "config.py").write_text(f"models_dir = {str(folder / 'models')!r}\n")
    make_tiny_xtts.make_checkpoint(folder / "made")
    released = tiny_xtts.pickled_copy(folder / "made", folder / "stick" / "xtts-v2")
    speaker = {"gpt_cond_latent": torch.randn(1, 32, 64), "speaker_embedding": torch.randn(1, 512, 1)}
    torch.save({"Claribel Dervla": speaker}, released / "speakers_xtts.pth")
    codes: dict[str, tiny_wenet_speech.Code] = {"wenet-zh": "zh", "wenet-en": "en"}
    with HubServer() as hub:
        for name, code in codes.items():
            checkpoint = write_trained_checkpoint(folder / code, code)
            content = archive_of({file.name: file.read_bytes() for file in checkpoint.iterdir()})
            archive = RELEASES[name].files[0]
            hub.publish(RELEASES[name].hugging_face.name, archive.name, content)
            (folder / "stick" / archive.name).write_bytes(content)
        environ = {
            "MIRRORCHAT_CONFIG": str(folder / "config.py"),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hub"),
        }
        accepted = ("--accept-licence", ACCEPT, "--no-packages")
        mirrorchat("models", "install", "wenet-zh", *accepted, **environ)
        # These are not the published ones, whose checksums are known.
        carried = ("--from", str(folder / "stick"), "--allow-changed")
        mirrorchat("models", "install", "wenet-en", "xtts-v2", *carried, *accepted, **environ)
    return folder / "models"


def mirrorchat(*arguments: str, **environ: str) -> None:
    command = [sys.executable, "-m", "mirrorchat", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def read_only(installed: Path) -> Iterator[Path]:
    """Return the folder of models, in which nothing can be made or changed."""
    paths = [installed, *installed.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    yield installed
    for path, mode in modes.items():
        path.chmod(mode)


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return when each path was changed, and its size: root may write where nobody may, and would be seen."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def test_no_pickle_is_left(installed: Path) -> None:
    assert [path.name for path in installed.rglob("*") if path.suffix in (".pt", ".pth", ".gz", ".part")] == []


def right_answers(server: RunningServer, code: tiny_wenet_speech.Code) -> int:
    """Ask four questions that the tiny recognizer can hear; return how many were heard to the letter."""
    takes = [take for take in tiny_wenet_speech.held_out(code) if take.kind == "heard"][:4]
    right = 0
    for take, samples in zip(takes, tiny_wenet_speech.speak(takes), strict=True):
        recording = encode_wav(Audio(samples, tiny_wenet_speech.SAMPLE_RATE))
        answer = server.ask_json(recording, code)
        assert answer["engines"]["recognizer"]["name"] == "wenet"
        assert answer["engines"]["synthesizer"]["name"] == "xtts"
        assert answer["audio"]
        right += answer["transcript"].lower() == take.text
    return right


def test_installed_models_answer_without_network_or_writing(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(read_only)
    with HubServer() as anyone:  # a proxy for all that would leave the machine, which must not be asked
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # what would be asked shall be seen
        for variable in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(variable, anyone.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        with RunningServer(tmp_path, models_dir=str(read_only)) as server:
            assert right_answers(server, "en") >= 2
            assert right_answers(server, "zh") >= 2
        assert anyone.requests == []
    assert state(read_only) == before
