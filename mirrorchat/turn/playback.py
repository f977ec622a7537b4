"""How fast speech is made, and so how many callers can hear theirs without a gap.

Of each sentence it is known how many seconds of speech it gave (A), how long the synthesizer was at work for its caller
since the caller's last report (W; sentences of one answer overlap), and how many callers were being spoken to
meanwhile, on average (n). Per n the sums of A and W are kept, each report weighing less with every later one, and their
ratio A / W is the rate that *one* of n callers gets; 1.0 is as fast as it plays.

What n callers would get is then, in this order: the rate measured at n; a straight line between the measured numbers on
either side (W / A, the cost, grows about linearly in a batch); beyond them, what is left when the sum over all callers
stays as it is at the nearest, which no engine falls short of by much. A batched engine does better than that, which is
learned as callers come one by one, and never by trying: who is let in shall hear no gap. Measurements are forgotten
after ten minutes, so that one bad minute does not lock callers out for ever.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirrorchat.audio.samples import Audio
from mirrorchat.turn.stopwatch import BusyTime

NEEDED_RATE = 1.1  # what each caller must get: real time, and a tenth for the unevenness of chunks
KEPT = 0.8  # of the older reports' weight, with each new one
FORGET_S = 600.0


T = TypeVar("T")


@dataclass
class _Measured:
    """What was measured at one number of callers: seconds of speech, seconds it took, and when, last."""

    audio_s: float = 0.0
    wall_s: float = 0.0
    at: float = 0.0

    @property
    def cost(self) -> float:
        return self.wall_s / self.audio_s


class Playback:
    """Learns from `spoke` how fast speech is made, and says with `allows` how many may be spoken to. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._measured: dict[int, _Measured] = {}
        self._speaking = 0
        self._caller_seconds = 0.0  # the integral of `_speaking` over time
        self._changed_at = clock()
        self._lock = threading.Lock()

    def spoke(self, audio_s: float, wall_s: float, speaking: float) -> None:
        """Report a sentence of `audio_s` seconds made in `wall_s` while `speaking` callers (a mean) were spoken to."""
        if audio_s <= 0 or wall_s <= 0:
            return
        with self._lock:
            entry = self._measured.setdefault(max(1, round(speaking)), _Measured())
            entry.audio_s = KEPT * entry.audio_s + audio_s
            entry.wall_s = KEPT * entry.wall_s + wall_s
            entry.at = self._clock()

    def rate(self, callers: int) -> float | None:
        """Return the seconds of speech per second that each of `callers` would get; None while nothing is known."""
        with self._lock:
            costs = self._costs()
        if not costs:
            return None
        below = max((n for n in costs if n <= callers), default=None)
        above = min((n for n in costs if n >= callers), default=None)
        if below is None or above is None:
            nearest = below or above or 1
            return nearest / (costs[nearest] * callers)
        if below == above:
            return 1 / costs[below]
        share = (callers - below) / (above - below)
        return 1 / (costs[below] + share * (costs[above] - costs[below]))

    def allows(self, callers: int) -> bool:
        """Tell whether so many callers would each get NEEDED_RATE; one always may, and where nothing is known, all."""
        rate = self.rate(callers)
        return callers <= 1 or rate is None or rate >= NEEDED_RATE

    def limit(self, most: int) -> int:
        """Return how many callers up to `most` may be spoken to at once."""
        return next((n for n in range(1, most) if not self.allows(n + 1)), most)

    def forgets_in_s(self) -> float:
        """Return the seconds until the oldest measurement is forgotten, after which more callers may be allowed."""
        with self._lock:
            oldest = min((entry.at for entry in self._measured.values()), default=self._clock())
            return max(0.1, oldest + FORGET_S - self._clock())

    def count(self, change: int) -> tuple[float, float]:
        """Add to the number of callers that are spoken to; return the time and the caller-seconds so far."""
        with self._lock:
            now = self._clock()
            self._caller_seconds += self._speaking * (now - self._changed_at)
            self._changed_at = now
            self._speaking += change
            return now, self._caller_seconds

    def _costs(self) -> dict[int, float]:
        """Forget what is old; return the seconds that a second of speech takes by number of callers."""
        oldest = self._clock() - FORGET_S
        self._measured = {n: entry for n, entry in self._measured.items() if entry.at >= oldest}
        return {n: entry.cost for n, entry in self._measured.items()}


