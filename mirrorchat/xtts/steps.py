"""The decode steps of the engine: the interface of all kinds, and the eager kind.

The engine knows which sequence has which KV-cache slot; the steps keep the state of each slot: its position and its
sampled tokens. `EagerSteps` samples on the CPU and has finished a step when it returns. `StaticSteps`
(xtts/cuda_graph.py) keeps everything on the device, so the engine can launch a step before it has read the last one.
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
    """The kinds of steps: eager ones, ones with fixed shapes, and ones captured as CUDA graphs (GPU only)."""

    EAGER = "eager"
    STATIC = "static"
    GRAPH = "graph"


class Sampled(NamedTuple):
    """The result of a step for one slot: the latent (1, D), float32 on the device of the cache, and the sampled token.

    The token is None if the latent or the scores are not finite.
    """

    latent: Tensor
    token: int | None


class Launched(Protocol):
    """A step that was launched and may still be running."""

    def collect(self) -> list[Sampled]:
        """Wait for the step and return the result for each of its slots, in the order of the request."""


class Steps(Protocol):
    """Decodes the sequences in the slots of a KV cache. Only one thread uses it.

    A call that raises RuntimeError has not advanced any slot, so it may be repeated with fewer slots. An error of the
    GPU may also appear in a later call.
    """

    @property
    def late(self) -> bool:
        """Return whether a step should be collected only after the next one has been launched."""

    def start(self, slot: int, last: Tensor, *, positions: int, sampling: Sampling, seed: int) -> Launched:
        """Sample the first token of a new sequence in `slot`, which replaces the sequence before.

        The first `positions` positions of the slot are filled; `last` (1, D) is the last output of the GPT for them.
        """

    def launch(self, slots: Sequence[int]) -> Launched:
        """Run the newest token of each of `slots` through the GPT and sample the next one.

        A slot may get at most `token_limit` tokens, including the first one.
        """

    def save(self, slot: int) -> Restore:
        """Return a function, to be called once, that copies the present state of `slot` into another slot.

        The state is that after all launched steps. Another sequence may use `slot` in the meantime. Raises RuntimeError
        or MemoryError, and has changed nothing, if there is no memory for a copy.
        """


@dataclass(frozen=True)
class _Done:
    sampled: list[Sampled]

    def collect(self) -> list[Sampled]:
        return self.sampled


@dataclass
class _SlotState:
    """The state of a slot: `positions` are filled, `sampled` counts the tokens, and `token` is the newest one."""

    sampler: Sampler
    positions: int
    sampled: int = 0
    token: int = 0

    def sample(self, latent: Tensor, scores: Tensor, *, finite: bool) -> Sampled:
        """Sample the next token from `scores` (tokens,) on the CPU; `latent` (1, D) becomes part of the result."""
        if not finite:
            return Sampled(latent, None)
        self.token = self.sampler.sample(scores)
        self.sampled += 1
        return Sampled(latent, self.token)


class EagerSteps:
    """Steps that `gpt` computes at once, with a `Sampler` on the CPU for each sequence."""

    late = False

    def __init__(self, gpt: TorchGpt | NativeGpt, cache: Cache) -> None:
        self._gpt = gpt
        self._cache = cache
        self._slots: dict[int, _SlotState] = {}

    def start(self, slot: int, last: Tensor, *, positions: int, sampling: Sampling, seed: int) -> Launched:
        gpt = self._gpt
        sampler = Sampler(
            sampling, seed=seed, tokens=gpt.audio_tokens, start_token=gpt.start_token, stop_token=gpt.stop_token
        )
        state = self._slots[slot] = _SlotState(sampler, positions)
        return self._sample([state], last, new_positions=0)

    def launch(self, slots: Sequence[int]) -> Launched:
        states = [self._slots[slot] for slot in slots]
        x = self._gpt.audio_inputs([state.token for state in states], [state.sampled for state in states])
        # A repeated step writes the same positions again, which does no harm.
        last = self._gpt.step(x, self._cache, list(slots), [state.positions for state in states])
        return self._sample(states, last, new_positions=1)

    def save(self, slot: int) -> Restore:
        state = self._slots[slot]
        cached = self._cache.save(slot, state.positions)

        def restore(slot: int) -> None:
            self._cache.load(slot, cached)
            self._slots[slot] = state

        return restore

    def _sample(self, states: Sequence[_SlotState], last: Tensor, *, new_positions: int) -> _Done:
        """Sample the next token of each slot from the last outputs (n, D)."""
        latents, scores = self._gpt.latents_and_scores(last)
        finite = (latents.isfinite().all(1) & scores.isfinite().all(1)).tolist()
        sampled = []
        for state, latent, own_scores, good in zip(states, latents[:, None], scores.cpu(), finite, strict=True):
            state.positions += new_positions
            sampled.append(state.sample(latent, own_scores, finite=good))
        return _Done(sampled)
