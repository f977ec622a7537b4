"""Who may enter: a bounded number of turns at once, each with a deadline and a switch that ends it."""

import math
import threading
import time
import weakref
from types import TracebackType

from mirrorchat.engines import Cancel, Deadline
from mirrorchat.errors import MirrorChatError, ServerBusy, ShuttingDown

TYPICAL_TURN_S = 5.0  # what Retry-After is guessed from until turns have been seen
SMOOTHING = 0.2  # weight of the newest turn in the running mean of their length
RETRY_LIMIT_S = 60


class Place:
    """One admitted turn. It is held until the request and every helper that works for it have let go."""

    def __init__(self, scheduler: "Scheduler", deadline: Deadline) -> None:
        self.deadline = deadline
        self.cancel = Cancel()
        self._scheduler = scheduler
        self._entered = time.monotonic()
        self._holders = 1
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Add a holder, who must call `release` once."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Let go; the last holder frees the place."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._scheduler._leave(self, time.monotonic() - self._entered)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Scheduler:
    """Admits at most `max_turns` turns at a time. Thread-safe; owns no thread."""

    def __init__(self, max_turns: int) -> None:
        self.max_turns = max_turns
        self._places: set[Place] = set()
        self._turns: weakref.WeakSet[Place] = weakref.WeakSet()  # with those whose speech is still being sent
        self._turn_s = TYPICAL_TURN_S
        self._closed = False
        self._lock = threading.Lock()

    def enter(self, deadline: Deadline) -> Place:
        """Return a place for one turn. Raises ServerBusy with a `retry_after_s` when all are taken."""
        with self._lock:
            if self._closed:
                raise ShuttingDown("the server is shutting down", retry_after_s=RETRY_LIMIT_S // 10)
            if len(self._places) >= self.max_turns:
                raise ServerBusy(
                    f"the server is answering {self.max_turns} callers already; try again shortly",
                    retry_after_s=self._retry_after_s(),
                )
            place = Place(self, deadline)
            self._places.add(place)
            self._turns.add(place)
            return place

    @property
    def running(self) -> int:
        """Return how many places are taken."""
        with self._lock:
            return len(self._places)

    def end_all(self, reason: MirrorChatError) -> None:
        """Admit nobody any more and end every turn with `reason`, those too whose place is free again."""
        with self._lock:
            self._closed = True
            turns = list(self._turns)
        for place in turns:
            place.cancel.set(reason)

    def _retry_after_s(self) -> int:
        """Guess when the first of the running turns ends: they are spread evenly over a mean turn."""
        return min(RETRY_LIMIT_S, max(1, math.ceil(self._turn_s / self.max_turns)))

    def _leave(self, place: Place, held_s: float) -> None:
        with self._lock:
            self._places.discard(place)
            self._turn_s += SMOOTHING * (held_s - self._turn_s)
