"""The decode step with fixed shapes, from the newest token to the next one, captured as a CUDA graph.

At batch 1 a step has about 430 kernels of a few microseconds each, and launching them one by one takes longer than
running them. A captured step (torch.cuda.CUDAGraph) is launched as one, but its shapes and addresses are fixed. So a
step runs over the first 1, 2, 4, ... slots of the KV cache and over the first 128, 256, ... positions: the smallest
numbers that include all sequences of the step. Slots that do not take part write to the last position of the cache,
which belongs to no sequence. All steps are captured before the first sequence: a capture makes everybody wait.

The whole state of a step is on the device: the position of each slot, its tokens so far, its settings and its random
numbers. So a step can be launched before the last one has been read, and the device never waits for the host. The
engine therefore notices the end of a sequence one step late, and drops the result of that extra step.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.hardware.devices import SPEECH_PRIORITY, current_device
from mirrorchat.xtts.device_sampling import DeviceSampler
from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import Launched, Restore, Sampled

LENGTH_STEP = 128  # positions between the lengths of captured steps
WARM_UPS = 2  # runs before a capture, during which libraries choose kernels and allocate workspace
NOT_FINITE = -1  # stands for a token


class _SlotStates:
    """The state of all slots of `cache` on the device. The tensors are (slots,) int64, but `active` is bool."""

    def __init__(self, gpt: TorchGpt, cache: Cache) -> None:
        device = cache.data.device
        self.gpt, self.cache = gpt, cache
        self.idle = cache.positions - 1  # the position that slots outside a step write to
        self.idle_position = torch.tensor(self.idle, device=device)
        self.slot_numbers = torch.arange(cache.slots, device=device)
        self.places = torch.arange(self.idle, device=device)
        self.shown, self.hidden = (torch.tensor(x, dtype=gpt.mode.dtype, device=device) for x in (0.0, -math.inf))
        self.not_finite = torch.tensor(NOT_FINITE, device=device)
        self.tokens = torch.zeros(cache.slots, dtype=torch.int64, device=device)  # the newest token
        self.positions = torch.zeros(cache.slots, dtype=torch.int64, device=device)  # filled ones
        self.active = torch.zeros(cache.slots, dtype=torch.bool, device=device)  # takes part in the next step
        self.sampler = DeviceSampler(
            cache.slots,
            tokens=gpt.audio_tokens,
            max_tokens=gpt.token_limit,
            start_token=gpt.start_token,
            stop_token=gpt.stop_token,
            device=device,
        )

    def sample(self, last: Tensor, slots: slice, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (n, D) and next tokens (n,) of `slots` for the last outputs (n, D).

        The tokens of `active` slots are stored. A returned token is NOT_FINITE if the latent or the scores are not
        finite; the stored one is then any token. A latent that is not finite makes all scores so.
        """
        latents, scores = self.gpt.latents_and_scores(last)
        finite = scores.abs().amax(1) < math.inf
        tokens = self.sampler.sample(scores, slots, active)
        stored = self.tokens[slots]
        torch.where(active, tokens, stored, out=stored)
        return latents, torch.where(finite, tokens, self.not_finite)


@dataclass(frozen=True)
class _Launched:
    """The results of a launched step: `tokens` (n,), copied to the host, and `latents` (n, D) on the device."""

    places: list[int]  # the requested slots, as indices into the slots of the step
    latents: Tensor
    tokens: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, places: Sequence[int], size: int, states: _SlotStates) -> "_Launched":
        """Return empty results for `size` slots."""
        device = states.cache.data.device
        on_gpu = device.type == "cuda"
        latents = torch.empty(size, states.gpt.width, device=device)
        tokens = torch.empty(size, dtype=torch.int64, pin_memory=on_gpu)
        # Blocking: the thread sleeps while it waits and uses no core.
        copied = torch.cuda.Event(blocking=True) if on_gpu else None  # type: ignore[no-untyped-call]
        return cls(list(places), latents, tokens, copied)

    def copy(self, latents: Tensor, tokens: Tensor) -> None:
        """Copy the results out of the device's buffers, which the next step overwrites."""
        self.latents.copy_(latents)
        self.tokens.copy_(tokens, non_blocking=True)
        if self.copied is not None:
            self.copied.record(torch.cuda.current_stream(self.latents.device))

    def collect(self) -> list[Sampled]:
        if self.copied is not None:
            self.copied.synchronize()
        tokens = self.tokens.tolist()
        return [
            Sampled(self.latents[place, None], None if tokens[place] == NOT_FINITE else tokens[place])
            for place in self.places
        ]


