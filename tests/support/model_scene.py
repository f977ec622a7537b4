"""Installations with `mirrorchat models` against a server that speaks the hubs' protocols: what their tests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import make_tiny_xtts
import pytest
import torch
from click.testing import CliRunner, Result
from huggingface_hub import constants

from mirrorchat.cli.main import cli
from mirrorchat.models import download as model_download
from mirrorchat.models.manifest import RELEASES
from support import tiny_xtts
from support.hub_server import HubServer
from support.model_releases import fitted, wenet_archive

HUB, SCOPE = RELEASES["wenet-en"].hugging_face.name, RELEASES["wenet-en"].modelscope.name
ENGLISH, GIGASPEECH = "librispeech_u2pp_conformer_exp.tar.gz", "gigaspeech_u2pp_conformer_exp.tar.gz"
XTTS_HUB, XTTS_SCOPE = RELEASES["xtts-v2"].hugging_face.name, RELEASES["xtts-v2"].modelscope.name
CHINESE = RELEASES["wenet-zh"].files[0].name
CONVERTED = {"final.safetensors", "global_cmvn", "installed.json", "train.yaml", "units.txt"}
ACCEPT = ("--accept-licence", "cc-by-4.0,cpml,gigaspeech,wenetspeech,apache-2.0")


def configured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of models of a configuration in `folder`, which is in force from now on."""
    config = folder / "config.py"
    config.write_text(f"models_dir = {str(folder / 'models')!r}\nrecognizer = {{'english': 'wenet'}}\n")
    monkeypatch.setenv("MIRRORCHAT_CONFIG", str(config))
    return folder / "models"


@contextmanager
def hub_with_wenet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Start a server that stands for both hubs, with WeNet's English models on each; nobody knows their checksums."""
    with HubServer() as server:
        for name, variant in (("wenet-en", "librispeech"), ("wenet-en-gigaspeech", "gigaspeech")):
            archive, content = RELEASES[name].files[0].name, wenet_archive(variant)
            monkeypatch.setitem(RELEASES, name, fitted(name, {archive: content}, known=False))
            for repository in (HUB, SCOPE):
                server.publish(repository, archive, content)
        ask_hub_at(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setattr(model_download, "PAUSE_S", 0.01)
        yield server


def ask_hub_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hub's library ask `url`, as it does where HF_ENDPOINT was set at its import."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def make_released_xtts(folder: Path) -> Path:
    """Return a tiny XTTS with the files of the release."""
    make_tiny_xtts.make_checkpoint(folder / "made")
    released = tiny_xtts.pickled_copy(folder / "made", folder / "xtts-v2")
    speaker = {"gpt_cond_latent": torch.randn(1, 32, 64), "speaker_embedding": torch.randn(1, 512, 1)}
    torch.save({"Claribel Dervla": speaker}, released / "speakers_xtts.pth")
    return released


def publish_xtts(released: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish a tiny XTTS: on the hub as the release, whose checksums are known; on ModelScope without speakers."""
    contents = {file.name: file.read_bytes() for file in released.iterdir()}
    monkeypatch.setitem(RELEASES, "xtts-v2", fitted("xtts-v2", contents, known=True))
    for name, content in contents.items():
        server.publish(XTTS_HUB, name, content)
        if name != "speakers_xtts.pth":
            server.publish(XTTS_SCOPE, name, content)


def models(*arguments: str) -> Result:
    """Run `mirrorchat models`."""
    return CliRunner().invoke(cli, ["models", *arguments], prog_name="mirrorchat")


def install(*arguments: str) -> Result:
    """Run `mirrorchat models install`, with every licence accepted."""
    return models("install", *ACCEPT, "--no-packages", *arguments)


def succeeded(result: Result) -> str:
    """Return the output of a command that succeeded."""
    assert result.exit_code == 0, result.output
    return result.output


def refused(result: Result) -> str:
    """Return the last line of a command that failed, which is all that it says about it."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    last = result.stderr.strip().split("\n")[-1]
    assert last.startswith("mirrorchat: ")
    return last


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder."""
    return {path.name for path in folder.iterdir()}
