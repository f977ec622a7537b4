"""The decode step with fixed shapes, from the newest token to the next one, captured as a CUDA graph.

At batch 1 a step is about 700 kernels of a few microseconds each, and launching them one by one takes longer than they
run. A captured step is launched at once, but its shapes and addresses are fixed: it is run over the first 1, 2, 4, ...
rows of the cache and over the first 128, 256, ... positions, whichever hold the sequences at hand. Rows that have no
part in a step write to the cache's last position, which belongs to no sequence.

Everything a step needs is on the device: where each row is, what was said in it, its settings and random numbers. So a
step can be launched before the one before has been read, and the device never waits for the host. The price is that a
sequence that has ended is noticed one step late; what that step gave for it is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.xtts.device_sampling import DeviceSampler
from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import Drawn, Launched, Restore

LENGTH_STEP = 128  # positions by which the lengths of captured steps differ
WARM_UPS = 2  # runs before a capture, in which libraries choose kernels and allocate workspace
NOT_FINITE = -1  # in the place of a token


class _Rows:
    """What the device knows of each row of `cache`; the tensors are (rows,), int64 except `active`."""

    def __init__(self, gpt: TorchGpt, cache: Cache) -> None:
        device = cache.data.device
        self.gpt, self.cache = gpt, cache
        self.idle = cache.positions - 1  # where rows write that have no part in a step
        self.tokens = torch.zeros(cache.rows, dtype=torch.int64, device=device)  # the newest one
        self.positions = torch.zeros(cache.rows, dtype=torch.int64, device=device)  # filled
        self.active = torch.zeros(cache.rows, dtype=torch.bool, device=device)  # has a part in the next step
        self.sampler = DeviceSampler(
            cache.rows,
            tokens=gpt.audio_tokens,
            draws=gpt.token_limit,
            start_token=gpt.start_token,
            stop_token=gpt.stop_token,
            device=device,
        )

    def draw(self, last: Tensor, rows: slice, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents (n, D) and next tokens (n,) of `rows` from the last outputs (n, D); keep what is `active`'s.

        The token is NOT_FINITE where the latent or the scores are not; what is kept is any token then.
        """
        latents, scores = self.gpt.latents_and_scores(last)
        tokens = self.sampler.draw(scores, rows, active)
        self.tokens[rows] = torch.where(active, tokens, self.tokens[rows])
        finite = latents.isfinite().all(1) & scores.isfinite().all(1)
        return latents, tokens.masked_fill(~finite, NOT_FINITE)


@dataclass(frozen=True)
class _Launched:
    """A launched step's results on their way to the host: `tokens` (n,) there, `latents` (n, D) on the device."""

    places: list[int]  # of the rows asked for, among those of the step
    latents: Tensor
    tokens: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, places: Sequence[int], size: int, rows: _Rows) -> "_Launched":
        """Return room for the results of `size` rows."""
        device = rows.cache.data.device
        on_gpu = device.type == "cuda"
        latents = torch.empty(size, rows.gpt.width, device=device)
        tokens = torch.empty(size, dtype=torch.int64, pin_memory=on_gpu)
        # Blocking: the thread sleeps while it waits, so that it takes no core.
        copied = torch.cuda.Event(blocking=True) if on_gpu else None  # type: ignore[no-untyped-call]
        return cls(list(places), latents, tokens, copied)

    def copy(self, latents: Tensor, tokens: Tensor) -> None:
        """Take the results from the device's buffers, which the next step writes to."""
        self.latents.copy_(latents)
        self.tokens.copy_(tokens, non_blocking=True)
        if self.copied is not None:
            self.copied.record()

    def collect(self) -> list[Drawn]:
        if self.copied is not None:
            self.copied.synchronize()
        tokens = self.tokens.tolist()
        return [
            Drawn(self.latents[place, None], None if tokens[place] == NOT_FINITE else tokens[place])
            for place in self.places
        ]


