"""How long a clause may be: as long as the engine computes while what is buffered is heard."""

import pytest

from mirrorchat.engines import Language
from mirrorchat.text.clauses import spoken_length
from mirrorchat.turn.clause_pace import FIRST_CHARS, LATER_CHARS, UNKNOWN_SPEED, WHOLE_SPEED, ClausePace

CHINESE = Language.CHINESE
TEXT = "看书写字" * 15


def pace(speed: float | None) -> ClausePace:
    return ClausePace(CHINESE, list, lambda: speed)


@pytest.mark.parametrize("speed", [None, 0.5, 0.99 * WHOLE_SPEED])
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


def test_fast_speech_is_not_cut_and_does_not_wait() -> None:
    fast = pace(WHOLE_SPEED)
    assert fast.cut(TEXT, is_first=True, buffered_s=0.0) == (TEXT, "")
    assert fast.prebuffer_s() == 0.0


def test_the_prebuffer_lasts_until_the_next_clause_is_computed() -> None:
    next_clause_s = LATER_CHARS[CHINESE] / 4.2
    assert next_clause_s / 1.5 < pace(1.5).prebuffer_s() < 2 * next_clause_s / 1.5
    assert pace(None).prebuffer_s() == pace(UNKNOWN_SPEED).prebuffer_s() > pace(3.0).prebuffer_s()
