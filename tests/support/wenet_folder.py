"""A WeNet checkpoint on disk that a test spoils: its settings, its weights, and why it is then refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from mirrorchat.errors import ConfigurationError
from mirrorchat.wenet.checkpoint import Checkpoint, read_checkpoint
from support.wenet_reference import DATA

NEW, OLD = "aishell", "aishell2"  # the old one's CMVN is Kaldi's text
MEAN, ISTD = "encoder.global_cmvn.mean", "encoder.global_cmvn.istd"


def copy_of(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / name, tmp_path / name))


def settings(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8"))
    return loaded


def change_settings(folder: Path, *path: str, value: object) -> None:
    """Set one entry of `train.yaml`, making the sections on the way to it."""
    top = settings(folder)
    section = top
    for name in path[:-1]:
        section = section.setdefault(name, {})
    section[path[-1]] = value
    write_settings(folder, top)


def write_settings(folder: Path, top: dict[str, Any]) -> None:
    (folder / "train.yaml").write_text(yaml.safe_dump(top, allow_unicode=True), encoding="utf-8")


def weights(folder: Path) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(folder / "final.pt", weights_only=True)
    return loaded


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    table = weights(folder)
    change(table)
    torch.save(table, folder / "final.pt")


def refusal(folder: Path) -> str:
    """Return why the checkpoint is refused; the message is one plain line."""
    with pytest.raises(ConfigurationError) as caught:
        read_checkpoint(folder)
    assert "\n" not in caught.value.message and len(caught.value.message) < 800
    return caught.value.message


def output(checkpoint: Checkpoint) -> Tensor:
    features = torch.randn(1, 100, 80, generator=torch.Generator().manual_seed(1)) * 3 + 10
    return checkpoint.model.ctc_activation(checkpoint.model.forward_encoder_chunk(features, 0, -1)[0])
