"""Memory of one device as torch's caching allocator hands it out: rounded, in segments that are split and kept.

Segments belong to a pool (the usual one, or that of a graph) and to a stream, so that memory that was freed by one
stream is not used by another. Only a segment that is wholly free goes back to the device.
"""

import itertools
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import torch

ROUND = 512
SMALL = 1 << 20  # the largest request that goes to segments for small ones
SMALL_SEGMENT = 2 << 20
LARGE_SEGMENT = 20 << 20
OWN_SEGMENT = 10 << 20  # the smallest request that gets a segment of its own size
OWN_ROUND = 2 << 20

_numbers = itertools.count()


@dataclass(eq=False)
class Chunk:
    """A part of a segment, between its neighbours."""

    size: int
    pool: Hashable
    before: "Chunk | None" = None
    after: "Chunk | None" = None
    free: bool = False
    requested: int = 0

    def __post_init__(self) -> None:
        self.key = (self.size, next(_numbers))

    @property
    def is_segment(self) -> bool:
        return self.before is None and self.after is None


class Allocator:
    """The memory of one device."""

    def __init__(self) -> None:
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = 0
        self._free: dict[Hashable, list[tuple[tuple[int, int], Chunk]]] = {}
        self._returned: deque[Chunk] = deque()
        self._lock = threading.RLock()  # threads allocate at the same time

    def allocate(self, size: int, pool: Hashable, limit: int) -> Chunk:
        """Return memory of `pool`. Raises torch.OutOfMemoryError where more than `limit` would be reserved."""
        with self._lock:
            self.settle()
            return self._allocate(size, pool, limit)

    def _allocate(self, size: int, pool: Hashable, limit: int) -> Chunk:
        size = max(ROUND, -(-size // ROUND) * ROUND)
        small = size <= SMALL
        chunk = self._best((pool, small), size) or self._segment((pool, small), size, limit)
        left = chunk.size - size
        if left >= ROUND if small else left > SMALL:
            self._split(chunk, size)
        chunk.free = False
        self.allocated += chunk.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return chunk

    def give_back(self, chunk: Chunk) -> None:
        """Free memory later: this may be called by the garbage collector in the midst of an allocation."""
        self._returned.append(chunk)

    def settle(self) -> None:
        """Free what was given back."""
        with self._lock:
            while self._returned:
                self._release(self._returned.popleft())

    def empty_cache(self) -> None:
        """Return the segments that are wholly free."""
        with self._lock:
            self.settle()
            for pool, chunks in self._free.items():
                self.reserved -= sum(chunk.size for _, chunk in chunks if chunk.is_segment)
                self._free[pool] = [each for each in chunks if not each[1].is_segment]

    def reset_peaks(self) -> None:
        self.settle()
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def _best(self, pool: Hashable, size: int) -> Chunk | None:
        free = self._free.setdefault(pool, [])
        place = bisect_left(free, size, key=lambda each: each[0][0])
        # As in torch, a small rest of a large piece may not be wasted, so any that is large enough will do.
        return free.pop(place)[1] if place < len(free) else None

    def _segment(self, pool: tuple[Hashable, bool], size: int, limit: int) -> Chunk:
        asked = SMALL_SEGMENT if pool[1] else LARGE_SEGMENT if size < OWN_SEGMENT else -(-size // OWN_ROUND) * OWN_ROUND
        if self.reserved + asked > limit:
            self.empty_cache()
        if self.reserved + asked > limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size} bytes; {self.allocated} are allocated, "
                f"{self.reserved} reserved, of {limit}."
            )
        self.reserved += asked
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return Chunk(asked, pool)

    def _split(self, chunk: Chunk, size: int) -> None:
        rest = Chunk(chunk.size - size, chunk.pool, before=chunk, after=chunk.after)
        if chunk.after is not None:
            chunk.after.before = rest
        chunk.after = rest
        chunk.size = size
        self._keep(rest)

    def _release(self, chunk: Chunk) -> None:
        self.allocated -= chunk.size
        for other in (chunk.before, chunk.after):
            if other is not None and other.free:
                self._free[chunk.pool].remove((other.key, other))
                self._merge(chunk, other)
        self._keep(chunk)

    def _merge(self, chunk: Chunk, other: Chunk) -> None:
        chunk.size += other.size
        if other is chunk.before:
            chunk.before = other.before
            if other.before is not None:
                other.before.after = chunk
        else:
            chunk.after = other.after
            if other.after is not None:
                other.after.before = chunk

    def _keep(self, chunk: Chunk) -> None:
        chunk.free = True
        chunk.key = (chunk.size, chunk.key[1])
        insort(self._free.setdefault(chunk.pool, []), (chunk.key, chunk), key=lambda each: each[0])
