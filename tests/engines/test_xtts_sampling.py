"""Drawing of tokens against transformers' own processors; loops."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mirrorchat.xtts.sampling import LOOP_TOKENS, Sampler, Sampling, is_loop

TOKENS, START, STOP = 66, 64, 65
STEPS = 12


def transformers_tokens(scores: torch.Tensor, sampling: Sampling, seed: int) -> list[int]:
    """Return the tokens that transformers samples from `scores` (steps, tokens) after XTTS's fake prompt of ones."""
    ids: Any = torch.tensor([[1, 1, 1, START]])
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    processors.append(MinNewTokensLengthLogitsProcessor(ids.shape[1], sampling.min_tokens, STOP))
    if sampling.do_sample:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
        processors.append(TopKLogitsWarper(sampling.top_k))
        processors.append(TopPLogitsWarper(sampling.top_p))
    torch.manual_seed(seed)
    for row in scores:
        processed = processors(ids, row[None].clone())
        sampled = torch.multinomial(processed.softmax(-1), 1) if sampling.do_sample else processed.argmax(-1)[None]
        ids = torch.cat([ids, sampled], 1)
    return list(ids[0, 4:].tolist())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.1, 0.75, 1.0, 2.0]),
    top_k=st.sampled_from([1, 5, 50, 500]),
    top_p=st.sampled_from([0.1, 0.85, 1.0]),
    penalty=st.sampled_from([1.0, 2.0, 5.0]),
    do_sample=st.booleans(),
    min_tokens=st.sampled_from([0, STEPS]),
)
def test_same_tokens_as_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, penalty: float, do_sample: bool, min_tokens: int
) -> None:
    sampling = Sampling(temperature, top_k, top_p, penalty, do_sample, min_tokens)
    scores = torch.randn(STEPS, TOKENS, generator=torch.Generator().manual_seed(seed)) * 3
    scores[:, [1, START, STOP]] += 4.0  # what the penalty of the prompt and the least length are about
    kept = scores.clone()
    with torch.random.fork_rng():
        expected = transformers_tokens(scores, sampling, seed)
    before = torch.random.get_rng_state()
    sampler = Sampler(sampling, seed=seed, tokens=TOKENS, start_token=START, stop_token=STOP)
    assert [sampler.sample(row) for row in scores] == expected
    assert torch.equal(scores, kept)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"repetition_penalty": 0.0}]
)
def test_settings_that_cannot_be_sampled_with(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot be sampled with"):
        Sampling(**wrong)  # type: ignore[arg-type]  # each is a number


@pytest.mark.parametrize("period", [1, 3, 8])
def test_a_phrase_over_and_over_is_a_loop(period: int) -> None:
    looped = [60, 61, 62, *(list(range(period)) * LOOP_TOKENS)][: 3 + LOOP_TOKENS]
    assert is_loop(looped)
    assert not is_loop(looped[:-1])  # what came before it still counts
    assert not is_loop([*looped[:-1], 63])


def test_a_phrase_said_three_times_is_no_loop() -> None:
    assert not is_loop(list(range(11)) * 3)
    assert not is_loop([5] * (LOOP_TOKENS - 1))
