"""Conversion of the released XTTS pickle."""

import datetime
import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts
from support import tiny_xtts
from TTS.config.shared_configs import BaseDatasetConfig
from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig

from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.models.convert import convert_checkpoint
from mirrorchat.xtts.checkpoint import canonical, read_safetensors, read_speakers, read_weights
from mirrorchat.xtts.model import load_network


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as conversion should make it."""
    folder = tmp_path_factory.mktemp("made") / "xtts-v2"
    make_tiny_xtts.make_checkpoint(folder)
    return folder


@pytest.fixture
def released(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint as released: coqui-tts's configuration in the pickle, some of it under its former module."""
    for former in (XttsArgs, XttsAudioConfig):
        monkeypatch.setattr(former, "__module__", "TTS.tts.models.xtts")
    config = XttsConfig(datasets=[BaseDatasetConfig(dataset_name="studio", path="/somewhere")])
    folder = tiny_xtts.pickled_copy(converted, tmp_path / "released", config=config, step=7, scaler=None)
    monkeypatch.undo()
    speaker = {"gpt_cond_latent": torch.randn(1, 32, 64), "speaker_embedding": torch.randn(1, 512, 1)}
    torch.save({"Claribel Dervla": speaker, "Zoe": speaker}, folder / "speakers_xtts.pth")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_weights(folder: Path, expected: Path) -> None:
    weights, original = read_safetensors(folder / "model.safetensors"), read_safetensors(expected / "model.safetensors")
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in original.items())


def test_released_pickle_becomes_safetensors(released: Path, converted: Path, tmp_path: Path) -> None:
    before = contents(released)
    convert_checkpoint(released, tmp_path / "models" / "xtts-v2")
    made = tmp_path / "models" / "xtts-v2"
    names = {"config.json", "vocab.json", "model.safetensors", "speakers_xtts.safetensors"}
    assert {path.name for path in made.iterdir()} == names
    assert_same_weights(made, converted)
    assert all((made / name).read_bytes() == before[name] for name in ("config.json", "vocab.json"))
    assert contents(released) == before
    assert load_network(made).gpt.layers == 2


def test_speakers_are_the_same_in_both_forms(released: Path, tmp_path: Path) -> None:
    convert_checkpoint(released, tmp_path / "made")
    pickled, made = read_speakers(released), read_speakers(tmp_path / "made")
    assert list(pickled) == list(made) == ["Claribel Dervla", "Zoe"]
    for name, speaker in pickled.items():
        assert torch.equal(speaker.gpt_cond_latent, made[name].gpt_cond_latent)
        assert torch.equal(speaker.speaker_embedding, made[name].speaker_embedding)


def test_conversion_in_place(released: Path, converted: Path) -> None:
    before = contents(released)
    convert_checkpoint(released, released)
    assert_same_weights(released, converted)
    after = contents(released)
    assert {name: after[name] for name in before} == before


def test_weights_are_readable_by_the_server_s_user(released: Path, tmp_path: Path) -> None:
    (released / "model.pth").chmod(0o644)
    convert_checkpoint(released, tmp_path / "made")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "made").iterdir()} == {0o644}


def test_second_names_and_training_parts_are_left_out(converted: Path, tmp_path: Path) -> None:
    weights = dict(read_weights(converted))
    ups = "hifigan_decoder.waveform_decoder.ups.0"
    older = {f"xtts.{name}": tensor for name, tensor in weights.items()}
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        older[f"xtts.{ups}.{old}"] = older.pop(f"xtts.{ups}.parametrizations.weight.{new}")
    older["xtts.gpt.gpt.wte.weight"] = weights["gpt.mel_embedding.weight"]
    older["xtts.gpt.gpt_inference.transformer.h.0.attn.c_attn.weight"] = weights["gpt.gpt.h.0.attn.c_attn.weight"]
    older["xtts.gpt.gpt.h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    older["dvae.codebook"] = torch.zeros(3)
    assert canonical(older).keys() == weights.keys()
    folder = Path(shutil.copytree(converted, tmp_path / "older"))
    torch.save({"model": older}, folder / "model.pth")
    convert_checkpoint(folder, tmp_path / "made")
    assert_same_weights(tmp_path / "made", converted)


def test_a_fine_tune_of_coqui_s_trainer_is_converted(converted: Path, tmp_path: Path) -> None:
    """Its losses are numbers of NumPy, and it holds the state of the training."""
    training = {
        "config": {"output_path": Path("runs"), "epochs": 3},
        "model_loss": {"train_loss": np.float64(0.5), "eval_loss": np.float32(0.25), "history": np.arange(3.0)},
        "step": np.int64(7),
        "date": datetime.date(2026, 1, 2),
        "scheduler": [torch.optim.lr_scheduler.MultiStepLR(_optimizer(), [1, 2]).state_dict()],
        "optimizer": [_optimizer().state_dict()],
    }
    folder = tiny_xtts.pickled_copy(converted, tmp_path / "fine-tuned", **training)
    convert_checkpoint(folder, tmp_path / "made")
    assert_same_weights(tmp_path / "made", converted)


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.zeros(2, requires_grad=True)])


