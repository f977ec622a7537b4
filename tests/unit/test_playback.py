"""How many callers speech keeps up with: what is measured counts, a line lies between, beyond it the sum stays."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Language
from mirrorchat.turn.playback import FORGET_S, NEEDED_RATE, Meter, Playback, PlayoutBuffer, Prebuffer, ReorderBuffer


def second_of_speech(seconds: float = 1.0) -> Audio:
    return Audio(np.zeros(int(8000 * seconds), np.float32), 8000)


def test_nothing_measured_admits_all() -> None:
    playback = Playback()
    assert playback.rate(3) is None
    assert playback.allows(64) and playback.limit(64) == 64


def test_one_caller_is_always_admitted_however_slow_the_engine() -> None:
    playback = Playback()
    playback.spoke(1.0, 4.0, 1)
    assert playback.rate(1) == pytest.approx(0.25)
    assert playback.allows(1) and not playback.allows(2)
    assert playback.limit(8) == 1


def test_beyond_what_was_measured_the_sum_stays_until_more_is_known() -> None:
    playback = Playback()
    playback.spoke(4.0, 1.0, 1)
    assert playback.rate(3) == pytest.approx(4 / 3) and playback.allows(3)
    assert not playback.allows(4)  # 1.0 has no margin
    playback.spoke(1.6, 1.0, 3)
    assert playback.allows(4)  # the batch has gained: 1.2
    assert not playback.allows(5)
    playback.spoke(1.0, 1.0, 4)
    assert not playback.allows(4) and playback.limit(64) == 3  # and that was learned from


def test_between_two_numbers_the_cost_is_a_line() -> None:
    playback = Playback()
    playback.spoke(1.0, 0.2, 1)
    playback.spoke(1.0, 1.0, 5)
    assert playback.rate(3) == pytest.approx(1 / 0.6)
    assert playback.limit(64) == 4  # costs 0.8 of a second per second; 5 cost 1.0


def test_newer_sentences_count_more() -> None:
    playback = Playback()
    for _ in range(5):
        playback.spoke(1.0, 2.0, 2)
    assert not playback.allows(2)
    for _ in range(12):
        playback.spoke(2.0, 1.0, 2)
    assert playback.allows(2)


def test_what_was_measured_is_forgotten() -> None:
    clock = FakeClock()
    playback = Playback(clock)
    playback.spoke(1.0, 2.0, 2)
    clock.now += FORGET_S - 1
    assert not playback.allows(2)
    clock.now += 2
    assert playback.allows(2) and playback.rate(2) is None


def test_each_language_has_its_speed_until_it_is_forgotten() -> None:
    clock = FakeClock()
    playback = Playback(clock)
    playback.spoke(4.0, 1.0, 1, Language.ENGLISH)
    playback.spoke(1.5, 1.0, 1, Language.CHINESE)
    assert playback.speed(Language.ENGLISH) == pytest.approx(4.0)
    assert playback.speed(Language.CHINESE) == pytest.approx(1.5)
    clock.now += FORGET_S + 1
    assert playback.speed(Language.CHINESE) is None


@pytest.mark.parametrize(("audio_s", "wall_s"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_what_says_nothing_is_not_counted(audio_s: float, wall_s: float) -> None:
    playback = Playback()
    playback.spoke(audio_s, wall_s, 1)
    assert playback.rate(1) is None


@given(fixed=st.floats(0.0, 2.0), each=st.floats(0.001, 1.0), most=st.integers(1, 12))
def test_on_a_linear_engine_no_caller_is_admitted_to_an_underrun(fixed: float, each: float, most: int) -> None:
    """A step of the engine costs `fixed + each * n`: what was measured is decided rightly."""
    playback = Playback()
    for callers in range(1, most + 1):
        playback.spoke(1.0, fixed + each * callers, callers)
    for callers in range(2, most + 1):
        assert playback.allows(callers) == (1 / (fixed + each * callers) >= NEEDED_RATE)
    beyond = most + 2  # the least that is sure: the sum over all callers stays
    assert playback.allows(beyond) == (most / (beyond * (fixed + each * most)) >= NEEDED_RATE)


def test_measuring_counts_the_makers_time_and_not_the_listeners() -> None:
    clock = FakeClock()
    playback = Playback(clock)

    def speak() -> Iterator[Audio]:
        for _ in range(3):
            clock.now += 0.5
            yield second_of_speech()

    for _ in Meter(playback, clock).measure(speak()):
        clock.now += 10.0  # a slow reader
    assert playback.rate(1) == pytest.approx(3.0 / 1.5)


def test_measuring_tells_how_many_were_spoken_to() -> None:
    clock = FakeClock()
    playback = Playback(clock)

    def speak(seconds: float) -> Iterator[Audio]:
        clock.now += seconds
        yield second_of_speech(8.0)

    first, second = (Meter(playback, clock).measure(speak(seconds)) for seconds in (2.0, 4.0))
    next(first)
    next(second)  # both from here on
    clock.now += 20.0
    assert list(first) == [] and list(second) == []
    # of the first one's 26 s the second shared 24, of the second's 24 all
    assert playback.rate(2) == pytest.approx((8.0 + 0.8 * 8.0) / (4.0 + 0.8 * 2.0))
    assert playback.rate(1) == pytest.approx(2 * (8.0 + 0.8 * 8.0) / (4.0 + 0.8 * 2.0))


def test_a_sentence_that_breaks_off_is_not_counted_and_neither_is_its_caller() -> None:
    playback = Playback()

    def speak() -> Iterator[Audio]:
        yield second_of_speech()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        list(Meter(playback).measure(speak()))
    assert playback.rate(1) is None
    list(Meter(playback).measure(iter([second_of_speech()])))
    assert list(playback._measured) == [1]


def test_sentences_of_one_caller_that_overlap_are_one_caller_and_their_time_counts_once() -> None:
    """The first takes 0 to 3 s, the second 1 to 5 s, in threads of their own."""
    clock = FakeClock()
    playback = Playback(clock)
    meter = Meter(playback, clock)
    begun, goes_on = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def speak(number: int) -> Iterator[Audio]:
        begun[number].set()
        assert goes_on[number].wait(10)
        yield second_of_speech(4.0)

    threads = [threading.Thread(target=lambda number=number: list(meter.measure(speak(number)))) for number in range(2)]
    for at_s, thread in enumerate(threads):
        clock.now = 1000.0 + at_s
        thread.start()
        assert begun[at_s].wait(10)
    for end_s, thread, event in zip((3.0, 5.0), threads, goes_on, strict=True):
        clock.now = 1000.0 + end_s
        event.set()
        thread.join(10)
    assert list(playback._measured) == [1]
    assert playback.rate(1) == pytest.approx((0.8 * 4.0 + 4.0) / (0.8 * 3.0 + 2.0))


def test_threads_are_counted_together() -> None:
    playback = Playback()
    together = threading.Barrier(4)

    def speak() -> Iterator[Audio]:
        together.wait()
        time.sleep(0.1)
        yield second_of_speech(0.4)
        together.wait()

    threads = [threading.Thread(target=lambda: list(Meter(playback).measure(speak()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(playback._measured) == 4
    rate = playback.rate(4)
    assert rate is not None and 1.0 < rate < 4.1


class Answer:
    """Pieces that were handed over, and the lead that is wanted now."""

    def __init__(self, lead_s: float, *, adds_up: bool = False) -> None:
        self.heard: list[str] = []
        self.lead_s = lead_s
        self.clock = FakeClock()
        self.start = Prebuffer[str](self.heard.append, lambda: self.lead_s, adds_up=adds_up, clock=self.clock)


def test_without_a_prebuffer_nothing_is_held() -> None:
    answer = Answer(0.0)
    answer.start.add("a", 0.2)
    assert answer.heard == ["a"]


def test_the_first_pieces_wait_for_the_prebuffer_and_later_ones_do_not() -> None:
    answer = Answer(1.0)
    answer.start.add("a", 0.25)
    answer.start.add("b", 0.5)
    assert answer.heard == []
    answer.start.add("c", 0.25)
    answer.start.add("d", 0.0)
    assert answer.heard == ["a", "b", "c", "d"]


def test_the_first_waits_no_longer_than_the_prebuffer_lasts() -> None:
    answer = Answer(1.0)
    answer.start.check()
    answer.start.add("a", 0.3)
    answer.clock.now += 0.9
    answer.start.check()
    assert answer.heard == []
    answer.clock.now += 0.1
    answer.start.check()
    assert answer.heard == ["a"]


def test_speech_and_wait_add_up_where_the_next_clause_has_its_time() -> None:
    answer = Answer(2.5, adds_up=True)
    answer.start.add("a", 1.5)
    assert answer.start.held_s == 1.5 and answer.start.due_in_s() == pytest.approx(1.0)
    answer.clock.now += 0.75
    answer.start.check()
    assert answer.heard == []
    answer.clock.now += 0.25
    answer.start.check()
    assert answer.heard == ["a"] and answer.start.held_s == 0.0
    at_once = Answer(2.5, adds_up=True)
    at_once.start.add("a", 2.5)
    assert at_once.heard == ["a"]


def test_a_prebuffer_that_becomes_unnecessary_is_passed_on() -> None:
    answer = Answer(1.0)
    answer.start.add("a", 0.3)
    answer.lead_s = 0.3
    answer.start.check()
    assert answer.heard == ["a"]


def test_the_end_lets_go_of_everything() -> None:
    answer = Answer(5.0)
    answer.start.add("a", 0.3)
    answer.start.release()
    answer.start.add("b", 0.3)
    assert answer.heard == ["a", "b"]


@given(data=st.data())
def test_sentences_spoken_at_once_come_in_order_and_whole(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    heard: list[tuple[int, int]] = []
    out = ReorderBuffer(Prebuffer[tuple[int, int]](heard.append, lambda: 0.0))
    left = {index: list(range(length)) for index, length in enumerate(lengths)}
    while left:
        index = data.draw(st.sampled_from(sorted(left)))
        if left[index]:
            out.add(index, (index, left[index].pop(0)), 0.1)
        else:
            del left[index]
            out.end(index)
        first = min(left, default=len(lengths))  # who has not ended: all before is heard, and its own so far
        expected = [(i, n) for i, length in enumerate(lengths[:first]) for n in range(length)]
        expected += [(first, n) for n in range(lengths[first] - len(left[first]))] if left else []
        assert heard == expected


def test_the_prebuffer_holds_the_first_sentences_in_order() -> None:
    answer = Answer(1.0)
    out = ReorderBuffer(answer.start)
    out.add(1, "b", 0.8)
    out.add(0, "a", 0.3)
    assert answer.heard == []
    out.end(0)
    assert answer.heard == ["a", "b"]


def test_a_listener_hears_what_has_come_and_waits_where_nothing_has() -> None:
    clock = FakeClock()
    playout = PlayoutBuffer(clock)
    assert playout.left_s == 0.0
    playout.add(2.0)
    clock.now += 1.5
    playout.add(1.0)
    assert playout.left_s == pytest.approx(1.5)
    clock.now += 5.0  # a gap, which is not made up for
    assert playout.left_s == 0.0
    playout.add(1.0)
    assert playout.left_s == pytest.approx(1.0)


def test_what_was_measured_is_forgotten_in_time() -> None:
    clock = FakeClock()
    playback = Playback(clock)
    assert playback.forgets_in_s() == FORGET_S
    playback.spoke(1.0, 1.0, 1)
    clock.now += FORGET_S - 10.0
    assert playback.forgets_in_s() == pytest.approx(10.0)
    clock.now += 11.0
    assert playback.forgets_in_s() == FORGET_S  # nothing is left to forget
