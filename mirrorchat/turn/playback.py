"""The speed of synthesis, and from it the number of callers that can hear their answers without an underrun.

Each sentence reports its seconds of speech (A), the seconds that the synthesizer worked for its caller since the
caller's last report (W; sentences of one answer overlap), and the mean number of callers that got speech meanwhile (n).
For each n, Playback keeps sums of A and W in which older reports weigh less. Their ratio A / W is the rate that *one*
of n callers gets; 1.0 is real time.

The rate for n callers is then, in this order: the rate measured at n; a linear interpolation of the cost W / A between
the measured numbers on both sides (in a batch the cost grows about linearly). Outside the measured range the total
speed is taken as constant and shared equally, which every engine nearly reaches. A batched engine does
better, which the measurements show as callers arrive. The limit is raised only from measurements, never by experiment,
so an admitted caller does not hear an underrun. Measurements are forgotten after ten minutes, so that one bad minute
does not reject callers forever.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Language
from mirrorchat.turn.stopwatch import BusyTime

NEEDED_RATE = 1.1  # for each caller: real time, and a tenth for the unevenness of chunks
KEPT = 0.8  # the factor of the older reports' weight at each new report
FORGET_S = 600.0


T = TypeVar("T")


@dataclass
class _Measured:
    """The measurements at one number of callers: seconds of speech, seconds of work, and the time of the last one."""

    audio_s: float = 0.0
    wall_s: float = 0.0
    at: float = 0.0

    @property
    def cost(self) -> float:
        return self.wall_s / self.audio_s


class Playback:
    """Measures the speed of synthesis with `spoke`, and predicts with `allows` how many callers it serves. Thread-safe.

    playback = Playback()
    playback.spoke(audio_s=3.0, wall_s=1.0, speaking=1.0)  # three times real time for one caller
    playback.allows(2), playback.allows(3)  # True, False
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._measured: dict[int, _Measured] = {}
        self._languages: dict[Language, _Measured] = {}  # whatever the number of callers
        self._speaking = 0
        self._caller_seconds = 0.0  # the integral of `_speaking` over time
        self._changed_at = clock()
        self._lock = threading.Lock()

    def spoke(self, audio_s: float, wall_s: float, speaking: float, language: Language | None = None) -> None:
        """Report a sentence of `audio_s` seconds, which took `wall_s` while `speaking` callers (a mean) got speech."""
        if audio_s <= 0 or wall_s <= 0:
            return
        with self._lock:
            entries = [self._measured.setdefault(max(1, round(speaking)), _Measured())]
            entries += [self._languages.setdefault(language, _Measured())] if language else []
            for entry in entries:
                entry.audio_s = KEPT * entry.audio_s + audio_s
                entry.wall_s = KEPT * entry.wall_s + wall_s
                entry.at = self._clock()

    def speed(self, language: Language) -> float | None:
        """Return the seconds of speech per second that a caller got lately in `language`; None without a measurement.

        One engine may speak one language much faster than the other.
        """
        with self._lock:
            entry = self._languages.get(language)
            return 1 / entry.cost if entry and entry.at >= self._clock() - FORGET_S else None

    def rate(self, callers: int) -> float | None:
        """Return the seconds of speech per second that each of `callers` would get; None without a measurement."""
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
        """Return whether each of `callers` would get NEEDED_RATE. True for one caller, and without a measurement."""
        rate = self.rate(callers)
        return callers <= 1 or rate is None or rate >= NEEDED_RATE

    def limit(self, most: int) -> int:
        """Return how many callers, at most `most`, are allowed at once."""
        return next((n for n in range(1, most) if not self.allows(n + 1)), most)

    def forgets_in_s(self) -> float:
        """Return the seconds until the oldest measurement is forgotten; then more callers may be allowed."""
        with self._lock:
            self._costs()  # forgets what is old
            oldest = min((entry.at for entry in self._measured.values()), default=self._clock())
            return max(0.1, oldest + FORGET_S - self._clock())

    def count(self, change: int) -> tuple[float, float]:
        """Change the number of callers that get speech; return the time and the caller-seconds so far."""
        with self._lock:
            now = self._clock()
            self._caller_seconds += self._speaking * (now - self._changed_at)
            self._changed_at = now
            self._speaking += change
            return now, self._caller_seconds

    def _costs(self) -> dict[int, float]:
        """Forget old measurements; return the seconds of work per second of speech, by number of callers."""
        oldest = self._clock() - FORGET_S
        self._measured = {n: entry for n, entry in self._measured.items() if entry.at >= oldest}
        return {n: entry.cost for n, entry in self._measured.items()}