def test_the_trainer_s_own_checkpoint_is_converted(converted: Path, tmp_path: Path) -> None:
    trainer_io = pytest.importorskip("trainer.io", reason="coqui-tts-trainer is not installed")
    network = load_network(converted)
    folder = tiny_xtts.pickled_copy(converted, tmp_path / "fine-tuned")
    losses = {"train_loss": np.float64(0.5), "eval_loss": np.float64(0.25)}
    trainer_io.save_model(
        XttsConfig(), network, folder / "model.pth", current_step=7, epoch=1, optimizer=[_optimizer()],
        model_loss=losses,
    )  # fmt: skip
    convert_checkpoint(folder, tmp_path / "made")
    assert_same_weights(tmp_path / "made", converted)


def test_no_code_of_an_inert_package_runs(converted: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    folder = tiny_xtts.pickled_copy(converted, tmp_path / "released", config=Written(trace))
    convert_checkpoint(folder, tmp_path / "made")
    assert_same_weights(tmp_path / "made", converted)
    assert not trace.exists()


class Written:
    """Has NumPy write a file when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return np.savetxt, (str(self.path), [1.0])


class Planted:
    """Makes a folder when it is unpickled by a careless reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_another_pickle_protocol_hides_nothing(released: Path, tmp_path: Path) -> None:
    torch.save({"model": {}, "config": Planted(tmp_path / "it ran")}, released / "model.pth", pickle_protocol=4)
    with pytest.raises(ConfigurationError, match=r"model\.pth"):
        convert_checkpoint(released, tmp_path / "made")
    assert not (tmp_path / "it ran").exists()


class Unknown:
    """A class of no checkpoint."""


@pytest.mark.parametrize("kind", ["planted", "unknown", "planted speaker"])
def test_a_pickle_with_anything_else_is_refused_unrun(converted: Path, tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "it ran"
    extra = {"planted": Planted(trace), "unknown": Unknown()}.get(kind)
    folder = tiny_xtts.pickled_copy(converted, tmp_path / "released", config=extra)
    if kind == "planted speaker":
        torch.save({"Zoe": Planted(trace)}, folder / "speakers_xtts.pth")
    named = "Unknown" if kind == "unknown" else "mkdir"
    with pytest.raises(ConfigurationError, match=f"names code that no checkpoint needs.*{named}"):
        convert_checkpoint(folder, tmp_path / "made")
    assert not trace.exists()
    assert not (tmp_path / "made").exists()
    if kind != "planted speaker":
        with pytest.raises(ConfigurationError, match=named):
            load_network(folder)
        assert not trace.exists()


@pytest.mark.parametrize("content", [{"state": 1}, [1, 2], {"model": {"a": "text"}}])
def test_a_pickle_of_something_else_is_refused(released: Path, tmp_path: Path, content: Any) -> None:
    torch.save(content, released / "model.pth")
    with pytest.raises(ConfigurationError, match="not an XTTS checkpoint"):
        convert_checkpoint(released, tmp_path / "made")


def test_speakers_file_of_something_else_is_refused(released: Path, tmp_path: Path) -> None:
    torch.save({"Zoe": {"age": 3}}, released / "speakers_xtts.pth")
    with pytest.raises(ConfigurationError, match="does not hold XTTS speakers"):
        convert_checkpoint(released, tmp_path / "made")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "model.pth"])
def test_missing_file_is_named(released: Path, tmp_path: Path, name: str) -> None:
    (released / name).unlink()
    with pytest.raises(ModelNotInstalled, match=name):
        convert_checkpoint(released, tmp_path / "made")


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let every write past `limit` bytes of a file fail, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="a write past RLIMIT_FSIZE fails with an error on Linux")
@pytest.mark.parametrize("in_place", [True, False])
def test_a_disk_that_fills_up_leaves_nothing_half_done(released: Path, tmp_path: Path, in_place: bool) -> None:
    destination = released if in_place else tmp_path / "made"
    destination.mkdir(exist_ok=True)
    before = contents(destination)
    with file_size_limit(500_000), pytest.raises(ConfigurationError, match="could not be written"):
        convert_checkpoint(released, destination)
    assert contents(destination) == before
    convert_checkpoint(released, destination)
    assert load_network(destination).gpt.layers == 2


def test_a_disk_without_room_is_told_before_writing(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ConfigurationError, match=r"0\.0 GB free"):
        convert_checkpoint(released, tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_the_script_writes_a_folder_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_tiny_xtts.py", str(tmp_path / "made"), "--pickle"])
    make_tiny_xtts.main()
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "config.json", "vocab.json", "model.pth", "speakers_xtts.pth"
    }  # fmt: skip
    assert load_network(tmp_path / "made").gpt.layers == 2
