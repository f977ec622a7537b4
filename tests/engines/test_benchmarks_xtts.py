"""benchmarks/xtts.py: it runs through on a tiny checkpoint and says everything that it promises."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import make_tiny_xtts
import numpy as np
import pytest
from support.places import ROOT
from torch import Tensor

from benchmarks import xtts_kernels
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
