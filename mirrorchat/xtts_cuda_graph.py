"""The decode step with fixed shapes, captured as a CUDA graph: a GPU then waits for no kernel launches.

At batch 1 a step is about 700 kernels of a few microseconds each, and launching them one by one takes longer than they
run. A captured step is launched at once, but its shapes and addresses are fixed: it is run over the first 1, 2, 4, ...
rows of the cache and over the first 128, 256, ... positions, whichever hold the sequences at hand. Rows that have no
part in a step write to the cache's last position, which belongs to no sequence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.xtts_gpt import Cache, TorchGpt

LENGTH_STEP = 128  # positions by which the lengths of captured steps differ
WARM_UPS = 2  # runs before a capture, in which libraries choose kernels and allocate workspace


class StaticSteps:
    """Steps of `gpt` over `cache`, one for each size in use. Without `capture` they run as they are, on any device."""

    def __init__(self, gpt: TorchGpt, cache: Cache, *, capture: bool) -> None:
        self._gpt = gpt
        self._cache = cache
        self._capture = capture
        self._steps: dict[tuple[int, int], _Step] = {}

    @torch.inference_mode()
    def step(self, x: Tensor, rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Do what `TorchGpt.step` does: one input for each sequence, `x` (n, D), at `positions` of `rows`.

        Raises ValueError for shapes that do not belong together and positions outside the cache.
        """
        idle = self._cache.positions - 1
        if not len(x) == len(rows) == len(positions) > 0 or max(rows) >= self._cache.rows or max(positions) >= idle:
            raise ValueError(f"rows {list(rows)} at {list(positions)} do not fit {len(x)} inputs and the cache")
        size = min(_power_of_2(max(rows) + 1), self._cache.rows)
        length = min(-(-(max(positions) + 1) // LENGTH_STEP) * LENGTH_STEP, idle)
        if (size, length) not in self._steps:
            self._steps[size, length] = _Step(self._gpt, self._cache, size, length, capture=self._capture)
        return self._steps[size, length](x, list(rows), list(positions))


class _Step:
    """The step over the first `size` rows and `length` positions, with buffers of its own."""

    def __init__(self, gpt: TorchGpt, cache: Cache, size: int, length: int, *, capture: bool) -> None:
        device = cache.data.device
        self._gpt, self._cache, self._length = gpt, cache, length
        self._idle = cache.positions - 1
        self._x = torch.zeros(size, gpt.width, device=device)
        self._positions = torch.full((size,), self._idle, device=device)
        self._rows = torch.arange(size, device=device)
        self._places = torch.arange(length, device=device)
        self._out = torch.zeros(size, gpt.width, device=device)
        self._graph = self._captured() if capture else None

    def __call__(self, x: Tensor, rows: list[int], positions: list[int]) -> Tensor:
        places = [self._idle] * len(self._positions)
        for row, position in zip(rows, positions, strict=True):
            places[row] = position
        index = torch.tensor(rows, device=x.device)
        self._positions.copy_(torch.tensor(places))
        self._x.index_copy_(0, index, x)
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        return self._out[index]

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Return the step as a graph. While it warms up, every row is idle."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph

    def _run(self) -> None:
        gpt, x, size = self._gpt, self._x, len(self._x)
        seen = (self._places <= self._positions[:, None])[:, None, None]  # (size, 1, 1, length)
        for index, block in enumerate(gpt.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(size, 3, gpt.heads, -1).to(gpt.mode.dtype)
            self._cache.data[self._rows, index, :, :, self._positions] = qkv[:, 1:]
            keys, values = self._cache.data[:size, index, :, :, : self._length].unbind(1)
            found = F.scaled_dot_product_attention(qkv[:, 0, :, None], keys, values, attn_mask=seen)
            x = block.finish(x, found.reshape(size, gpt.width).float())
        self._out.copy_(x)


def _power_of_2(count: int) -> int:
    """Return the smallest power of 2 that is not below `count`."""
    return 1 << (count - 1).bit_length()
