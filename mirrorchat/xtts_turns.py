"""Who has the XTTS model next: one caller at a time, the most urgent first."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mirrorchat.engines import Cancel, Deadline, Priority

POLL_S = 0.05  # how soon a waiting caller notices that its turn was cancelled


class Turnstile:
    """Lets callers through one at a time: by priority, then in order of arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[Priority, int]] = []
        self._tickets = itertools.count()
        self._taken = False

    @contextmanager
    def turn(self, priority: Priority, deadline: Deadline, cancel: Cancel) -> Iterator[None]:
        """Hold the model for the `with` block. Raises DeadlineExceeded or the reason of `cancel` while waiting."""
        self._wait(priority, deadline, cancel)
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _wait(self, priority: Priority, deadline: Deadline, cancel: Cancel) -> None:
        with self._changed:
            ticket = (priority, next(self._tickets))
            self._waiting.append(ticket)
            try:
                cancel.check()
                deadline.check()
                while self._taken or min(self._waiting) != ticket:
                    self._changed.wait(POLL_S)
                    cancel.check()
                    deadline.check()
                self._taken = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
