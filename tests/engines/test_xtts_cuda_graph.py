"""Steps with fixed shapes, which sample on the device, against eager ones; captured as graphs if there is a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts

from mirrorchat.hardware.devices import current_device
from mirrorchat.xtts.cuda_graph import LENGTH_STEP, StaticSteps
from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import load_network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import EagerSteps, Sampled, Steps

CPU = torch.device("cpu")
POSITIONS = 2 * LENGTH_STEP + 10
TIE = 1e-5
SETTINGS = [Sampling(), Sampling(do_sample=False), Sampling(top_k=0, top_p=1.0, temperature=1.5, min_tokens=9)]


@dataclass(frozen=True)
class Start:
    """A new sequence in `slot` with its first `positions` filled at random."""

    slot: int
    positions: int
    number: int = 0  # of its settings, its seed


@dataclass(frozen=True)
class Preempt:
    """`slot` is saved, used by a sequence that has not ended when it is put back, into slot `back`."""

    slot: int
    back: int


Plan = Sequence[Start | Preempt | list[int]]  # a list is a step of those slots
PLANS: list[Plan] = [
    [Start(0, 40), *[[0]] * 20],
    [Start(2, 40), [2], Start(0, 7, 1), [2, 0], [0, 2], [2], [0], [0, 2], Start(2, 9, 2), [0, 2], [2]],
    [Start(0, 5), Start(1, LENGTH_STEP - 2, 1), Start(2, 9, 2), *[[0, 1, 2]] * 3, [1], *[[2, 0, 1]] * 3],
    [Start(1, POSITIONS - 4), Start(0, 1, 1), [1, 0], [0], [1, 0], [1], [0]],
    [Start(0, 30), *[[0]] * 3, Start(1, 20, 2), [0, 1], Preempt(0, 2), *[[2, 1]] * 9],
    [Start(0, 200), *[[0]] * 3, Preempt(0, 0), *[[0]] * 17],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    make_tiny_xtts.make_checkpoint(folder)
    return folder


def sampled(gpt: TorchGpt, steps: Steps, cache: Cache, plan: Plan) -> list[Sampled]:
    """Return what the steps of `plan` give; those that are late are collected after the next has been launched."""
    generator = torch.Generator().manual_seed(0)
    launched = []
    for item in plan:
        if isinstance(item, Start):
            shape = cache.data[item.slot, :, :, :, : item.positions].shape
            cache.data[item.slot, :, :, :, : item.positions] = torch.randn(shape, generator=generator)
            last = torch.randn(1, gpt.width, generator=generator).to(cache.data.device)
            sampling = SETTINGS[item.number]
            launched.append(steps.start(item.slot, last, positions=item.positions, sampling=sampling, seed=item.number))
        elif isinstance(item, Preempt):
            restore = steps.save(item.slot)
            spoil(gpt, steps, cache, item.slot)
            restore(item.back)
        else:
            launched.append(steps.launch(item))
    return [each for step in launched for each in step.collect()]


def spoil(gpt: TorchGpt, steps: Steps, cache: Cache, slot: int) -> None:
    """Let a sequence of numbers that are not finite use all of `slot`."""
    cache.data[slot, ..., : POSITIONS - 2, :] = torch.nan
    last = torch.full((1, gpt.width), torch.nan, device=cache.data.device)
    steps.start(slot, last, positions=POSITIONS - 2, sampling=Sampling(), seed=9)
    assert steps.launch([slot]).collect()[0].token is None


@pytest.mark.parametrize("plan", PLANS)
def test_same_as_plain_steps(folder: Path, plan: Plan, any_device: torch.device) -> None:
    gpt, capture = TorchGpt(load_network(folder), WeightMode.FP32, any_device), any_device.type == "cuda"
    caches = [Cache(3, POSITIONS, gpt) for _ in range(2)]
    for cache in caches:
        cache.data.fill_(torch.nan)  # what earlier sequences left
    with current_device(any_device):
        found = sampled(gpt, StaticSteps(gpt, caches[0], capture=capture), caches[0], plan)
        expected = sampled(gpt, EagerSteps(gpt, caches[1]), caches[1], plan)
    assert [each.token for each in found] == [each.token for each in expected]
    assert None not in [each.token for each in found]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.latent, other.latent, atol=TIE, rtol=TIE)


@pytest.mark.parametrize("steps_kind", ["eager", "static"])
def test_numbers_that_are_not_finite_are_one_slot_s(folder: Path, steps_kind: str) -> None:
    gpt = TorchGpt(load_network(folder), WeightMode.FP32, CPU)
    cache = Cache(3, POSITIONS, gpt)
    steps: Steps = EagerSteps(gpt, cache) if steps_kind == "eager" else StaticSteps(gpt, cache, capture=False)
    plan: Plan = [Start(0, 20), Start(1, 30, 1), *[[0, 1]] * 5]
    expected = sampled(gpt, steps, cache, plan)
    spoil(gpt, steps, cache, 2)
    steps.start(2, torch.zeros(1, gpt.width), positions=POSITIONS - 4, sampling=Sampling(), seed=0)
    cache.data[2, ..., :9, :] = torch.nan
    found = sampled(gpt, steps, cache, [Start(0, 20), Start(1, 30, 1), *[[0, 2, 1]] * 2, *[[0, 1]] * 3])
    own = [found[index] for index in (0, 1, 2, 4, 5, 7, *range(8, 14))]
    assert [each.token for each in own] == [each.token for each in expected]
    assert [found[index].token for index in (3, 6)] == [None, None]


@pytest.mark.parametrize("part", ["step", "latents_and_scores"])
@pytest.mark.parametrize("steps_kind", ["eager", "static"])
def test_a_step_that_failed_can_be_asked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, steps_kind: str, part: str
) -> None:
    """With fewer slots, too: none has moved on."""
    gpt = TorchGpt(load_network(folder), WeightMode.FP32, CPU)
    cache = Cache(2, POSITIONS, gpt)
    steps: Steps = EagerSteps(gpt, cache) if steps_kind == "eager" else StaticSteps(gpt, cache, capture=False)
    plan: Plan = [Start(0, 20), Start(1, 30, 2), [0, 1]]
    expected = sampled(gpt, steps, cache, [*plan, *[[0], [1]] * 20])
    found = sampled(gpt, steps, cache, plan)

    def failing(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    target: object = gpt
    if part == "step" and isinstance(steps, StaticSteps):
        target, part = steps._steps[2, LENGTH_STEP], "_last_outputs"
    for _ in range(20):
        with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
            patch.setattr(target, part, failing)
            steps.launch([0, 1])
        found += sampled(gpt, steps, cache, [[0], [1]])
    assert [each.token for each in found] == [each.token for each in expected]


@pytest.mark.parametrize("slots", [[], [0, 0], [1]])
def test_what_cannot_be_a_step_is_refused(folder: Path, slots: list[int]) -> None:
    gpt = TorchGpt(load_network(folder), WeightMode.FP32, CPU)
    cache = Cache(3, POSITIONS, gpt)
    steps = StaticSteps(gpt, cache, capture=False)
    sampled(gpt, steps, cache, [Start(0, 3), Start(1, POSITIONS - 1)])
    with pytest.raises(ValueError, match=r"no step can be made|is full"):
        steps.launch(slots)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_waits_for_the_device(folder: Path, cuda_device: torch.device) -> None:
    """Once a step has been captured, neither it nor a new slot makes the host wait."""
    gpt = TorchGpt(load_network(folder), WeightMode.BF16, cuda_device)
    cache = Cache(3, POSITIONS, gpt)
    steps = StaticSteps(gpt, cache, capture=True)
    sampled(gpt, steps, cache, [Start(0, 20), Start(1, 20), [0, 1]])
    last = torch.randn(1, gpt.width, device=cuda_device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        launched = [steps.launch([0, 1]) for _ in range(18)]  # the random numbers are supplied anew
        launched.append(steps.start(1, last, positions=30, sampling=Sampling(), seed=1))
        launched += [steps.launch(slots) for slots in ([0], [0, 1], [1])]
        steps.save(0)(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(each.token is not None for step in launched for each in step.collect())
