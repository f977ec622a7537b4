"""CUDA graphs: captures that record, and replays that run what was recorded."""

import itertools
import warnings
import weakref
from dataclasses import dataclass

import torch

from support.simulated_cuda.state import current
from support.simulated_cuda.streams import Memory, Work, current_stream

PoolId = tuple[int, int]
_pool_numbers = itertools.count(1)


def graph_pool_handle() -> PoolId:
    return 0, next(_pool_numbers)


@dataclass(frozen=True)
class Node:
    """A recorded operation, and the memory outside the graph's own that it uses."""

    name: str
    work: Work
    reads: list[weakref.ref[Memory]]
    writes: list[weakref.ref[Memory]]


class CUDAGraph:
    """As torch.cuda.CUDAGraph."""

    def __init__(self, keep_graph: bool = False) -> None:
        self.nodes: list[Node] = []
        self.pool_id: PoolId = graph_pool_handle()
        self.mode = "global"
        self.broken = False  # by a wait in the midst of the capture
        self.replays = 0
        self.capturing = False

    @property
    def kernels(self) -> list[str]:
        """The names of the recorded operations."""
        return [node.name for node in self.nodes]

    @property
    def forbids_all_threads(self) -> bool:
        return self.capturing and self.mode == "global"

    def pool(self) -> PoolId:
        return self.pool_id

    def capture_begin(
        self, pool: PoolId | None = None, capture_error_mode: str = "global", check_input_liveness: bool = False
    ) -> None:
        cuda, stream = current(), current_stream()
        cuda.check(stream.device_index)
        if stream.number == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        self.pool_id, self.mode, self.stream = pool or self.pool_id, capture_error_mode, stream
        self.capturing = True
        cuda.graphs.append(self)
        cuda.thread.capture = stream.graph = self

    def capture_end(self) -> None:
        self.stream.graph = current().thread.capture = None
        self.capturing = False
        current().check(self.stream.device_index)
        if self.broken:
            self.nodes = []
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")
        if not self.nodes:
            warnings.warn("The CUDA Graph is empty: it was captured on the wrong device or stream.", stacklevel=3)

    def record(self, name: str, work: Work, reads: list[Memory], writes: list[Memory]) -> None:
        outside = [[weakref.ref(each) for each in memories if not each.private] for memories in (reads, writes)]
        self.nodes.append(Node(name, work, *outside))

    def replay(self) -> None:
        if current().thread.capture is not None:
            raise torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing (a replay)")
        self.replays += 1
        stream = current_stream(self.stream.device_index)
        for node in self.nodes:
            stream.push(node.name, node.work, _alive(node, node.reads), _alive(node, node.writes))

    def reset(self) -> None:
        self.nodes = []


def _alive(node: Node, memories: list[weakref.ref[Memory]]) -> list[Memory]:
    found = [each() for each in memories]
    alive = [each for each in found if each is not None]
    if len(alive) < len(found):
        raise RuntimeError(f"a graph uses memory that was freed since its capture ({node.name})")
    return alive
