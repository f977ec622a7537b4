"""How long something was going on, however many threads did it at once."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BusyTime:
    """Adds up the seconds in which at least one thread is `busy`; overlaps count once. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._threads = 0
        self._seconds = 0.0  # up to `_since`
        self._since = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    @property
    def seconds(self) -> float:
        """Return the sum up to now."""
        with self._lock:
            self._add()
            return self._seconds

    def _change(self, by: int) -> None:
        with self._lock:
            self._add()
            self._threads += by

    def _add(self) -> None:
        now = self._clock()
        if self._threads:
            self._seconds += now - self._since
        self._since = now
