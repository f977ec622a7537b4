"""Loading of the XTTS network: what is missing, damaged or does not fit is named; nothing is written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.places import ROOT

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support import tiny_xtts

from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.xtts.model import load_network


@pytest.fixture
def own_copy(xtts_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xtts_checkpoint, tmp_path / "xtts-v2"))


def test_released_pickle_loads_the_same_without_being_rewritten(xtts_checkpoint: Path, tmp_path: Path) -> None:
    folder = tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path / "xtts-v2")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555)
    loaded, expected = load_network(folder).state_dict(), load_network(xtts_checkpoint).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_network_is_ready_for_inference(xtts_checkpoint: Path) -> None:
    network = load_network(xtts_checkpoint)
    assert not any(module.training for module in network.modules())
    tensors = [*network.parameters(), *network.buffers()]
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in tensors)
    assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int64}


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "model.safetensors"])
def test_missing_file(own_copy: Path, name: str) -> None:
    (own_copy / name).unlink()
    with pytest.raises(ModelNotInstalled) as caught:
        load_network(own_copy)
    assert str(own_copy) in caught.value.message and name in caught.value.message


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled, match=r"config\.json, vocab\.json, model\.safetensors"):
        load_network(tmp_path / "xtts-v2")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "model.safetensors"])
def test_damaged_file(own_copy: Path, name: str) -> None:
    data = (own_copy / name).read_bytes()
    (own_copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigurationError, match=re.escape(name)):
        load_network(own_copy)


def test_damaged_pickle(xtts_checkpoint: Path, tmp_path: Path) -> None:
    folder = tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path / "xtts-v2")
    data = (folder / "model.pth").read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"<html>not found</html>"):
        (folder / "model.pth").write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=r"model\.pth"):
            load_network(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"gpt.mel_head.weight": None}, "gpt.mel_head.weight is missing"),
        ({"gpt.more": torch.zeros(1)}, "gpt.more is unexpected"),
        ({"mel_stats": torch.zeros(81)}, "mel_stats is (81,) instead of (80,)"),
        ({"hifigan_decoder.waveform_decoder.conv_pre.weight": None}, "conv_pre.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(own_copy: Path, changes: dict[str, Any], fault: str) -> None:
    tiny_xtts.replace_weights(own_copy, changes)
    with pytest.raises(ConfigurationError, match=re.escape(fault)):
        load_network(own_copy)


def test_configuration_of_another_model(own_copy: Path) -> None:
    config = json.loads((own_copy / "config.json").read_text())
    config["model_args"]["gpt_layers"] = 3
    (own_copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match=r"gpt\.gpt\.h\.2\.attn.*is missing.*and \d+ more"):
        load_network(own_copy)


def test_torchaudio_imports_where_its_extension_does_not_load() -> None:
    code = """
import torch
def fail(path):
    raise OSError(path)
torch.ops.load_library = fail
from mirrorchat.hardware.torchaudio_import import import_torchaudio
import_torchaudio()
import torchaudio
assert torchaudio.functional.resample(torch.zeros(1, 100), 24000, 16000).shape == (1, 67)
try:
    torchaudio.functional.forced_align(torch.zeros(1, 2, 3), torch.ones(1, 1, dtype=torch.int32))
except RuntimeError as error:
    assert "does not load here" in str(error), error
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)
