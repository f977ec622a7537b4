"""CMVN of WeNet's checkpoints: from the weights or from its file in either format, and what of it is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.wenet_folder import (
    ISTD,
    MEAN,
    NEW,
    OLD,
    change_settings,
    change_weights,
    copy_of,
    output,
    refusal,
    weights,
)
from support.wenet_reference import DATA
from torch import Tensor

from mirrorchat.wenet.checkpoint import read_checkpoint, read_cmvn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the newer checkpoint, to be spoiled."""
    return copy_of(NEW, tmp_path)


def test_cmvn_is_read_from_either_place(folder: Path) -> None:
    both = read_checkpoint(folder)
    (folder / "global_cmvn").rename(folder / "elsewhere")
    assert torch.equal(output(read_checkpoint(folder)), output(both))
    (folder / "elsewhere").rename(folder / "global_cmvn")
    change_weights(folder, lambda table: [table.pop(name) for name in (MEAN, ISTD)])
    torch.testing.assert_close(output(read_checkpoint(folder)), output(both), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("name", [NEW, OLD])
def test_cmvn_in_neither_place_is_an_error(tmp_path: Path, name: str) -> None:
    folder = copy_of(name, tmp_path)
    (folder / "global_cmvn").unlink()
    change_weights(folder, lambda table: [table.pop(name) for name in (MEAN, ISTD)])
    assert "train.yaml asks for CMVN, and neither global_cmvn nor the weights hold any" in refusal(folder)


def test_cmvn_in_two_places_must_agree(folder: Path) -> None:
    change_weights(folder, lambda table: table[ISTD].mul_(1.01))
    assert "global_cmvn disagrees with the CMVN in final.pt" in refusal(folder)


def test_cmvn_that_the_settings_do_not_ask_for(folder: Path) -> None:
    """Trained weights that hold it need it; a file alone is a folder that was put together wrongly."""
    expected = output(read_checkpoint(folder))
    change_settings(folder, "cmvn", value=None)
    assert torch.equal(output(read_checkpoint(folder)), expected)
    change_weights(folder, lambda table: [table.pop(name) for name in (MEAN, ISTD)])
    assert "global_cmvn is there, but train.yaml asks for no CMVN" in refusal(folder)
    (folder / "global_cmvn").unlink()
    checkpoint = read_checkpoint(folder)
    assert checkpoint.model.encoder.global_cmvn is None
    assert not torch.allclose(output(checkpoint), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop(ISTD), "final.pt holds half of a CMVN"),
        (lambda table: table[MEAN].fill_(float("nan")), "its CMVN holds numbers that are not of any speech"),
        (lambda table: table[ISTD].neg_(), "its CMVN holds numbers that are not of any speech"),
        (lambda table: table.update({MEAN: torch.zeros(40)}), r"encoder.global_cmvn.mean is of shape (40,), not (80,)"),
    ],
)
def test_spoilt_cmvn_in_the_weights(folder: Path, change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    change_weights(folder, change)
    assert message in refusal(folder)


def test_cmvn_by_hand(tmp_path: Path) -> None:
    """Two frames, 1 and 3, and two bins; the second has no variance, which is where the floor is."""
    path = tmp_path / "global_cmvn"
    path.write_text(json.dumps({"mean_stat": [4.0, 2.0], "var_stat": [10.0, 2.0], "frame_num": 2}))
    mean, istd = read_cmvn(path, 2)
    assert mean.tolist() == [2.0, 1.0]
    assert istd.tolist() == pytest.approx([1.0, 1e10])
    path.write_text(" [\n  4.0 2.0 2 \n  10.0 2.0 0 ]\n")
    for ours, kaldis in zip((mean, istd), read_cmvn(path, 2), strict=True):
        assert torch.equal(ours, kaldis)


@pytest.mark.parametrize("name", [NEW, OLD])
def test_cmvn_files_hold_what_wenet_computed(name: str) -> None:
    stored = weights(DATA / name)
    mean, istd = read_cmvn(DATA / name / "global_cmvn", 80)
    torch.testing.assert_close(mean, stored[MEAN], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(istd, stored[ISTD], rtol=1e-6, atol=0.0)


def row(*values: object) -> str:
    return " ".join(str(value) for value in values)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "[ ]",
        "hello",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "{}",
        '{"mean_stat": 1, "var_stat": 1, "frame_num": 1}',
        '{"mean_stat": ["a"], "var_stat": [1], "frame_num": 1}',
        json.dumps({"mean_stat": [1.0] * 79, "var_stat": [1.0] * 79, "frame_num": 5}),
        json.dumps({"mean_stat": [1.0] * 80, "var_stat": [2.0] * 80, "frame_num": 0}),
        json.dumps({"mean_stat": [1.0] * 80, "var_stat": [float("nan")] * 80, "frame_num": 5}),
        json.dumps({"mean_stat": [10**400] * 80, "var_stat": [1.0] * 80, "frame_num": 5}),
        f"[ {row(*[1.0] * 80)} 5 {row(*[2.0] * 80)} 7 ]",
        f"[ {row(*[1.0] * 80)} 5 {row(*[2.0] * 79)} 0 ]",
        f"[ {row(*[1.0] * 80)} five {row(*[2.0] * 80)} 0 ]",
        "\0B\4\x01",
        " " * 1_000_001,
    ],
)
def test_spoilt_cmvn_files_are_refused(folder: Path, content: str) -> None:
    (folder / "global_cmvn").write_text(content, encoding="utf-8")
    message = refusal(folder)
    assert "global_cmvn" in message and "install the model again" in message
