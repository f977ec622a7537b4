"""Sampling of the next audio token for one sequence, with the logits processors of Hugging Face transformers.

They are the repetition penalty (Keskar et al., arXiv 1909.05858), temperature, top-k and the nucleus (top-p, Holtzman
et al., arXiv 1904.09751), in the order of transformers' `generate`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PROMPT_TOKEN = 1  # stock XTTS has this id in the place of its prefix, so the repetition penalty applies to it

LOOP_TOKENS = 32  # 1.5 s of speech are a loop
LOOP_REPEATS = 4  # if they repeat a phrase at least this many times


@dataclass(frozen=True)
class Sampling:
    """The sampling settings, with the meaning that they have in transformers' `generate`.

    `top_k` 0 and `top_p` 1.0 keep every token. The stop token is not sampled before `min_tokens` other tokens.
    """

    temperature: float = 0.75
    top_k: int = 50
    top_p: float = 0.85
    repetition_penalty: float = 5.0
    do_sample: bool = True
    min_tokens: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.top_k >= 0 and 0 < self.top_p <= 1 and self.repetition_penalty > 0):
            raise ValueError(f"settings that cannot be sampled with: {self}")


class Sampler:
    """Samples the tokens of one sequence with its own random generator, seeded with `seed`.

    The same scores give the tokens that stock XTTS samples after `torch.manual_seed(seed)`.
    """

    def __init__(self, sampling: Sampling, *, seed: int, tokens: int, start_token: int, stop_token: int) -> None:
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed(seed % 2**63)
        self._seen = torch.zeros(tokens, dtype=torch.bool)
        self._seen[[PROMPT_TOKEN, start_token]] = True
        self._stop_token = stop_token
        self._sampled = 0

    def sample(self, scores: Tensor) -> int:
        """Return the next token for `scores`, (tokens,) float32 on the CPU, which are not changed."""
        token = self._pick(self._processed(scores))
        self._seen[token] = True
        self._sampled += 1
        return token

    def _processed(self, scores: Tensor) -> Tensor:
        """Return `scores` after the repetition penalty and the minimum length."""
        penalty = self._sampling.repetition_penalty
        if penalty != 1.0:
            scores = torch.where(self._seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        if self._sampled < self._sampling.min_tokens:
            scores = scores.clone()
            scores[self._stop_token] = -math.inf
        return scores

    def _pick(self, scores: Tensor) -> int:
        if not self._sampling.do_sample:
            return int(scores.argmax())
        if self._sampling.temperature != 1.0:
            scores = scores / self._sampling.temperature
        if self._sampling.top_k:
            kept = torch.topk(scores, min(self._sampling.top_k, len(scores)))[0]
            scores = scores.masked_fill(scores < kept[-1], -math.inf)
        if self._sampling.top_p < 1.0:
            scores = _nucleus(scores, self._sampling.top_p)
        # A batch of one, as in stock XTTS, uses the numbers of the generator in the same order.
        return int(torch.multinomial(scores.softmax(-1)[None], 1, generator=self._generator))


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Return `scores` with -inf outside the nucleus: the likeliest tokens whose probabilities sum to `top_p`."""
    # Only a stable sort drops the same ones of equal scores on every CPU: torch's other sort depends on AVX-512.
    ordered, order = torch.sort(scores, stable=True)
    outside = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[-1] = False
    return scores.masked_fill(outside.scatter(0, order, outside), -math.inf)


def is_loop(tokens: Sequence[int]) -> bool:
    """Return whether the last 1.5 s of `tokens` repeat one phrase, which means that the model is stuck."""
    tail = tokens[-LOOP_TOKENS:]
    if len(tail) < LOOP_TOKENS:
        return False
    return any(tail[period:] == tail[:-period] for period in range(1, LOOP_TOKENS // LOOP_REPEATS + 1))
