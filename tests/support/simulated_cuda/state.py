"""What a test sees and sets of the simulated devices, and what belongs to a thread: its device and its streams."""

import heapq
import os
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

import torch

import mirrorchat
from support.simulated_cuda.allocator import Allocator

if TYPE_CHECKING:
    from support.simulated_cuda.graphs import CUDAGraph
    from support.simulated_cuda.streams import Memory, Stream

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(mirrorchat.__file__)), "")
TORCH = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")
STREAMS = 32  # of each priority and device that torch hands out in turn
LOST = "CUDA error: an illegal memory access was encountered"


class ThreadState(threading.local):
    """The device, the streams and the capture of one thread."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, Stream] = {}
        self.capture: CUDAGraph | None = None
        self.cublas: Handle | None = None


class Handle:
    """A number that a thread has from its first use of cuBLAS to its end, and then another one."""

    def __init__(self, free: list[int]) -> None:
        self.number, self.free = heapq.heappop(free), free

    def __del__(self) -> None:
        heapq.heappush(self.free, self.number)


@dataclass
class Gpu:
    """One device."""

    capability: tuple[int, int] = (8, 9)
    name: str = "Simulated GPU"
    total_bytes: int = 8188 << 20
    outside_bytes: int = 300 << 20  # that the context and other programs take
    multi_processor_count: int = 24
    allocator: Allocator = field(default_factory=Allocator)
    fraction: float = 1.0  # of its memory that this process may take
    lost: bool = False
    operations_left: int | None = None  # until it is lost
    last_words: Exception | None = None  # what the operation raises that loses it

    @property
    def limit_bytes(self) -> int:
        return min(int(self.total_bytes * self.fraction), self.total_bytes - self.outside_bytes)

    @property
    def free_bytes(self) -> int:
        return max(0, self.total_bytes - self.outside_bytes - self.allocator.reserved)


class SimulatedCuda:
    """The devices of a test, what was counted on them, and what is to go wrong."""

    def __init__(self, gpus: list[Gpu]) -> None:
        self.gpus = gpus
        self.architectures = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # that torch has code for
        self.waits: Counter[tuple[str, str]] = Counter()  # of the host, by their kind and the line of the caller
        self.launched: Counter[str] = Counter()  # operations that were neither captured nor replayed
        self.graphs: list[CUDAGraph] = []
        self.synchronizing = "default"  # the mode of set_sync_debug_mode
        self.thread = ThreadState()
        self.streams: dict[tuple[int, int, int], Stream] = {}  # by device, priority and number
        self.streams_made: Counter[tuple[int, int]] = Counter()
        self.free_handles = list(range(1000))  # of cuBLAS
        self.workspaces: dict[tuple[int, Stream], Memory] = {}  # by handle and stream
        self.pinned: dict[int, torch.UntypedStorage] = {}  # by address; kept, as torch keeps them for later
        self.generator = torch.Generator().manual_seed(0)  # of random numbers that are made on a device
        self.failing: _FailingAllocation | None = None

    def fail_allocation(self, after: int = 0, *, times: int = 1, thread: str | None = None) -> None:
        """Let `times` allocations run out of memory when `after` more have succeeded, in all threads or in one."""
        self.failing = _FailingAllocation(after, times, thread)

    def lose(self, device: int = 0, *, after: int = 0, last_words: Exception | None = None) -> None:
        """Lose a device once `after` more operations were launched; from then on each call raises AcceleratorError.

        The operation that loses it raises `last_words`: libraries such as cuBLAS have errors of their own.
        """
        self.gpus[device].operations_left, self.gpus[device].last_words = after, last_words

    def regain(self) -> None:
        """Let the devices work again, as they would in a new process."""
        for gpu in self.gpus:
            gpu.lost, gpu.operations_left = False, None

    @contextmanager
    def counting(self) -> Iterator[Counter[tuple[str, str]]]:
        """Give the waits of the host within the block, filled at its end."""
        before, found = self.waits.copy(), Counter[tuple[str, str]]()
        yield found
        found.update(self.waits - before)

    def allocate(self, index: int, size: int, pool: tuple[object, ...]) -> object:
        """Return a piece of memory. Raises torch.OutOfMemoryError, also when it was told to."""
        if self.failing is not None and self.failing.fails():
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes (as the test asked).")
        gpu = self.gpus[index]
        return gpu.allocator.allocate(size, pool, gpu.limit_bytes)

    def check(self, index: int, *, launches: bool = False) -> None:
        """Raise what the device raises once it is lost; `launches` for an operation, which may lose it."""
        if not 0 <= index < len(self.gpus):
            raise torch.AcceleratorError("CUDA error: invalid device ordinal")
        gpu = self.gpus[index]
        if gpu.operations_left is not None:
            self._count_down(gpu, launches)
        if gpu.lost:
            raise torch.AcceleratorError(LOST)

    def _count_down(self, gpu: Gpu, launches: bool) -> None:
        if gpu.operations_left == 0 and gpu.last_words is None:
            gpu.lost = True
        elif launches and not gpu.operations_left and gpu.last_words is not None:
            last_words, gpu.last_words, gpu.lost = gpu.last_words, None, True
            raise last_words
        elif launches and gpu.operations_left:
            gpu.operations_left -= 1

    def wait(self, why: str, index: int) -> None:
        """Count that the host waits for a device. Raises AcceleratorError in a capture."""
        self.check(index)
        self.waits[why, caller()] += 1
        capturing = self.thread.capture or next((each for each in self.graphs if each.forbids_all_threads), None)
        if capturing is not None:
            capturing.broken = True
            raise torch.AcceleratorError(f"CUDA error: operation not permitted when stream is capturing ({why})")
        message = f"called a synchronizing CUDA operation ({why}, {caller()})"
        if self.synchronizing == "error":
            raise RuntimeError(message)
        if self.synchronizing == "warn":
            warnings.warn(message, stacklevel=2)


@dataclass
class _FailingAllocation:
    after: int
    times: int
    thread: str | None

    def fails(self) -> bool:
        if self.times == 0 or self.thread not in (None, threading.current_thread().name):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


_current = SimulatedCuda([Gpu()])


def current() -> SimulatedCuda:
    """Return the devices that were installed last."""
    return _current


def set_current(cuda: SimulatedCuda) -> None:
    global _current
    _current = cuda


def device_index(device: object = None) -> int:
    """Return the number of what torch accepts for a device; without a number the thread's own one."""
    if isinstance(device, int) and device >= 0:
        return device
    index = torch.device(device).index if isinstance(device, str) else getattr(device, "index", None)
    return current().thread.device if index is None else int(index)


def caller() -> str:
    """Return the innermost line of the package under test, or else of whoever calls torch."""
    frame: FrameType | None = sys._getframe(1)
    outside = ""
    while frame is not None:
        path, line = frame.f_code.co_filename, frame.f_lineno
        if path.startswith(PACKAGE):
            return f"{path.removeprefix(PACKAGE)}:{line} {frame.f_code.co_name}"
        if not outside and not path.startswith((HERE, TORCH)):
            outside = f"{os.path.basename(path)}:{line}"
        frame = frame.f_back
    return outside