class StaticSteps:
    """Steps of `gpt` over `cache`, one for each size in use. Without `capture` they run as they are, on any device.

    The cache's last position is not for sequences.
    """

    late = True

    def __init__(self, gpt: TorchGpt, cache: Cache, *, capture: bool) -> None:
        self._rows = _Rows(gpt, cache)
        self._capture = capture
        self._steps: dict[tuple[int, int], _Step] = {}
        self._filled = [0] * cache.rows  # what the device has in `positions`, counted here as well
        self._active: set[int] = set()

    @torch.inference_mode()
    def start(self, row: int, last: Tensor, *, positions: int, sampling: Sampling, seed: int) -> Launched:
        rows = self._rows
        self._place(row, positions)
        rows.sampler.start(row, sampling, seed)
        rows.sampler.supply(row)
        launched = _Launched.of([0], 1, rows)
        launched.copy(*rows.draw(last, slice(row, row + 1), torch.ones(1, dtype=torch.bool, device=last.device)))
        return launched

    @torch.inference_mode()
    def launch(self, rows: Sequence[int]) -> Launched:
        """Do what `Steps.launch` says. Raises ValueError for no rows, for one twice, and for one that is full."""
        size, length = self._size(rows)
        step = self._step(size, length)
        self._activate(rows)
        for row in rows:
            self._rows.sampler.supply(row)
        launched = _Launched.of(rows, size, self._rows)
        step()
        launched.copy(step.latents, step.tokens)
        for row in rows:
            self._filled[row] += 1
        return launched

    @torch.inference_mode()
    def save(self, row: int) -> Restore:
        rows, positions = self._rows, self._filled[row]
        cached, token, restore_draws = rows.cache.save(row, positions), rows.tokens[row].clone(), rows.sampler.save(row)

        def restore(row: int) -> None:
            rows.cache.load(row, cached)
            self._place(row, positions)
            rows.tokens[row] = token
            restore_draws(row)

        return restore

    def _place(self, row: int, positions: int) -> None:
        """Say that `positions` of `row` are filled, and clear the others.

        A step multiplies by 0 what an earlier sequence has left there, which must not be NaN.
        """
        self._rows.cache.data[row, :, :, :, positions:].zero_()
        self._rows.positions[row] = positions
        self._filled[row] = positions

    def _size(self, rows: Sequence[int]) -> tuple[int, int]:
        """Return over how many rows and positions a step for `rows` runs."""
        if not rows or len(set(rows)) < len(rows):
            raise ValueError(f"no step can be made of rows {list(rows)}")
        positions = max(self._filled[row] for row in rows) + 1
        if positions > self._rows.idle:
            raise ValueError(f"a row of {list(rows)} is full")
        size = min(_power_of_2(max(rows) + 1), self._rows.cache.rows)
        return size, min(-(-positions // LENGTH_STEP) * LENGTH_STEP, self._rows.idle)

    def _step(self, size: int, length: int) -> "_Step":
        if (size, length) not in self._steps:
            self._activate([])  # it is run before it is captured, which must not move any row on
            self._steps[size, length] = _Step(self._rows, size, length, capture=self._capture)
        return self._steps[size, length]

    def _activate(self, rows: Sequence[int]) -> None:
        if self._active == set(rows):
            return
        active = self._rows.active
        flags = torch.zeros(active.shape, dtype=torch.bool, pin_memory=active.device.type == "cuda")
        flags[list(rows)] = True
        active.copy_(flags, non_blocking=True)
        self._active = set(rows)


class _Step:
    """The step over the first `size` rows and `length` positions, leaving `latents` (size, D) and `tokens` (size,)."""

    def __init__(self, rows: _Rows, size: int, length: int, *, capture: bool) -> None:
        device = rows.cache.data.device
        self._rows, self._size, self._length = rows, size, length
        self._row_numbers = torch.arange(size, device=device)
        self._places = torch.arange(length, device=device)
        self.latents = torch.zeros(size, rows.gpt.width, device=device)
        self.tokens = torch.zeros(size, dtype=torch.int64, device=device)
        self._graph = self._captured() if capture else None

    def __call__(self) -> None:
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Return the step as a graph. No row may be active."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads compute voices on the same device: what they allocate must not end the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._run()
        return graph

    def _run(self) -> None:
        """Run the step; rows move on at its very end."""
        rows = self._rows
        active = rows.active[: self._size]
        last = self._last_outputs(active)
        latents, tokens = rows.draw(last, slice(self._size), active)
        rows.positions[: self._size].add_(active)
        self.latents.copy_(latents)
        self.tokens.copy_(tokens)

    def _last_outputs(self, active: Tensor) -> Tensor:
        """Run the newest tokens through the GPT; return the last layer's output (size, D)."""
        rows, gpt, cache, size = self._rows, self._rows.gpt, self._rows.cache, self._size
        positions = rows.positions[:size].masked_fill(~active, rows.idle)
        x = gpt.mel_embedding[rows.tokens[:size]] + gpt.mel_positions[rows.sampler.drawn[:size] * active]
        seen = (self._places <= positions[:, None])[:, None, None]  # (size, 1, 1, length)
        for index, block in enumerate(gpt.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(size, 3, gpt.heads, -1).to(gpt.mode.dtype)
            cache.data[self._row_numbers, index, :, :, positions] = qkv[:, 1:]
            keys, values = cache.data[:size, index, :, :, : self._length].unbind(1)
            found = F.scaled_dot_product_attention(qkv[:, 0, :, None], keys, values, attn_mask=seen)
            x = block.finish(x, found.reshape(size, gpt.width).float())
        return x


def _power_of_2(count: int) -> int:
    """Return the smallest power of 2 that is not below `count`."""
    return 1 << (count - 1).bit_length()
