"""Sampling for many slots on the device against `Sampler`, which samples for one sequence on the CPU."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrorchat.xtts.device_sampling import PIECE, DeviceSampler
from mirrorchat.xtts.sampling import Sampler, Sampling

TOKENS, START, STOP = 66, 64, 65
STEPS = 2 * PIECE + 5
SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.1, 0.7, 0.75, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 50, 500]),
    top_p=st.sampled_from([0.1, 0.5, 0.85, 1.0]),
    repetition_penalty=st.sampled_from([0.7, 1.0, 2.0, 5.0]),
    do_sample=st.booleans(),
    min_tokens=st.sampled_from([0, 3, STEPS]),
)


@dataclass(frozen=True)
class Plan:
    """Rows with their settings and seeds, and the seed of the scores, which may be tied."""

    slots: list[tuple[Sampling, int]]
    seed: int
    tied: bool

    def scores(self) -> torch.Tensor:
        """Return the scores (steps, slots, tokens), when they are to be tied of few different numbers."""
        scores = torch.randn(STEPS, len(self.slots), TOKENS, generator=torch.Generator().manual_seed(self.seed)) * 3
        scores[:, :, [1, START, STOP]] += 4.0  # what the penalty of the prompt and the least length are about
        return scores.round() if self.tied else scores

    def active(self) -> list[list[bool]]:
        """Return for each step which of the slots sample in it."""
        sampled = torch.rand(STEPS, len(self.slots), generator=torch.Generator().manual_seed(self.seed)) < 0.8
        return [[bool(each) for each in step] for step in sampled]


PLANS = st.builds(
    Plan,
    slots=st.lists(st.tuples(SETTINGS, st.integers(0, 2**64)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    tied=st.booleans(),
)


def device_sampler(slots: int, device: torch.device) -> DeviceSampler:
    return DeviceSampler(slots, tokens=TOKENS, max_tokens=STEPS, start_token=START, stop_token=STOP, device=device)


def one_sampler(sampling: Sampling, seed: int) -> Sampler:
    return Sampler(sampling, seed=seed, tokens=TOKENS, start_token=START, stop_token=STOP)


def sampled_together(plan: Plan, device: torch.device) -> list[list[int]]:
    """Return the tokens of each slot when all sample together, in slots 1, 2, ... of a sampler with more slots."""
    count = len(plan.slots)
    sampler = device_sampler(count + 2, device)
    found: list[list[int]] = [[] for _ in plan.slots]
    for place, (sampling, seed) in enumerate(plan.slots):
        sampler.start(place + 1, sampling, seed)
    for scores, active in zip(plan.scores().to(device), plan.active(), strict=True):
        for place in range(count):
            if active[place]:
                sampler.supply(place + 1)
        tokens = sampler.sample(scores, slice(1, count + 1), torch.tensor(active, device=device))
        for place in range(count):
            if active[place]:
                found[place].append(int(tokens[place]))
    assert sampler.sampled.tolist() == [0, *(len(tokens) for tokens in found), 0]
    return found


def sampled_alone(plan: Plan) -> list[list[int]]:
    """Return the tokens that `Sampler` gives for each slot from the same scores."""
    found: list[list[int]] = []
    for place, (sampling, seed) in enumerate(plan.slots):
        sampler = one_sampler(sampling, seed)
        scores = [row[place] for row, active in zip(plan.scores(), plan.active(), strict=True) if active[place]]
        found.append([sampler.sample(row) for row in scores])
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=PLANS)
def test_same_tokens_as_one_by_one(any_device: torch.device, plan: Plan) -> None:
    before = torch.random.get_rng_state()
    assert sampled_together(plan, any_device) == sampled_alone(plan)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_same_tokens_at_the_released_model_s_size(any_device: torch.device) -> None:
    tokens, count, seeds = 1026, 40, range(8)
    generator = torch.Generator().manual_seed(0)
    options = {"tokens": tokens, "start_token": 1024, "stop_token": 1025}
    together = DeviceSampler(len(seeds), max_tokens=count, device=any_device, **options)
    alone = [Sampler(Sampling(), seed=seed, **options) for seed in seeds]
    active = torch.ones(len(seeds), dtype=torch.bool, device=any_device)
    for seed in seeds:
        together.start(seed, Sampling(), seed)
    for _ in range(count):
        scores = torch.randn(len(seeds), tokens, generator=generator) * 2
        for seed in seeds:
            together.supply(seed)
        found = together.sample(scores.to(any_device), slice(len(seeds)), active).tolist()
        assert found == [sampler.sample(row) for sampler, row in zip(alone, scores, strict=True)]


@pytest.mark.parametrize("spread", [0.0, 1e-30, 30.0, 1e30])
def test_extreme_scores(spread: float) -> None:
    """All tied, or one that has all the probability: one token always remains."""
    scores = torch.randn(STEPS, 1, TOKENS, generator=torch.Generator().manual_seed(1)) * spread
    for sampling in (Sampling(), Sampling(top_k=0, top_p=1.0), Sampling(top_p=1e-9), Sampling(do_sample=False)):
        sampler, one = device_sampler(1, torch.device("cpu")), one_sampler(sampling, 3)
        sampler.start(0, sampling, 3)
        for row in scores:
            sampler.supply(0)
            assert int(sampler.sample(row, slice(1), torch.tensor([True]))) == one.sample(row[0])


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_harms_no_other(wrong: float) -> None:
    sampler, one = device_sampler(2, torch.device("cpu")), one_sampler(Sampling(), 0)
    for slot in range(2):
        sampler.start(slot, Sampling(), 0)
    for scores in torch.randn(STEPS, TOKENS, generator=torch.Generator().manual_seed(2)):
        for slot in range(2):
            sampler.supply(slot)
        found = sampler.sample(torch.stack([torch.full_like(scores, wrong), scores]), slice(2), torch.ones(2).bool())
        assert 0 <= int(found[0]) < TOKENS  # it is looked up in tables before anybody has seen it
        assert int(found[1]) == one.sample(scores)


@pytest.mark.parametrize("until", [1, PIECE, PIECE + 1])
def test_a_row_goes_on_elsewhere(until: int) -> None:
    """Its tokens are the same in another slot, while other sequences use the old one."""
    sampler, one = device_sampler(3, torch.device("cpu")), one_sampler(Sampling(min_tokens=until + 2), 5)
    scores = torch.randn(STEPS, TOKENS, generator=torch.Generator().manual_seed(3))
    scores[:, STOP] += 6

    def sample(slot: int, step: int) -> int:
        sampler.supply(slot)
        return int(sampler.sample(scores[None, step], slice(slot, slot + 1), torch.tensor([True])))

    sampler.start(0, Sampling(min_tokens=until + 2), 5)
    expected = [one.sample(row) for row in scores]
    assert [sample(0, step) for step in range(until)] == expected[:until]
    restore = sampler.save(0)
    sampler.start(0, Sampling(temperature=2.0), 6)
    for step in range(PIECE + 3):
        sample(0, step)
    restore(2)
    assert [sample(2, step) for step in range(until, STEPS)] == expected[until:]


def test_more_numbers_than_needed_do_no_harm() -> None:
    """A step that failed and is tried again asks for them again."""
    sampler, one = device_sampler(1, torch.device("cpu")), one_sampler(Sampling(), 7)
    sampler.start(0, Sampling(), 7)
    for step, scores in enumerate(torch.randn(STEPS, TOKENS, generator=torch.Generator().manual_seed(4))):
        for _ in range(1 + step % 3):
            sampler.supply(0)
        assert int(sampler.sample(scores[None], slice(1), torch.tensor([True]))) == one.sample(scores)
