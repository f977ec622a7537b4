"""Streams, events, and who must wait for whom.

Each stream counts what was launched on it. It knows up to which count another stream's work is waited for, by the
events that it waited for. Memory notes its last writer and its readers since, so that a stream that uses it too early
is found out at the launch, whatever the order in which the work really runs.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch

from support.simulated_cuda.state import STREAMS, Handle, current, device_index

if TYPE_CHECKING:
    from support.simulated_cuda.allocator import Chunk
    from support.simulated_cuda.graphs import CUDAGraph

MATRIX_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "linear", "matmul")
WORKSPACE = 8320 << 10  # bytes that torch gives cuBLAS
HOPPER_WORKSPACE = 32 << 20
LOCK = threading.RLock()  # of all queues and of the work itself

Work = Callable[[], object]


class Memory:
    """A piece of a device's memory, from its allocation by a stream until the last tensor in it is gone."""

    def __init__(self, stream: "Stream", size: int) -> None:
        cuda = current()
        stream.check_returned()
        self.pool: tuple[object, ...] = (stream.graph.pool_id if stream.graph else None, stream.key)
        self.private = stream.graph is not None  # to a graph
        self.chunk: Chunk = cuda.allocate(stream.device_index, size, self.pool)  # type: ignore[assignment]
        self.allocator, self.stream = cuda.gpus[stream.device_index].allocator, stream
        self.writer: tuple[Stream, int] | None = None
        self.readers: dict[Stream, int] = {}
        self.recorded: set[Stream] = set()

    def __del__(self) -> None:
        if "chunk" not in self.__dict__:
            return
        uses = [*self.readers.items(), *([self.writer] if self.writer else [])]
        foreign = [(stream, count) for stream, count in uses if stream not in (self.stream, *self.recorded)]
        if foreign and not self.private:
            self.stream.returned.append(foreign)
        self.allocator.give_back(self.chunk)


