"""benchmarks/xtts.py: it runs through on a tiny checkpoint and says everything that it promises."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import make_tiny_xtts
import numpy as np
import pytest
import torch
from support.places import ROOT
from support.simulated_cuda import SimulatedCuda
from support.wenet_reference import DATA
from torch import Tensor

from benchmarks import xtts, xtts_gpu, xtts_kernels
from benchmarks.side_process import Side
from benchmarks.xtts_errors import Outputs, compare
from benchmarks.xtts_kernels import KERNELS, Bench, Kernel
from mirrorchat.hardware import native

FIELDS = {
    "fp16w_vs_stock",
    "fastest_vs_stock",
    "fastest_mode",
    "rtf_fastest",
    "step_vs_floor",
    "first_chunk_vs_stock",
    "batch8_vs_1",
    "vocoder_4x",
    "peak_gb",
    "ids_equal",
    "wav_max_error",
    "load_s",
    "load_gb",
    "errors",
}


def test_last_line_holds_every_figure(tmp_path: Path) -> None:
    make_tiny_xtts.make_checkpoint(tmp_path)
    command = [sys.executable, str(ROOT / "benchmarks" / "xtts.py"), "--json", "--no-kernels", "--rounds", "1"]
    # One thread: where others use the machine too, those of one operation wait long for each other.
    command += ["--tokens", "8", "--threads", "1", "--checkpoint", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures.keys() >= FIELDS
    assert figures["ids_equal"] is True
    assert figures["wav_max_error"] < 1e-3
    modes = ["fp16w", "int8"] if native.library() else ["fp16w"]
    errors = [figures["errors"][mode]["kl_mean"] for mode in modes]
    assert figures["step_vs_floor"].keys() == figures["errors"].keys() == set(modes)
    assert 0 <= errors[0] < 0.01
    assert errors == sorted(set(errors))


class InProcess(Side[Any]):
    """A side in this process, where a simulated GPU is."""

    def __init__(self, name: str, _threads: int, make: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
        self.name, self.held = name, make(*arguments, **settings)

    def ask(self, method: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        return method(self.held, *arguments, **settings)

    def close(self) -> None:
        if hasattr(self.held, "close"):
            self.held.close()


def test_gpu_only_measures_with_wenet_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_cuda: SimulatedCuda
) -> None:
    make_tiny_xtts.make_checkpoint(tmp_path / "xtts")
    limited: list[xtts_gpu.Limited] = []

    class Watched(xtts_gpu.Limited):
        def __init__(self, folder: Path, wenet: Sequence[Path]) -> None:
            super().__init__(folder, wenet)
            limited.append(self)

    monkeypatch.setattr(xtts_gpu, "Side", InProcess)
    monkeypatch.setattr(xtts_gpu, "Limited", Watched)
    monkeypatch.setattr(xtts_gpu, "BATCHES", (1, 2))
    options = ["--gpu-only", "--tokens", "8", "--rounds", "1", "--checkpoint", str(tmp_path / "xtts")]
    monkeypatch.setattr(sys, "argv", ["xtts.py", *options, "--wenet", str(DATA / "aishell")])
    figures = xtts.measure_all(xtts.parse_options())
    assert {name.partition("_")[0] for name in figures} == {"gpu"}
    assert figures["gpu_wenet_models"] == 1
    (own,) = limited
    assert [each.info.device for each in own.recognizers] == ["cuda:0"]
    assert sum(simulated_cuda.waits.values())  # it was used


def test_gpu_only_without_a_gpu_ends_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["xtts.py", "--gpu-only"])
    with pytest.raises(SystemExit):
        xtts.parse_options()
    assert "torch finds no GPU" in capsys.readouterr().err


def test_errors_of_known_outputs() -> None:
    even, odd = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    latents = np.array([[3.0, 4.0]])
    found = compare(Outputs(even, latents), Outputs(odd, latents + np.array([[0.0, 0.5]])))
    assert found["kl_mean"] == pytest.approx(0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75))
    assert found["latent_error"] == pytest.approx(0.1)
    assert compare(Outputs(even, latents), Outputs(even + 5, latents))["kl_max"] == pytest.approx(0.0)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("name", [kernel.name for kernel in KERNELS])
def test_kernels_give_the_product_or_are_missing(name: str) -> None:
    measured = Bench(64, 1).measure(name)
    if "missing" not in measured:
        bits = 8 * next(kernel.bytes_each for kernel in KERNELS if kernel.name == name)
        assert measured["error"] < (0.15 if bits < 8 else 0.02)
        assert all(seconds > 0 for seconds in measured["seconds"].values())


def test_a_kernel_of_another_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: Tensor) -> Callable[[Tensor], Tensor]:
        raise AttributeError("there is no such operator\nand more")

    monkeypatch.setattr(xtts_kernels, "KERNELS", (Kernel("new", 1, absent),))
    assert Bench(64, 1).measure("new") == {"missing": "there is no such operator"}