class StaticSteps:
    """Steps with fixed shapes of `gpt` over `cache`: one for each number of slots and of positions.

    With `capture` all are captured at once, on one stream, with one pool of memory; otherwise they run as plain PyTorch
    code on any device. No sequence may use the cache's last position.
    """

    late = True

    def __init__(self, gpt: TorchGpt, cache: Cache, *, capture: bool) -> None:
        self._states = _SlotStates(gpt, cache)
        self._filled = [0] * cache.slots  # the same numbers as `positions` on the device
        self._active: set[int] = set()
        # The largest come first, so that the others fit into their memory.
        self._steps = {
            (size, length): _Step(self._states, size, length) for size in self._sizes() for length in self._lengths()
        }
        if capture:
            self._capture(cache.data.device)

    def _sizes(self) -> list[int]:
        slots = self._states.cache.slots
        return sorted({min(1 << power, slots) for power in range(slots.bit_length() + 1)}, reverse=True)

    def _lengths(self) -> list[int]:
        most = self._states.idle
        return [most, *reversed(range(LENGTH_STEP, most, LENGTH_STEP))]

    @torch.inference_mode()
    def _capture(self, device: torch.device) -> None:
        """Capture all steps; no slot is active yet. cuBLAS keeps a workspace for each stream it has ever seen."""
        with current_device(device):
            stream = torch.cuda.Stream(device, priority=SPEECH_PRIORITY)  # type: ignore[no-untyped-call]
            # Other threads compute on the same device, and their allocations must not end a capture.
            capturing = partial(
                torch.cuda.graph, pool=torch.cuda.graph_pool_handle(), stream=stream, capture_error_mode="thread_local"
            )
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for step in self._steps.values():
                    step.capture(capturing)
            torch.cuda.current_stream().wait_stream(stream)

    @torch.inference_mode()
    def start(self, slot: int, last: Tensor, *, positions: int, sampling: Sampling, seed: int) -> Launched:
        states = self._states
        self._place(slot, positions)
        states.sampler.start(slot, sampling, seed)
        states.sampler.supply(slot)
        launched = _Launched.of([0], 1, states)
        launched.copy(*states.sample(last, slice(slot, slot + 1), torch.ones(1, dtype=torch.bool, device=last.device)))
        return launched

    @torch.inference_mode()
    def launch(self, slots: Sequence[int]) -> Launched:
        """As `Steps.launch`. Raises ValueError for no slots, for a repeated slot, and for a full one."""
        size, length = self._size(slots)
        self._activate(slots)
        for slot in slots:
            self._states.sampler.supply(slot)
        launched = _Launched.of(slots, size, self._states)
        launched.copy(*self._steps[size, length]())
        for slot in slots:
            self._filled[slot] += 1
        return launched

    @torch.inference_mode()
    def save(self, slot: int) -> Restore:
        states, positions = self._states, self._filled[slot]
        cached, token = states.cache.save(slot, positions), states.tokens[slot].clone()
        restore_sampler = states.sampler.save(slot)

        def restore(slot: int) -> None:
            states.cache.load(slot, cached)
            self._place(slot, positions)
            states.tokens[slot] = token
            restore_sampler(slot)

        return restore

    @torch.inference_mode()
    def move(self, slot: int, to: int) -> None:
        """Copy the state of `slot` after all launched steps into the unused slot `to`, without new memory."""
        states, positions = self._states, self._filled[slot]
        states.cache.load(to, states.cache.data[slot, :, :, :, :positions])
        self._place(to, positions)
        states.tokens[to] = states.tokens[slot]
        states.sampler.move(slot, to)

    def _place(self, slot: int, positions: int) -> None:
        """Mark `positions` of `slot` as filled, and clear the others.

        A step multiplies the rest of an earlier sequence by 0, so it must not hold NaN.
        """
        self._states.cache.data[slot, :, :, :, positions:].zero_()
        self._states.positions[slot] = positions
        self._filled[slot] = positions

    def _size(self, slots: Sequence[int]) -> tuple[int, int]:
        """Return the numbers of slots and positions over which a step for `slots` runs."""
        if not slots or len(set(slots)) < len(slots):
            raise ValueError(f"no step can be made of slots {list(slots)}")
        positions = max(self._filled[slot] for slot in slots) + 1
        if positions > self._states.idle:
            raise ValueError(f"a slot of {list(slots)} is full")
        size = min(_power_of_2(max(slots) + 1), self._states.cache.slots)
        return size, min(-(-positions // LENGTH_STEP) * LENGTH_STEP, self._states.idle)

    def _activate(self, slots: Sequence[int]) -> None:
        if self._active == set(slots):
            return
        active = self._states.active
        flags = torch.zeros(active.shape, dtype=torch.bool, pin_memory=active.device.type == "cuda")
        flags[list(slots)] = True
        active.copy_(flags, non_blocking=True)
        self._active = set(slots)


class _Step:
    """The step over the first `size` slots and `length` positions."""

    def __init__(self, states: _SlotStates, size: int, length: int) -> None:
        self._states, self._size, self._length = states, size, length
        self._graph: torch.cuda.CUDAGraph | None = None
        self._results: tuple[Tensor, Tensor] | None = None  # of the graph

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Run the step. The next one overwrites the results of a captured step."""
        if self._graph is None or self._results is None:
            return self._run()
        self._graph.replay()
        return self._results

    def capture(self, capturing: Callable[[torch.cuda.CUDAGraph], AbstractContextManager[None]]) -> None:
        """Capture the step on the current stream in the context that `capturing` gives. No slot may be active."""
        for _ in range(WARM_UPS):
            self._run()
        graph = torch.cuda.CUDAGraph()
        with capturing(graph):
            self._results = self._run()
        graph.replay()  # the first replay uploads the graph
        self._graph = graph

    def _run(self) -> tuple[Tensor, Tensor]:
        """Run the step; the slots advance at its very end."""
        states = self._states
        active = states.active[: self._size]
        last = self._last_outputs(active)
        results = states.sample(last, slice(self._size), active)
        states.positions[: self._size].add_(active)
        return results

    def _last_outputs(self, active: Tensor) -> Tensor:
        """Run the newest tokens through the GPT; return the last layer's output (size, D)."""
        states, gpt, cache, size = self._states, self._states.gpt, self._states.cache, self._size
        positions = torch.where(active, states.positions[:size], states.idle_position)
        x = gpt.mel_embedding[states.tokens[:size]] + gpt.mel_positions[states.sampler.sampled[:size]]
        seen = states.places[: self._length] <= positions[:, None]
        # Made once, because attention would turn `seen` itself into such a mask in each layer.
        mask = torch.where(seen, states.shown, states.hidden)[:, None, None]  # (size, 1, 1, length)
        slots = states.slot_numbers[:size]
        for index, block in enumerate(gpt.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(size, 3, gpt.heads, -1)
            cache.data[slots, index, :, :, positions] = qkv[:, 1:]
            keys, values = cache.data[:size, index, :, :, : self._length].unbind(1)
            found = F.scaled_dot_product_attention(qkv[:, 0, :, None], keys, values, attn_mask=mask)
            x = block.finish(x, found.reshape(size, gpt.width))
        return x


def _power_of_2(count: int) -> int:
    """Return the smallest power of 2 that is not below `count`."""
    return 1 << (count - 1).bit_length()
