"""The context of a turn: its deadline, its cancellation, and the one way to wait for anything."""

import copy
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar, overload

from mirrorchat.errors import DeadlineExceeded, MirrorChatError, log_unexpected

T = TypeVar("T")


class Context:
    """The deadline and the cancellation of a piece of work. Thread-safe.

    A turn has one context, which it passes to all of its parts; a part that may end earlier gets a `child`. `cancel`
    ends the work: the shutdown, the watch on the caller's socket, and the end of the turn call it. A working thread
    calls `check` between steps, and it waits only with `wait`:

        context = Context.after(100.0)
        event = context.wait(events)  # a queue; raises as soon as the turn is cancelled or its time is up

    `deadline` is on the monotonic clock, in seconds. `heard` tells whether the caller has heard a part of the answer;
    until then the answer may start over.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.heard = False
        self._reason: MirrorChatError | None = None
        self._calls: dict[int, Callable[[MirrorChatError], object]] = {}
        self._lock = threading.RLock()  # a signal handler may cancel in the thread that holds it

    @classmethod
    def after(cls, seconds: float) -> "Context":
        """Return a context whose deadline is `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def child(self) -> "Context":
        """Return a context with the same deadline that ends with this one, or earlier by its own `cancel`."""
        child = Context(self.deadline)
        undo = self.on_cancel(child.cancel)
        child.on_cancel(lambda _: undo())
        return child

    def cancel(self, reason: MirrorChatError) -> None:
        """End the work with `reason`, which its threads raise. Only the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            try:
                call(reason)
            except Exception as error:  # the others must be woken all the same
                log_unexpected(error)

    def on_cancel(self, call: Callable[[MirrorChatError], object]) -> Callable[[], None]:
        """Call `call` with the reason at the cancellation, or at once if already cancelled.

        A passed deadline calls nothing. Returns a function that undoes this.
        """
        with self._lock:
            if self._reason is None:
                self._calls[id(call)] = call
                return lambda: self._forget(id(call))
        call(self._reason)
        return lambda: None

    @property
    def is_over(self) -> bool:
        """Return whether the context has ended."""
        return self._reason is not None or not self.remaining_s()

    def remaining_s(self) -> float:
        """Return the seconds until the deadline, never below 0; infinity without a deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise the reason of the cancellation, or DeadlineExceeded."""
        self._check_cancelled()
        self._check_deadline()

    @overload
    def wait(self, source: "queue.Queue[T]", *, timeout_s: float | None = None) -> T: ...
    @overload
    def wait(self, source: "Future[T]", *, timeout_s: float | None = None) -> T: ...
    @overload
    def wait(
        self, source: threading.Condition, until: Callable[[], bool], *, timeout_s: float | None = None
    ) -> None: ...

    def wait(self, source: Any, until: Callable[[], bool] | None = None, *, timeout_s: float | None = None) -> Any:
        """Wait for a queue's next item, a future's result, or a condition.

        Arguments:
            source: a queue, a future, or a condition.
            until: for a condition: returns True when the wait is over; it is called with the condition held.
            timeout_s: the wait ends after so many seconds; None waits until the context ends.

        Returns:
            The item or the result, even after the deadline if it is already there; None for a condition.

        Raises:
            TimeoutError: `timeout_s` seconds have passed.
            DeadlineExceeded, or the reason of the cancellation, at once: the context ended.
        """
        if isinstance(source, queue.Queue):
            while True:
                self._wait(source.not_empty, lambda: bool(source.queue), timeout_s)
                with suppress(queue.Empty):  # another thread was faster
                    return source.get_nowait()
        if isinstance(source, Future):
            changed = threading.Condition()
            source.add_done_callback(lambda _: _notify(changed))
            self._wait(changed, source.done, timeout_s)
            return source.result()
        assert until is not None, "a condition is waited for until something holds"
        self._wait(source, until, timeout_s)

    def _wait(self, changed: threading.Condition, until: Callable[[], bool], timeout_s: float | None) -> None:
        give_up_at = math.inf if timeout_s is None else time.monotonic() + timeout_s
        undo = self.on_cancel(lambda _: _notify(changed))
        try:
            with changed:
                self._check_cancelled()
                while not until():
                    self._check_deadline()
                    if time.monotonic() >= give_up_at:
                        raise TimeoutError
                    left_s = min(give_up_at, self.deadline) - time.monotonic()
                    changed.wait(min(max(0.0, left_s), threading.TIMEOUT_MAX))
                    self._check_cancelled()
        finally:
            undo()

    def _check_cancelled(self) -> None:
        # A copy: an exception keeps the frames in which it was raised, with their audio. A reason that outlives the
        # turn would collect the frames of all turns that it ended.
        if self._reason is not None:
            raise copy.copy(self._reason)

    def _check_deadline(self) -> None:
        if time.monotonic() >= self.deadline:
            raise DeadlineExceeded("the turn took longer than the server allows")

    def _forget(self, key: int) -> None:
        with self._lock:
            self._calls.pop(key, None)


def _notify(changed: threading.Condition) -> None:
    with changed:
        changed.notify_all()