class Meter:
    """Measures the speech of one caller, and reports it to `playback`. Thread-safe: sentences may overlap."""

    def __init__(self, playback: Playback, clock: Callable[[], float] = time.monotonic) -> None:
        self._playback = playback
        self._work = BusyTime(clock)
        self._lock = threading.Lock()
        self._sentences = 0  # in progress; the attributes below are those at the last report
        self._work_before_s = 0.0
        self._counted_before = (0.0, 0.0)

    def measure(self, pieces: Iterable[Audio], language: Language | None = None) -> Iterator[Audio]:
        """Yield the pieces of one sentence, and report them at its end. The consumer's time does not count."""
        iterator, audio_s, whole = iter(pieces), 0.0, False
        self._begin()
        try:
            while (piece := self._next(iterator)) is not None:
                audio_s += piece.duration_s
                yield piece
            whole = True
        finally:
            self._end(audio_s if whole else 0.0, language)

    def _next(self, iterator: Iterator[Audio]) -> Audio | None:
        with self._work.busy():
            return next(iterator, None)

    def _begin(self) -> None:
        with self._lock:
            self._sentences += 1
            if self._sentences == 1:
                self._counted_before = self._playback.count(1)
                self._work_before_s = self._work.seconds

    def _end(self, audio_s: float, language: Language | None) -> None:
        """End a sentence of `audio_s` seconds and report it, unless it broke off (0)."""
        with self._lock:
            self._sentences -= 1
            now, seconds = self._playback.count(0 if self._sentences else -1)
            work_s = self._work.seconds
            if audio_s > 0:
                began, before = self._counted_before
                mean = (seconds - before) / (now - began) if now > began else 1.0
                self._playback.spoke(audio_s, work_s - self._work_before_s, mean, language)
                self._counted_before, self._work_before_s = (now, seconds), work_s


class Prebuffer(Generic[T]):
    """Holds back the first pieces of an answer until enough speech is buffered to play it without an underrun.

    It passes them to `hand_over` when they last `prebuffer_s()` seconds together, or the first one has waited for so
    long; it passes later pieces on at once. With `adds_up` the speech and the wait count together: the next piece of an
    engine that speaks in clauses comes after a known time, during which the listener waits or hears the first ones.
    Not thread-safe. Example:

        prebuffer = Prebuffer(send, lambda: 1.5)
        prebuffer.add(first, 1.0)  # is held
        prebuffer.add(second, 1.0)  # now send(first) and send(second) are called
    """

    def __init__(
        self,
        hand_over: Callable[[T], None],
        prebuffer_s: Callable[[], float],
        *,
        adds_up: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hand_over = hand_over
        self._prebuffer_s = prebuffer_s
        self._adds_up = adds_up
        self._clock = clock
        self._held: list[T] | None = []
        self._audio_s = 0.0
        self._since = math.inf

    def add(self, piece: T, audio_s: float) -> None:
        """Add a piece of `audio_s` seconds of speech."""
        if self._held is None:
            self._hand_over(piece)
            return
        self._since = min(self._since, self._clock())
        self._audio_s += audio_s
        self._held.append(piece)
        self.check()

    def due_in_s(self) -> float | None:
        """Return the seconds until the held pieces are due; None if it holds none."""
        if not self._held:
            return None
        spoken_s, needed_s = self._audio_s, self._prebuffer_s()
        wait_s = needed_s - spoken_s if self._adds_up else needed_s * (spoken_s < needed_s)
        return max(0.0, self._since + wait_s - self._clock())

    @property
    def held_s(self) -> float:
        """Return the seconds of speech that it holds."""
        return self._audio_s if self._held else 0.0

    def check(self) -> None:
        """Pass on the held pieces if they are due."""
        if self._held and not self.due_in_s():
            self.release()

    def release(self) -> None:
        """Pass on the held pieces, and later ones at once."""
        held, self._held = self._held or [], None
        for piece in held:
            self._hand_over(piece)


class PlayoutBuffer:
    """The playout buffer of a listener who plays an answer as it arrives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_at = -math.inf

    def add(self, audio_s: float) -> None:
        """Add speech that has been sent."""
        self._ends_at = max(self._ends_at, self._clock()) + audio_s

    @property
    def left_s(self) -> float:
        """Return the seconds of speech that are left to play."""
        return max(0.0, self._ends_at - self._clock())


class ReorderBuffer(Generic[T]):
    """Puts the pieces of concurrent sentences into the order of the sentences. Thread-safe.

    It passes pieces of the first unfinished sentence to the prebuffer at once, and those of later sentences when the
    earlier ones have ended. Example:

        buffer = ReorderBuffer(Prebuffer(send, lambda: 0.0))
        buffer.add(1, second, 1.0)  # is held
        buffer.add(0, first, 1.0)  # send(first)
        buffer.end(0)  # send(second)
    """

    def __init__(self, start: Prebuffer[T]) -> None:
        self._start = start
        self._current = 0
        self._held: dict[int, list[tuple[T, float]]] = defaultdict(list)
        self._ended: set[int] = set()
        self._lock = threading.Lock()

    def add(self, index: int, piece: T, audio_s: float) -> None:
        """Add a piece of `audio_s` seconds of speech of the sentence at `index`."""
        with self._lock:
            if index == self._current:
                self._start.add(piece, audio_s)
            else:
                self._held[index].append((piece, audio_s))

    def end(self, index: int) -> None:
        """End the sentence at `index`, which has no more pieces."""
        with self._lock:
            self._ended.add(index)
            while self._current in self._ended:
                self._current += 1
                for piece, audio_s in self._held.pop(self._current, ()):
                    self._start.add(piece, audio_s)

    def is_next(self, index: int) -> bool:
        """Return whether pieces of the sentence at `index` are passed on at once."""
        return index == self._current

    def due_in_s(self) -> float | None:
        """Return the seconds until the prebuffer's pieces are due; None if it holds none."""
        with self._lock:
            return self._start.due_in_s()

    @property
    def held_s(self) -> float:
        """Return the seconds of speech that the prebuffer holds."""
        with self._lock:
            return self._start.held_s

    def check(self) -> None:
        """Pass on the prebuffer's pieces if they are due."""
        with self._lock:
            self._start.check()

    def release(self) -> None:
        """Pass on the prebuffer's pieces."""
        with self._lock:
            self._start.release()
