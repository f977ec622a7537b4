"""The durations of the stages of one turn."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from mirrorchat.engines import Language
from mirrorchat.turn.events import Timings


class BusyTime:
    """Sums the seconds in which at least one thread is `busy`; overlaps count once. Thread-safe."""

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


class Stopwatch:
    """Sums the seconds of named stages over several threads; overlaps within a stage count once.

    `speech_s` are the seconds of speech so far; the first speech was ready `first_audio_s` seconds after the start.
    `detected_language` is that of the question, None unless it was detected. Example:

        watch = Stopwatch()
        with watch.time("recognize"): ...
    """

    def __init__(self) -> None:
        self.speech_s = 0.0
        self.first_audio_s: float | None = None
        self.detected_language: Language | None = None
        self._started = time.monotonic()
        self._stages: dict[str, BusyTime] = {}

    def time(self, stage: str) -> AbstractContextManager[None]:
        """Return a context manager that adds its duration to `stage`."""
        return self._stages.setdefault(stage, BusyTime()).busy()

    def spoke(self, seconds: float) -> None:
        """Count `seconds` of further speech."""
        if self.first_audio_s is None:
            self.first_audio_s = time.monotonic() - self._started
        self.speech_s += seconds

    def timings(self) -> Timings:
        """Return the seconds of each stage and, as `total`, those since the start."""
        seconds = {stage: busy.seconds for stage, busy in list(self._stages.items())}
        return Timings({**seconds, "total": time.monotonic() - self._started})
