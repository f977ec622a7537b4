"""How long the stages of one turn took."""

import time
from contextlib import AbstractContextManager

from mirrorchat.turn.busy_time import BusyTime
from mirrorchat.turn.events import Timings


class Stopwatch:
    """Adds up the seconds of named stages from several threads; what overlaps within a stage counts once.

    Of the speech, `speech_s` are the seconds made so far; the first came `first_audio_s` seconds after the start.
    """

    def __init__(self) -> None:
        self.speech_s = 0.0
        self.first_audio_s: float | None = None
        self._started = time.monotonic()
        self._stages: dict[str, BusyTime] = {}

    def time(self, stage: str) -> AbstractContextManager[None]:
        return self._stages.setdefault(stage, BusyTime()).busy()

    def spoke(self, seconds: float) -> None:
        """Count further speech."""
        if self.first_audio_s is None:
            self.first_audio_s = time.monotonic() - self._started
        self.speech_s += seconds

    def timings(self) -> Timings:
        seconds = {stage: busy.seconds for stage, busy in list(self._stages.items())}
        return Timings({**seconds, "total": time.monotonic() - self._started})
