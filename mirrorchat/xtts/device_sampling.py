"""Sampling of the next audio tokens of all KV-cache slots at once, on the device: `Sampler` without the host.

`torch.multinomial` samples one token as argmax(p / q) with exponential random numbers q (`multinomial` in
aten/src/ATen/native/Distributions.cpp). The q do not depend on the scores. So the CPU computes them in advance with
the random generator of each sequence, and uploads them. With the same scores, the tokens are those of `Sampler` and of
stock XTTS.

On a CPU this holds to the last bit. A GPU may round the softmax differently, and more likely the cumulative sum of the
nucleus, which it adds in another order. That can change the choice between two tokens that are almost tied.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mirrorchat.xtts.sampling import PROMPT_TOKEN, Sampling
from mirrorchat.xtts.steps import Restore

PIECE = 16  # tokens whose random numbers are computed and uploaded together: 0.3 ms of the CPU's time


@dataclass
class _NoiseSource:
    """The random numbers of a slot: `asked` tokens have been requested, those of `ready` tokens are uploaded."""

    generator: torch.Generator
    asked: int = 0
    ready: int = 0


class DeviceSampler:
    """Samples for the sequences in `slots` slots, at most `max_tokens` each, from a vocabulary of `tokens` tokens.

    The random numbers take slots * (max_tokens + 1) * tokens * 4 bytes on `device`: 2.5 MB for each slot of XTTS v2.
    `sampled`, (slots,) int64, counts the tokens of each slot so far.
    """

    def __init__(
        self, slots: int, *, tokens: int, max_tokens: int, start_token: int, stop_token: int, device: torch.device
    ) -> None:
        self._tokens, self._max_tokens, self._stop_token = tokens, max_tokens, stop_token
        self.sampled = torch.zeros(slots, dtype=torch.int64, device=device)
        self._settings = torch.ones(slots, len(self._columns(Sampling())), device=device)
        self._dropped = torch.zeros(slots, dtype=torch.int64, device=device)  # tokens below the top k
        self._at_random = torch.ones(slots, dtype=torch.bool, device=device)
        self._seen = torch.zeros(slots, tokens, dtype=torch.bool, device=device)
        # The numbers of a token too many are for inactive slots, which have sampled all of theirs.
        self._noise = torch.ones(slots, max_tokens + 1, tokens, device=device)
        self._prompt = torch.zeros(tokens, dtype=torch.bool, device=device)
        self._prompt[[PROMPT_TOKEN, start_token]] = True
        self._pinned = device.type == "cuda"
        self._noise_sources: dict[int, _NoiseSource] = {}

    def start(self, slot: int, sampling: Sampling, seed: int) -> None:
        """Begin a sequence in `slot`."""
        columns = torch.tensor(self._columns(sampling), pin_memory=self._pinned)
        self._settings[slot].copy_(columns, non_blocking=True)
        self._dropped[slot] = self._tokens - min(sampling.top_k or self._tokens, self._tokens)
        self._at_random[slot] = sampling.do_sample
        self._seen[slot].copy_(self._prompt)
        self.sampled[slot] = 0
        ready = 0 if sampling.do_sample else self._max_tokens  # greedy decoding needs no random numbers
        self._noise_sources[slot] = _NoiseSource(torch.Generator().manual_seed(seed % 2**63), ready=ready)

    def supply(self, slot: int) -> None:
        """Upload the random numbers for the next token of `slot`, without waiting. Call it before each token.

        An extra call uploads the next numbers earlier than necessary.
        """
        numbers = self._noise_sources[slot]
        if numbers.ready <= numbers.asked and numbers.ready < self._max_tokens:
            piece = self._noise[slot, numbers.ready : min(numbers.ready + PIECE, self._max_tokens)]
            made = torch.empty(piece.shape, pin_memory=self._pinned)
            for each in torch.split(made, 1):  # as multinomial does: some kernels seed at each call
                each.exponential_(generator=numbers.generator)
            piece.copy_(made, non_blocking=True)
            numbers.ready += len(made)
        numbers.asked += 1

    def sample(self, scores: Tensor, slots: slice, active: Tensor) -> Tensor:
        """Return the next tokens (n,) int64 of `slots`, and record them for the slots that are `active` (n,).

        `scores` are (n, tokens) float32. An inactive slot gets any token. All shapes are fixed, and nothing here waits
        for the device.
        """
        seen, sampled = self._seen[slots], self.sampled[slots]
        temperature, threshold, penalty, min_tokens = torch.split(self._settings[slots], 1, 1)  # (n, 1) each
        scores = torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        scores[:, self._stop_token, None].masked_fill_(sampled[:, None] < min_tokens, -math.inf)
        probabilities = _likeliest(scores / temperature, self._dropped[slots, None], threshold).softmax(-1)
        noise = self._noise[slots].gather(1, sampled[:, None, None].expand(-1, 1, self._tokens))[:, 0]
        tokens = torch.where(self._at_random[slots, None], probabilities / noise, scores).argmax(-1)
        seen.scatter_(1, tokens[:, None], seen.gather(1, tokens[:, None]) | active[:, None])
        sampled.add_(active)
        return tokens

    def move(self, slot: int, to: int) -> None:
        """Copy the present state of `slot` into the slot `to`."""
        for target, source in zip(self._state(to), self._state(slot), strict=True):
            target.copy_(source)
        self._noise_sources[to] = self._noise_sources[slot]

    def save(self, slot: int) -> Restore:
        """Return a function, to be called once, that copies the present state of `slot` into another slot."""
        kept = [tensor.clone() for tensor in self._state(slot)]
        numbers = self._noise_sources[slot]

        def restore(slot: int) -> None:
            for tensor, value in zip(self._state(slot), kept, strict=True):
                tensor.copy_(value)
            self._noise_sources[slot] = numbers

        return restore

    def _state(self, slot: int) -> Iterator[Tensor]:
        """Return views of the state of `slot` on the device."""
        tensors = (self.sampled, self._settings, self._dropped, self._at_random, self._seen, self._noise)
        return (tensor[slot] for tensor in tensors)

    def _columns(self, sampling: Sampling) -> list[float]:
        """Return the settings for `sample`. They are exact in float32, or `Sampler` rounds them to float32, too."""
        return [
            sampling.temperature,
            1 - sampling.top_p,  # 0 drops only tokens of probability 0
            sampling.repetition_penalty,
            sampling.min_tokens,
        ]


def _likeliest(scores: Tensor, dropped: Tensor, threshold: Tensor) -> Tensor:
    """Return `scores` (n, tokens) with -inf for the `dropped` (n, 1) lowest ones and outside the nucleus.

    A token is outside the nucleus if the cumulative probability, from the least likely token on, is at most `threshold`
    (n, 1). One sort serves both. Of equal scores at the edge of the nucleus the lower tokens are outside, as in
    `Sampler`.
    """
    ordered, order = torch.sort(scores, dim=-1, stable=True)
    below = ordered < ordered.gather(-1, dropped)
    outside = ordered.masked_fill(below, -math.inf).softmax(-1).cumsum(-1) <= threshold
    outside[:, -1].zero_()
    outside |= below
    return scores.masked_fill(torch.empty_like(outside).scatter_(-1, order, outside), -math.inf)