class Stream:
    """A queue of work. `torch.cuda.Stream()` hands out 32 of them in turn, so that many share one."""

    device_index: int
    priority: int
    number: int

    def __new__(cls, device: object = None, priority: int = 0, **_: object) -> "Stream":
        cuda, index = current(), device_index(device)
        cuda.check(index)
        number = 1 + cuda.streams_made[index, priority] % STREAMS
        cuda.streams_made[index, priority] += 1
        return stream_of(index, priority, number)

    @property
    def key(self) -> tuple[int, int]:
        return self.priority, self.number

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.device_index)

    @property
    def cuda_stream(self) -> int:
        return self.number

    @property
    def stream_id(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"stream {self.number} of priority {self.priority} on {self.device}"

    def wait_stream(self, other: "Stream") -> None:
        self.wait_event(other.record_event())

    def wait_event(self, event: "Event") -> None:
        event.wait(self)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        current().wait("Stream.synchronize", self.device_index)
        self.run()

    def query(self) -> bool:
        """Say whether all is done; ask twice, and it is."""
        return self.record_event(self.last_query).query()

    def push(self, name: str, work: Work, reads: Iterable[Memory] = (), writes: Iterable[Memory] = ()) -> None:
        """Launch `work`, or record it if this stream captures. Raises RuntimeError if it uses memory too early."""
        with LOCK:
            current().check(self.device_index, launches=True)
            reads, writes = list(reads), list(writes)
            if self.graph is not None:
                self.graph.record(name, work, reads, writes)
                return
            self._check_order(name, reads, writes)
            self.works.append(work)
            self.launched += 1
            for memory in reads:
                memory.readers[self] = self.launched
            for memory in writes:
                memory.writer, memory.readers = (self, self.launched), {}

    def launch(self, name: str, work: Work, reads: Iterable[Memory], writes: Iterable[Memory]) -> None:
        """Launch an operation."""
        if name.startswith(MATRIX_PRODUCTS):
            self._take_workspace()
        if self.graph is None:
            current().launched[name] += 1
        self.push(name, work, reads, writes)

    def run(self, until: int | None = None) -> None:
        """Run what was launched, as far as the count `until`."""
        with LOCK, torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.inference_mode():
            until = self.launched if until is None else until
            while self.done < until and self.works:
                self.done += 1
                self.works.popleft()()

    def has_waited_for(self, stream: "Stream", count: int) -> bool:
        return stream is self or count <= max(stream.done, self.known.get(stream, 0))

    def check_returned(self) -> None:
        """Raise RuntimeError if memory that this stream may now reuse is still in use by another."""
        while self.returned:
            for other, count in self.returned.popleft():
                if not self.has_waited_for(other, count):
                    raise RuntimeError(f"memory of {self} was freed while {other} used it: record_stream is missing")

    def _take_workspace(self) -> None:
        """Take memory for cuBLAS, which keeps it for each of its handles (a thread has one) and each stream."""
        cuda = current()
        handle = cuda.thread.cublas = cuda.thread.cublas or Handle(cuda.free_handles)
        if (handle.number, self) not in cuda.workspaces:
            hopper = cuda.gpus[self.device_index].capability >= (9, 0)
            cuda.workspaces[handle.number, self] = Memory(self, HOPPER_WORKSPACE if hopper else WORKSPACE)

    def _check_order(self, name: str, reads: list[Memory], writes: list[Memory]) -> None:
        for memory in (*reads, *writes):
            if memory.writer is not None and not self.has_waited_for(*memory.writer):
                raise RuntimeError(f"{name} on {self} uses what {memory.writer[0]} writes, and has not waited for it")
        for memory in writes:
            for other, count in memory.readers.items():
                if not self.has_waited_for(other, count):
                    raise RuntimeError(f"{name} on {self} overwrites what {other} reads, and has not waited for it")

    def _begin(self, index: int, priority: int, number: int) -> "Stream":
        self.device_index, self.priority, self.number = index, priority, number
        self.works: deque[Work] = deque()
        self.launched = self.done = 0
        self.known: dict[Stream, int] = {}
        self.graph: CUDAGraph | None = None  # that records what is launched here
        self.returned: deque[list[tuple[Stream, int]]] = deque()
        self.last_query = Event()
        return self


def stream_of(index: int, priority: int, number: int) -> Stream:
    """Return the one stream of a device with that priority and number; 0 is the default stream."""
    streams, key = current().streams, (index, priority, number)
    with LOCK:
        if key not in streams:
            streams[key] = object.__new__(Stream)._begin(index, priority, number)
        return streams[key]


class Event:
    """A place in a stream."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.timed = enable_timing
        self.stream: Stream | None = None
        self.count = 0
        self.known: dict[Stream, int] = {}
        self.captured: CUDAGraph | None = None
        self.asked = 0  # how often

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or current_stream()
        current().check(stream.device_index)
        if self.stream is not None and self.stream.device_index != stream.device_index:
            raise RuntimeError(f"Event of {self.stream.device} does not match its recording stream's {stream.device}")
        self.stream, self.count, self.known, self.asked = stream, stream.launched, dict(stream.known), 0
        self.captured = stream.graph

    def wait(self, stream: Stream | None = None) -> None:
        stream, recorded, count = stream or current_stream(), self.stream, self.count
        if self.captured is not stream.graph:
            raise torch.AcceleratorError("CUDA error: dependency created on uncaptured work in another stream")
        if recorded is None or recorded is stream:
            return
        stream.push("wait", lambda: recorded.run(count))
        for other, known in {**self.known, recorded: count}.items():
            stream.known[other] = max(stream.known.get(other, 0), known)

    def query(self) -> bool:
        """Say whether the work before it is done; ask twice, and it is, without a wait of the host."""
        if self.stream is None:
            return True
        current().check(self.stream.device_index)
        self.asked += 1
        if self.asked > 1:
            self.stream.run(self.count)
        return self.stream.done >= self.count

    def synchronize(self) -> None:
        if self.stream is None:
            return
        cuda = current()
        if cuda.synchronizing != "default":  # torch does not count it among the operations that it warns of
            cuda.check(self.stream.device_index)
        else:
            cuda.wait("Event.synchronize", self.stream.device_index)
        self.stream.run(self.count)

    def elapsed_time(self, end: "Event") -> float:
        """Return 0 ms: nothing here tells how long work takes."""
        if not (self.timed and end.timed and self.query() and end.query()):
            raise RuntimeError("elapsed_time needs two events with enable_timing that are done")
        return 0.0


def default_stream(device: object = None) -> Stream:
    return stream_of(device_index(device), 0, 0)


def current_stream(device: object = None) -> Stream:
    index = device_index(device)
    return current().thread.streams.get(index) or default_stream(index)


def set_stream(stream: Stream) -> None:
    current().thread.device = stream.device_index
    current().thread.streams[stream.device_index] = stream


def synchronize(device: object = None) -> None:
    index = device_index(device)
    current().wait("torch.cuda.synchronize", index)
    for stream in [each for each in current().streams.values() if each.device_index == index]:
        stream.run()


class StreamContext:
    """`with torch.cuda.stream(...)`."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            thread = current().thread
            self.before = thread.device, thread.streams.get(self.stream.device_index)
            set_stream(self.stream)

    def __exit__(self, *_: object) -> None:
        if self.stream is not None:
            thread = current().thread
            thread.device, stream = self.before
            thread.streams[self.stream.device_index] = stream or default_stream(self.stream.device_index)


def set_device(device: object) -> None:
    index = device_index(device)
    current().check(index)
    current().thread.device = index


class DeviceContext:
    """`with torch.cuda.device(...)`."""

    def __init__(self, device: object) -> None:
        self.index = device_index(device) if device is not None else -1

    def __enter__(self) -> None:
        self.before = current().thread.device
        if self.index >= 0:
            set_device(self.index)

    def __exit__(self, *_: object) -> None:
        current().thread.device = self.before