class Meter:
    """Measures what is spoken to one caller, for `playback`. Thread-safe: its sentences may overlap."""

    def __init__(self, playback: Playback, clock: Callable[[], float] = time.monotonic) -> None:
        self._playback = playback
        self._work = BusyTime(clock)
        self._lock = threading.Lock()
        self._sentences = 0  # under way; what follows is of the time since the last report
        self._work_before_s = 0.0
        self._counted_before = (0.0, 0.0)

    def measure(self, pieces: Iterable[Audio]) -> Iterator[Audio]:
        """Pass on the pieces of one sentence and report them when all have come; the listener's time is not counted."""
        iterator, audio_s, whole = iter(pieces), 0.0, False
        self._begin()
        try:
            while (piece := self._next(iterator)) is not None:
                audio_s += piece.duration_s
                yield piece
            whole = True
        finally:
            self._end(audio_s if whole else 0.0)

    def _next(self, iterator: Iterator[Audio]) -> Audio | None:
        with self._work.busy():
            return next(iterator, None)

    def _begin(self) -> None:
        with self._lock:
            self._sentences += 1
            if self._sentences == 1:
                self._counted_before = self._playback.count(1)
                self._work_before_s = self._work.seconds

    def _end(self, audio_s: float) -> None:
        """Report a sentence of `audio_s`; one that broke off, with 0, counts for nothing."""
        with self._lock:
            self._sentences -= 1
            now, seconds = self._playback.count(0 if self._sentences else -1)
            work_s = self._work.seconds
            if audio_s > 0:
                began, before = self._counted_before
                mean = (seconds - before) / (now - began) if now > began else 1.0
                self._playback.spoke(audio_s, work_s - self._work_before_s, mean)
                self._counted_before, self._work_before_s = (now, seconds), work_s


class Prebuffer(Generic[T]):
    """Holds back the first pieces of an answer until enough speech is buffered to play it without an underrun.

    They go to `hand_over` once they last `prebuffer_s()` seconds together, or the first has waited for so long;
    later ones at once. Not thread-safe.
    """

    def __init__(
        self,
        hand_over: Callable[[T], None],
        prebuffer_s: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hand_over = hand_over
        self._prebuffer_s = prebuffer_s
        self._clock = clock
        self._held: list[T] | None = []
        self._audio_s = 0.0
        self._since = math.inf

    def add(self, piece: T, audio_s: float) -> None:
        """Take a piece of `audio_s` seconds of speech."""
        if self._held is None:
            self._hand_over(piece)
            return
        self._since = min(self._since, self._clock())
        self._audio_s += audio_s
        self._held.append(piece)
        self.check()

    def due_in_s(self) -> float | None:
        """Return the seconds until what is held must be handed over; None where nothing is held."""
        return max(0.0, self._since + self._prebuffer_s() - self._clock()) if self._held else None

    def check(self) -> None:
        """Hand over what is held, if it is time."""
        if self._held and (self._audio_s >= self._prebuffer_s() or not self.due_in_s()):
            self.release()

    def release(self) -> None:
        """Hand over what is held, and hold nothing any more."""
        held, self._held = self._held or [], None
        for piece in held:
            self._hand_over(piece)


class PlayoutBuffer:
    """The speech that a listener who plays an answer as it comes has left to hear."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_at = -math.inf

    def add(self, audio_s: float) -> None:
        """Know that further speech has gone out."""
        self._ends_at = max(self._ends_at, self._clock()) + audio_s

    @property
    def left_s(self) -> float:
        """Return for how many seconds there is speech."""
        return max(0.0, self._ends_at - self._clock())


class ReorderBuffer(Generic[T]):
    """Puts the pieces of sentences that are spoken at once into the order of the sentences. Thread-safe.

    Pieces of the first sentence that has not ended go to `start` as they come, those of later ones when it is their
    turn.
    """

    def __init__(self, start: Prebuffer[T]) -> None:
        self._start = start
        self._current = 0
        self._held: dict[int, list[tuple[T, float]]] = defaultdict(list)
        self._ended: set[int] = set()
        self._lock = threading.Lock()

    def add(self, index: int, piece: T, audio_s: float) -> None:
        """Take a piece, of `audio_s` seconds of speech, of the sentence at `index`."""
        with self._lock:
            if index == self._current:
                self._start.add(piece, audio_s)
            else:
                self._held[index].append((piece, audio_s))

    def end(self, index: int) -> None:
        """Know that the sentence at `index` has no more pieces."""
        with self._lock:
            self._ended.add(index)
            while self._current in self._ended:
                self._current += 1
                for piece, audio_s in self._held.pop(self._current, ()):
                    self._start.add(piece, audio_s)

    def is_next(self, index: int) -> bool:
        """Tell whether pieces of the sentence at `index` go out as they come."""
        return index == self._current

    def due_in_s(self) -> float | None:
        """Return the seconds until `check` will hand over what the prebuffer holds; None where it holds nothing."""
        with self._lock:
            return self._start.due_in_s()

    def check(self) -> None:
        """Hand over what the prebuffer holds, if it is time."""
        with self._lock:
            self._start.check()

    def release(self) -> None:
        """Hand over what the prebuffer holds."""
        with self._lock:
            self._start.release()
