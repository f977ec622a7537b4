"""The order in which engines compute on one GPU."""

import threading
from collections import deque
from types import TracebackType


class DeviceLock:
    """A lock for engines that share a device: each lets it go after one step, and who came first has it first.

    threading.Lock would let an engine that steps without pause take it again before another has woken. Not reentrant.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: deque[threading.Event] = deque()  # the first holds the device

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._mutex:
            self._turns.append(turn)
            if len(self._turns) == 1:
                turn.set()
        turn.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            self._turns.popleft()
            if self._turns:
                self._turns[0].set()
