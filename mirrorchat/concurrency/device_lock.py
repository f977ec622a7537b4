"""The lock that orders the steps of engines on one GPU."""

import threading
from collections import deque


class DeviceLock:
    """A fair lock for engines that share a device: it is acquired in the order of the requests.

    Each engine holds it for one step. With a `threading.Lock`, an engine that steps without pause would acquire it
    again before another engine wakes. Not reentrant.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._turns: deque[threading.Event] = deque()  # the first one holds the lock

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._mutex:
            self._turns.append(turn)
            if len(self._turns) == 1:
                turn.set()
        turn.wait()

    def __exit__(self, *_exception: object) -> None:
        with self._mutex:
            self._turns.popleft()
            if self._turns:
                self._turns[0].set()
