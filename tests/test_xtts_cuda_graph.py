"""The step with fixed shapes against the plain one; captured as a graph where there is a GPU."""

from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts_model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts

from mirrorchat.xtts_cuda_graph import LENGTH_STEP, StaticSteps
from mirrorchat.xtts_gpt import Cache, TorchGpt
from mirrorchat.xtts_linear import WeightMode
from mirrorchat.xtts_model import load_network

POSITIONS = 2 * LENGTH_STEP + 10
# Rows and positions of steps that follow one another: sequences join, leave, pause, and cross a length step.
PLANS = [
    [([0], [40]), ([0], [41])],
    [([2], [40]), ([2, 0], [41, 7]), ([0, 2], [8, 42]), ([2], [43])],
    [([0, 1, 2], [5, LENGTH_STEP - 1, 9]), ([1], [LENGTH_STEP]), ([0, 1, 2], [6, LENGTH_STEP + 1, 10])],
    [([1, 0], [POSITIONS - 2, 1])],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    make_tiny_xtts.make_checkpoint(folder)
    return folder


def compare(folder: Path, plan: list[tuple[list[int], list[int]]], device: torch.device, *, capture: bool) -> None:
    gpt = TorchGpt(load_network(folder), WeightMode.FP32, device)
    caches = [Cache(3, POSITIONS, gpt) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    for cache in caches:
        cache.data.copy_(torch.randn(cache.data.shape, generator=generator.manual_seed(0)))
    static = StaticSteps(gpt, caches[0], capture=capture)
    for rows, positions in plan:
        x = torch.randn(len(rows), gpt.width, generator=generator).to(device)
        found, expected = static.step(x, rows, positions), gpt.step(x, caches[1], rows, positions)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # Nothing was written that belongs to another sequence.
    used = (slice(None), slice(None), slice(None), slice(None), slice(POSITIONS - 1))
    torch.testing.assert_close(caches[0].data[used], caches[1].data[used], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", PLANS)
def test_same_as_the_plain_step(folder: Path, plan: list[tuple[list[int], list[int]]]) -> None:
    compare(folder, plan, torch.device("cpu"), capture=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("plan", PLANS)
def test_captured(folder: Path, plan: list[tuple[list[int], list[int]]]) -> None:
    compare(folder, plan, torch.device("cuda"), capture=True)


@pytest.mark.parametrize(
    ("inputs", "rows", "positions"),
    [(1, [3], [0]), (1, [0], [POSITIONS - 1]), (2, [0], [0]), (1, [0], [0, 1]), (0, [], [])],
)
def test_what_does_not_fit_is_refused(folder: Path, inputs: int, rows: list[int], positions: list[int]) -> None:
    gpt = TorchGpt(load_network(folder), WeightMode.FP32, torch.device("cpu"))
    with pytest.raises(ValueError, match="do not fit"):
        StaticSteps(gpt, Cache(3, POSITIONS, gpt), capture=False).step(torch.zeros(inputs, gpt.width), rows, positions)
