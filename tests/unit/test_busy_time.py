"""Busy time: the union of intervals, on a clock that moves when it is told to."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorchat.turn.stopwatch import BusyTime


def test_nothing_done_is_no_time() -> None:
    now = [5.0]
    busy = BusyTime(lambda: now[0])
    now[0] = 9.0
    assert busy.seconds == 0.0


def test_what_still_goes_on_counts_and_an_error_ends_it() -> None:
    now = [0.0]
    busy = BusyTime(lambda: now[0])
    with pytest.raises(RuntimeError), busy.busy():
        now[0] = 2.0
        assert busy.seconds == 2.0
        raise RuntimeError
    now[0] = 3.0
    assert busy.seconds == 2.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=8))
def test_overlaps_count_once(spans: list[tuple[int, int]]) -> None:
    """Against the set of whole seconds that lie in an interval."""
    now = [0.0]
    busy = BusyTime(lambda: now[0])
    stacks = [ExitStack() for _ in spans]
    for second in range(80):
        now[0] = float(second)
        for (start, length), stack in zip(spans, stacks, strict=True):
            if second == start:
                stack.enter_context(busy.busy())
            if second == start + length:
                stack.close()
    covered = {second for start, length in spans for second in range(start, start + length)}
    assert busy.seconds == len(covered)
