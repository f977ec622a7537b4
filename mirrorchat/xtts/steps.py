"""How the decode engine gets its next tokens: what every kind of step offers, and the plain kind.

The engine knows which sequence has which row of the cache; what belongs to a row (where it is, what has been drawn) is
kept here. `EagerSteps` draws on the CPU and is done when it returns. `StaticSteps` (xtts/cuda_graph.py) leaves all of
it on the device, so that the engine can launch a step before it has read the one before.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.native_gpt import NativeGpt
from mirrorchat.xtts.sampling import Sampler, Sampling

Restore = Callable[[int], None]


class StepMode(enum.StrEnum):
    """The kinds of steps: plain ones, ones with fixed shapes, and those captured as CUDA graphs (GPU only)."""

    EAGER = "eager"
    STATIC = "static"
    GRAPH = "graph"


class Drawn(NamedTuple):
    """What a step gave for one row: the latent (1, D), float32 on the device of the cache, and the token drawn.

    The token is None when the latent or the scores are not finite.
    """

    latent: Tensor
    token: int | None


class Launched(Protocol):
    """A step that has been launched and may still be running."""

    def collect(self) -> list[Drawn]:
        """Wait for the step and return what it gave for each of its rows, in the order they were asked for."""


class Steps(Protocol):
    """Decodes the rows of a cache. Used by one thread.

    Whatever raises RuntimeError has not moved any row on: the same may be asked for again, with fewer rows. An error of
    the GPU may also come out of a later call.
    """

    @property
    def late(self) -> bool:
        """Tell whether a step should be collected only when the next one has been launched."""

    def start(self, row: int, last: Tensor, *, positions: int, sampling: Sampling, seed: int) -> Launched:
        """Draw the first token of a new sequence in `row`, whose first `positions` positions are filled.

        `last` (1, D) is the GPT's last output for them. What was in the row before is forgotten.
        """

    def launch(self, rows: Sequence[int]) -> Launched:
        """Run the newest token of each of `rows` through the GPT and draw the next.

        No row may be given more than `token_limit` tokens, the first one included.
        """

    def save(self, row: int) -> Restore:
        """Return a function that puts what `row` holds now, after all launched steps, into the row it is given.

        To be called once. The row may be given to another sequence meanwhile.
        """


@dataclass(frozen=True)
class _Done:
    drawn: list[Drawn]

    def collect(self) -> list[Drawn]:
        return self.drawn


@dataclass
class _Row:
    """A sequence in its row: `positions` of the cache are filled, `drawn` tokens drawn, `token` is the newest."""

    sampler: Sampler
    positions: int
    drawn: int = 0
    token: int = 0

    def draw(self, latent: Tensor, scores: Tensor, *, finite: bool) -> Drawn:
        """Take the next token from `scores` (tokens,) on the CPU; `latent` (1, D) is passed on."""
        if not finite:
            return Drawn(latent, None)
        self.token = self.sampler.draw(scores)
        self.drawn += 1
        return Drawn(latent, self.token)


class EagerSteps:
    """Steps as `gpt` makes them, with a `Sampler` on the CPU for each sequence."""

    late = False

    def __init__(self, gpt: TorchGpt | NativeGpt, cache: Cache) -> None:
        self._gpt = gpt
        self._cache = cache
        self._rows: dict[int, _Row] = {}

    def start(self, row: int, last: Tensor, *, positions: int, sampling: Sampling, seed: int) -> Launched:
        gpt = self._gpt
        sampler = Sampler(
            sampling, seed=seed, tokens=gpt.audio_tokens, start_token=gpt.start_token, stop_token=gpt.stop_token
        )
        state = self._rows[row] = _Row(sampler, positions)
        return self._draw([state], last, new_positions=0)

    def launch(self, rows: Sequence[int]) -> Launched:
        states = [self._rows[row] for row in rows]
        x = self._gpt.audio_inputs([state.token for state in states], [state.drawn for state in states])
        # Writing a position again after a failure does no harm.
        last = self._gpt.step(x, self._cache, list(rows), [state.positions for state in states])
        return self._draw(states, last, new_positions=1)

    def save(self, row: int) -> Restore:
        state = self._rows[row]
        cached = self._cache.save(row, state.positions)

        def restore(row: int) -> None:
            self._cache.load(row, cached)
            self._rows[row] = state

        return restore

    def _draw(self, states: Sequence[_Row], last: Tensor, *, new_positions: int) -> _Done:
        """Draw the next token of each from the last outputs (n, D)."""
        latents, scores = self._gpt.latents_and_scores(last)
        finite = (latents.isfinite().all(1) & scores.isfinite().all(1)).tolist()
        drawn = []
        for state, latent, row, good in zip(states, latents[:, None], scores.cpu(), finite, strict=True):
            state.positions += new_positions
            drawn.append(state.draw(latent, row, finite=good))
        return _Done(drawn)
