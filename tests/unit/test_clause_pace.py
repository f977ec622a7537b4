"""How long a clause may be: as long as the engine computes while what is buffered is heard."""

from collections.abc import Sequence
from random import Random

import pytest
from support.clock import FakeClock

from mirrorchat.engines import Language
from mirrorchat.text.clauses import spoken_length
from mirrorchat.turn.clause_pace import CHARS_S, FAST_SPEED, FIRST_CHARS, LATER_CHARS, UNKNOWN_SPEED, ClausePace
from mirrorchat.turn.playback import Playback, Prebuffer

CHINESE = Language.CHINESE
TEXT = "看书写字" * 15


def pace(speed: float | None) -> ClausePace:
    return ClausePace(CHINESE, list, lambda: speed)


@pytest.mark.parametrize("speed", [None, 0.5, 0.99 * FAST_SPEED])
def test_slow_speech_begins_with_a_short_clause(speed: float | None) -> None:
    clause, rest = pace(speed).cut(TEXT, is_first=True, buffered_s=0.0)
    assert spoken_length(clause) == FIRST_CHARS[CHINESE] == 8
    assert clause + rest == TEXT


def test_a_later_clause_grows_with_what_is_buffered_and_with_the_speed() -> None:
    def length(speed: float | None, buffered_s: float) -> int:
        return spoken_length(pace(speed).cut(TEXT, is_first=False, buffered_s=buffered_s)[0])

    assert length(1.5, 0.0) == LATER_CHARS[CHINESE]
    assert LATER_CHARS[CHINESE] < length(1.5, 4.0) < length(3.0, 4.0) < len(TEXT) == length(3.0, 20.0)
    assert length(None, 4.0) == length(UNKNOWN_SPEED, 4.0)


def test_fast_speech_begins_with_a_sentence_and_does_not_wait() -> None:
    fast = pace(FAST_SPEED)
    assert fast.cut(TEXT, is_first=True, buffered_s=0.0) == (TEXT, "")
    assert fast.prebuffer_s() == 0.0


def test_the_prebuffer_lasts_until_the_next_clause_is_computed() -> None:
    next_clause_s = LATER_CHARS[CHINESE] / CHARS_S[CHINESE]
    assert next_clause_s / 1.5 < pace(1.5).prebuffer_s() < 2 * next_clause_s / 1.5
    assert pace(None).prebuffer_s() == pace(UNKNOWN_SPEED).prebuffer_s() > pace(3.0).prebuffer_s()


class Listener:
    """Plays the answers of an engine that takes `fixed_s` for a clause, and `factor` for each second of its speech."""

    def __init__(self, fixed_s: float, factor: float, random: Random) -> None:
        self.gaps_s: list[float] = []
        self.starts_s: list[float] = []
        self._fixed_s, self._factor, self._random = fixed_s, factor, random
        self._playback = Playback()
        self._ends_at: float | None = None  # the end of what is being played

    def hear(self, sentences: Sequence[str]) -> None:
        clock = FakeClock()
        began, self._ends_at = clock.now, None
        pace = ClausePace(CHINESE, list, lambda: self._playback.speed(CHINESE))
        out = Prebuffer[float](
            lambda audio_s: self._play(audio_s, clock.now), pace.prebuffer_s, adds_up=True, clock=clock
        )
        waiting = list(sentences)
        while waiting:
            buffered_s = out.held_s + max(0.0, (self._ends_at or 0.0) - clock.now)
            is_first = len(waiting) == len(sentences) and clock.now == began
            clause, rest = pace.cut(waiting.pop(0), is_first=is_first, buffered_s=buffered_s)
            waiting[:0] = [rest] if rest else []
            self._compute(clause, clock, out)
        out.release()
        self.starts_s[-1] -= began

    def _compute(self, clause: str, clock: FakeClock, out: Prebuffer[float]) -> None:
        audio_s = self._uneven(spoken_length(clause) / CHARS_S[CHINESE])
        work_s = self._uneven(self._fixed_s + self._factor * audio_s)
        done_at, due_in_s = clock.now + work_s, out.due_in_s()
        if due_in_s is not None and due_in_s < work_s:
            clock.now += due_in_s
            out.check()
        clock.now = done_at
        out.add(audio_s, audio_s)
        self._playback.spoke(audio_s, work_s, 1, CHINESE)

    def _play(self, audio_s: float, now: float) -> None:
        if self._ends_at is None:
            self.starts_s.append(now)
        elif now > self._ends_at:
            self.gaps_s.append(now - self._ends_at)
        self._ends_at = max(now, self._ends_at or now) + audio_s

    def _uneven(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.88, 1.12)


@pytest.mark.parametrize(("fixed_s", "factor"), [(0.05, 0.17), (0.2, 0.3), (0.3, 0.5), (0.3, 0.6)])
def test_answers_are_played_without_an_underrun(fixed_s: float, factor: float) -> None:
    """On two quiet cores Kokoro and the tint take 0.2 s for a clause and 0.3 a second, on busy ones twice that."""
    listener = Listener(fixed_s, factor, Random(1))
    for _ in range(10):
        listener.hear(["看书写字看书写字看书写字，", "看书写字" * 12, "看书写字。", "看书写字" * 8])
    assert not listener.gaps_s
    assert max(listener.starts_s[1:]) < 4.5 * (fixed_s + factor)  # the first answer's speed is unknown
