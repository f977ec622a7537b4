"""How fast speech is made, and so how many callers can hear theirs without a gap.

Of each sentence it is known how many seconds of speech it gave (A), how long the synthesiser took (W), and how many
callers were being spoken to meanwhile, on average (n). Per n the sums of A and W are kept, each report weighing less
with every later one, and their ratio A / W is the rate that *one* of n callers gets; 1.0 is as fast as it plays.

What n callers would get is then, in this order: the rate measured at n; a straight line between the measured numbers on
either side (W / A, the cost, grows about linearly in a batch); beyond them, what is left when the sum over all callers
stays as it is at the nearest, which no engine falls short of by much. A batched engine does better than that, which
can only be learned by trying: where the most callers that were measured have enough, one more may enter. Measurements
are forgotten after ten minutes, so that one bad minute does not lock callers out for ever.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirrorchat.audio import Audio

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
        if callers <= 1 or rate is None or rate >= NEEDED_RATE:
            return True
        with self._lock:
            costs = self._costs()
        most = max(costs, default=callers)
        return callers == most + 1 and 1 / costs[most] >= NEEDED_RATE

    def limit(self, most: int) -> int:
        """Return how many callers up to `most` may be spoken to at once."""
        return next((n for n in range(1, most) if not self.allows(n + 1)), most)

    def measure(self, pieces: Iterable[Audio]) -> Iterator[Audio]:
        """Pass on the pieces of one sentence and report them when all have come; the listener's time is not counted."""
        audio_s = wall_s = 0.0
        iterator = iter(pieces)
        with self._counted() as speaking:
            while True:
                asked = self._clock()
                piece = next(iterator, None)
                wall_s += self._clock() - asked
                if piece is None:
                    break
                audio_s += piece.duration_s
                yield piece
            mean = speaking()
        self.spoke(audio_s, wall_s, mean)

    @contextmanager
    def _counted(self) -> Iterator[Callable[[], float]]:
        """Count one caller more; yield a function that returns the mean number of callers since."""
        began, before = self._count(1)

        def mean() -> float:
            now, seconds = self._count(0)
            return (seconds - before) / (now - began) if now > began else 1.0

        try:
            yield mean
        finally:
            self._count(-1)

    def _count(self, change: int) -> tuple[float, float]:
        """Add to the number of callers; return the time and the caller-seconds so far."""
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


class HeadStart(Generic[T]):
    """Holds the first pieces of an answer back until there is a lead, so that it then plays without a gap.

    They go to `hand_over` as soon as they last for `lead_s()` seconds together, or the first has waited for so long;
    later ones at once. Used by one thread.
    """

    def __init__(
        self,
        hand_over: Callable[[T], None],
        lead_s: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hand_over = hand_over
        self._lead_s = lead_s
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

    def check(self) -> None:
        """Hand over what is held, if it is time."""
        if self._held:
            lead_s = self._lead_s()
            if self._audio_s >= lead_s or self._clock() - self._since >= lead_s:
                self.release()

    def release(self) -> None:
        """Hand over what is held, and hold nothing any more."""
        held, self._held = self._held or [], None
        for piece in held:
            self._hand_over(piece)
