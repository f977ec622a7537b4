"""The draw of the next audio tokens for all rows at once on the device: what `Sampler` does, without the host.

`torch.multinomial` draws one token as argmax(p / q), where the q are exponential random numbers (`multinomial` in
aten/src/ATen/native/Distributions.cpp). They do not depend on the scores: so they are drawn ahead, by each sequence's
generator on the CPU, and uploaded. With the same scores the tokens are then those of `Sampler` and of stock XTTS.

On a CPU they are so to the last bit. A GPU may round the softmax and, more likely, the cumulative sum of the nucleus
(added up in another order) differently in the last place, which decides otherwise where two tokens are as good as tied.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mirrorchat.xtts.sampling import PROMPT_TOKEN, Sampling
from mirrorchat.xtts.steps import Restore

PIECE = 16  # draws whose random numbers are made and uploaded at once: 0.3 ms of the CPU's time


@dataclass
class _Numbers:
    """Where a row's random numbers come from: draws asked for, and draws whose numbers have been uploaded."""

    generator: torch.Generator
    asked: int = 0
    ready: int = 0


class DeviceSampler:
    """Draws for up to `rows` sequences, at most `draws` tokens each, from scores of `tokens` tokens on `device`.

    The random numbers take rows * draws * tokens * 4 bytes there: 2.5 MB a row for XTTS v2. `drawn` (rows,) int64 are
    the tokens drawn in each row so far.
    """

    def __init__(
        self, rows: int, *, tokens: int, draws: int, start_token: int, stop_token: int, device: torch.device
    ) -> None:
        self._tokens, self._draws, self._stop_token = tokens, draws, stop_token
        self.drawn = torch.zeros(rows, dtype=torch.int64, device=device)
        self._settings = torch.ones(rows, len(self._columns(Sampling())), device=device)
        self._said = torch.zeros(rows, tokens, dtype=torch.bool, device=device)
        self._noise = torch.ones(rows, draws, tokens, device=device)
        self._prompt = torch.zeros(tokens, dtype=torch.bool, device=device)
        self._prompt[[PROMPT_TOKEN, start_token]] = True
        self._pinned = device.type == "cuda"
        self._numbers: dict[int, _Numbers] = {}

    def start(self, row: int, sampling: Sampling, seed: int) -> None:
        """Begin a sequence in `row`."""
        columns = torch.tensor(self._columns(sampling), pin_memory=self._pinned)
        self._settings[row].copy_(columns, non_blocking=True)
        self._said[row].copy_(self._prompt)
        self.drawn[row] = 0
        ready = 0 if sampling.do_sample else self._draws  # nothing is drawn at random
        self._numbers[row] = _Numbers(torch.Generator().manual_seed(seed % 2**63), ready=ready)

    def supply(self, row: int) -> None:
        """Have the random numbers for the next draw in `row` uploaded; to be called before each. Does not wait.

        Called once too often, it uploads the next ones earlier than it must.
        """
        numbers = self._numbers[row]
        if numbers.ready <= numbers.asked and numbers.ready < self._draws:
            piece = self._noise[row, numbers.ready : numbers.ready + PIECE]
            made = torch.empty(piece.shape, pin_memory=self._pinned)
            for each in torch.split(made, 1):  # multinomial's own call, with its shape: some kernels seed for each call
                each.exponential_(generator=numbers.generator)
            piece.copy_(made, non_blocking=True)
            numbers.ready += len(made)
        numbers.asked += 1

    def draw(self, scores: Tensor, rows: slice, active: Tensor) -> Tensor:
        """Return the next tokens (n,) int64 of `rows` from `scores` (n, tokens), and note them where `active` (n,).

        Rows that are not active get any token. Nothing here waits for the device, and all shapes are fixed.
        """
        said, drawn = self._said[rows], self.drawn[rows]
        temperature, top_k, threshold, penalty, min_tokens, sampled = torch.split(self._settings[rows], 1, 1)  # (n, 1)
        scores = torch.where(said, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        scores[:, self._stop_token, None].masked_fill_(drawn[:, None] < min_tokens, -math.inf)
        probabilities = _likeliest(scores / temperature, top_k.long(), threshold).softmax(-1)
        place = (drawn * active)[:, None, None].expand(-1, 1, self._tokens)
        noise = self._noise[rows].gather(1, place)[:, 0]
        tokens = torch.where(sampled > 0, probabilities / noise, scores).argmax(-1)
        said.scatter_(1, tokens[:, None], said.gather(1, tokens[:, None]) | active[:, None])
        drawn.add_(active)
        return tokens

    def save(self, row: int) -> Restore:
        """Return a function that puts what `row` holds now into the row it is given. To be called once."""
        kept = [tensor.clone() for tensor in self._state(row)]
        numbers = self._numbers[row]

        def restore(row: int) -> None:
            for tensor, value in zip(self._state(row), kept, strict=True):
                tensor.copy_(value)
            self._numbers[row] = numbers

        return restore

    def _state(self, row: int) -> Iterator[Tensor]:
        """Return views of all that is kept for `row` on the device."""
        return (tensor[row] for tensor in (self.drawn, self._settings, self._said, self._noise))

    def _columns(self, sampling: Sampling) -> list[float]:
        """Return the settings as `draw` reads them. All are exact in float32, or rounded to it by `Sampler` as well."""
        return [
            sampling.temperature,
            min(sampling.top_k or self._tokens, self._tokens),
            1 - sampling.top_p,  # 0 drops only what has no probability: nothing, in effect
            sampling.repetition_penalty,
            sampling.min_tokens,
            float(sampling.do_sample),
        ]


def _likeliest(scores: Tensor, top_k: Tensor, threshold: Tensor) -> Tensor:
    """Return `scores` (n, tokens) with -inf for all but the `top_k` (n, 1) highest, and what lies outside the nucleus.

    That is where the cumulative probability from the least likely on is at most `threshold` (n, 1). One sort does for
    both. Of equal scores at the nucleus's edge those of lower tokens are outside, as in `Sampler`.
    """
    ordered, order = torch.sort(scores, dim=-1, stable=True)
    below = ordered < ordered.gather(-1, scores.shape[-1] - top_k)
    outside = ordered.masked_fill(below, -math.inf).softmax(-1).cumsum(-1) <= threshold
    outside[:, -1] = False
    outside |= below
    return scores.masked_fill(outside.scatter(-1, order, outside), -math.inf)
