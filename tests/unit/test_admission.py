"""Admission: bounded places and a bounded queue, refusals, fairness, hang-ups in the queue, and the end of it all."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.clock import FakeClock

from mirrorchat.engines import Deadline
from mirrorchat.errors import ClientGone, DeadlineExceeded, MirrorChatError, ServerBusy, ShuttingDown
from mirrorchat.turn.admission import (
    LEAD_PER_CALLER_S,
    LEADLESS_RATE,
    MAX_LEFTOVERS,
    SLOW_LEAD_S,
    SLOW_RATE,
    TURN_MARGIN,
    TYPICAL_TURN_S,
    Place,
    Refusal,
    Scheduler,
    Ticket,
)

LONG = 1000.0


def deadline(clock: FakeClock, seconds: float = LONG) -> Deadline:
    return Deadline(clock.now + seconds)


def test_places_are_bounded_and_come_back() -> None:
    scheduler = Scheduler(2)
    with scheduler.enter(Deadline.after(1)), scheduler.enter(Deadline.after(1)):
        assert scheduler.running == 2
        with pytest.raises(ServerBusy, match="2 callers") as caught:
            scheduler.enter(Deadline.after(1))
        assert caught.value.retry_after_s is not None and 1 <= caught.value.retry_after_s <= 60
    assert scheduler.running == 0
    scheduler.enter(Deadline.after(1)).release()


def test_a_place_is_held_until_its_last_holder_lets_go() -> None:
    scheduler = Scheduler(1)
    with scheduler.enter(Deadline.after(1)) as place:
        place.hold()
    assert scheduler.running == 1
    place.release()
    assert (scheduler.running, scheduler.stats().leftovers) == (0, 0)


def test_an_abandoned_place_is_free_at_once_and_what_is_left_over_is_bounded() -> None:
    scheduler = Scheduler(1)
    places = []
    for _ in range(MAX_LEFTOVERS):
        with scheduler.enter(Deadline.after(1)) as place:
            place.hold()
            place.abandon()
            place.abandon()  # again: harmless
            assert scheduler.running == 0
        places.append(place)
    assert scheduler.stats().leftovers == MAX_LEFTOVERS
    with pytest.raises(ServerBusy):
        scheduler.enter(Deadline.after(1))
    scheduler.max_waiting = 1
    waiting = scheduler.apply(Deadline.after(30))
    places[0].release()
    assert waiting.place is not None
    waiting.place.release()
    places[1].release()
    assert (scheduler.running, scheduler.stats().leftovers) == (0, 0)


def test_an_abandoned_place_that_nobody_holds_leaves_nothing_over() -> None:
    scheduler = Scheduler(1)
    with scheduler.enter(Deadline.after(1)) as place:
        place.abandon()
    place.abandon()
    assert (scheduler.running, scheduler.stats().leftovers) == (0, 0)


def test_a_place_is_freed_by_an_error() -> None:
    scheduler = Scheduler(1)
    with pytest.raises(RuntimeError), scheduler.enter(Deadline.after(1)):
        raise RuntimeError
    assert scheduler.running == 0


def test_who_waits_enters_first_come_first_served() -> None:
    clock = FakeClock()
    scheduler = Scheduler(1, 3, clock=clock)
    running = scheduler.apply(deadline(clock)).place
    waiting = [scheduler.apply(deadline(clock)) for _ in range(3)]
    with pytest.raises(ServerBusy, match="1 callers"):
        scheduler.apply(deadline(clock))
    for index, ticket in enumerate(waiting):
        assert not ticket.settled.is_set() and scheduler.stats().waiting == 3 - index
        clock.now += 2.0
        assert running is not None
        running.release()
        running = ticket.place
        assert running is not None and running.waited_s == pytest.approx(2.0 * (index + 1))
    assert scheduler.stats().refusals[Refusal.QUEUE_FULL] == 1


def test_who_could_not_be_answered_by_the_deadline_is_refused_at_once() -> None:
    clock = FakeClock()
    scheduler = Scheduler(2, 8, clock=clock)
    for _ in range(2):
        scheduler.apply(deadline(clock))
    step_s = TYPICAL_TURN_S / 2  # a place in each
    scheduler.apply(deadline(clock, TURN_MARGIN * (1.1 * step_s + TYPICAL_TURN_S)))
    with pytest.raises(ServerBusy, match="too late") as caught:
        scheduler.apply(deadline(clock, TURN_MARGIN * (1.9 * step_s + TYPICAL_TURN_S)))  # 2 steps, and its own
    assert caught.value.retry_after_s == round(2 * step_s)
    scheduler.apply(deadline(clock, TURN_MARGIN * (2.1 * step_s + TYPICAL_TURN_S)))
    assert scheduler.stats().refusals[Refusal.WAIT_TOO_LONG] == 1


def test_the_prediction_follows_the_turns() -> None:
    clock = FakeClock()
    scheduler = Scheduler(1, 8, clock=clock)
    for _ in range(40):
        place = scheduler.apply(deadline(clock)).place
        clock.now += 0.2
        assert place is not None
        place.release()
    scheduler.apply(deadline(clock))
    scheduler.apply(deadline(clock, 0.5))  # would be refused at TYPICAL_TURN_S
    with pytest.raises(ServerBusy) as caught:
        scheduler.apply(deadline(clock, 0.5))
    assert caught.value.retry_after_s == 1


def test_playback_bounds_the_places_and_more_come_when_it_is_known_to_be_fast() -> None:
    clock = FakeClock()
    scheduler = Scheduler(4, 4, clock=clock)
    scheduler.spoke(1.0, 1.0, 1)  # just real time: no room for a second one
    first = scheduler.apply(deadline(clock))
    second = scheduler.apply(deadline(clock))
    assert first.place and not second.place
    assert scheduler.stats().places == 1
    for _ in range(20):
        scheduler.spoke(3.0, 1.0, 1)
    assert second.place, "speech got faster"
    assert scheduler.stats().places == 2


def test_a_caller_whom_playback_keeps_out_is_refused_when_that_takes_too_long() -> None:
    clock = FakeClock()
    scheduler = Scheduler(4, 4, clock=clock)
    scheduler.spoke(1.0, 2.0, 1)
    assert scheduler.apply(deadline(clock)).place
    with pytest.raises(ServerBusy):  # a whole turn, not a quarter of one: there is one place in truth
        scheduler.apply(deadline(clock, TYPICAL_TURN_S * 0.9))


def test_the_queue_goes_round_the_owners() -> None:
    clock = FakeClock()
    scheduler = Scheduler(1, 10, clock=clock)
    place = scheduler.apply(deadline(clock), "nobody").place
    tickets = {name: scheduler.apply(deadline(clock), name[0]) for name in ("a1", "a2", "a3", "b1", "b2", "c1")}
    order = []
    while place is not None:
        place.release()
        name = next((name for name, ticket in tickets.items() if ticket.place), None)
        place = tickets.pop(name).place if name else None
        order.append(name)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_an_owner_that_holds_its_share_is_passed_over() -> None:
    clock = FakeClock()
    scheduler = Scheduler(4, 10, clock=clock)
    held = [scheduler.apply(deadline(clock), "greedy").place for _ in range(4)]
    more = [scheduler.apply(deadline(clock), "greedy") for _ in range(3)]
    others = [scheduler.apply(deadline(clock), "other") for _ in range(3)]
    for place in held[:2]:
        assert place is not None
        place.release()
    assert [bool(ticket.place) for ticket in others] == [True, True, False]  # two of four each
    assert held[2] is not None
    held[2].release()  # greedy holds one now: it is below its share again, and first in the round
    assert [bool(ticket.place) for ticket in more] == [True, False, False]


def test_a_full_queue_makes_way_for_another_owner() -> None:
    clock = FakeClock()
    scheduler = Scheduler(1, 3, clock=clock)
    scheduler.apply(deadline(clock), "greedy")
    greedy = [scheduler.apply(deadline(clock), "greedy") for _ in range(3)]
    other = scheduler.apply(deadline(clock), "other")
    assert isinstance(greedy[2].error, ServerBusy) and greedy[2].error.retry_after_s
    assert not other.settled.is_set() and scheduler.stats().waiting == 3
    with pytest.raises(ServerBusy):  # two and one: that is fair
        scheduler.apply(deadline(clock), "other")
    with pytest.raises(ServerBusy):
        scheduler.apply(deadline(clock), "greedy")


class Waiter:
    """One who waits in `enter` on a thread of its own."""

    def __init__(self, scheduler: Scheduler, **options: Any) -> None:
        self._pool = ThreadPoolExecutor(1)
        before = scheduler.stats().waiting
        self.result = self._pool.submit(scheduler.enter, options.pop("deadline", Deadline.after(30)), **options)
        wait_until(lambda: scheduler.stats().waiting > before)

    def error(self) -> BaseException | None:
        error = self.result.exception(5)
        self._pool.shutdown()
        return error


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.001)


def test_a_caller_who_hangs_up_leaves_the_queue_within_100_ms() -> None:
    scheduler = Scheduler(1, 4)
    times = []
    with scheduler.enter(Deadline.after(30)):
        for _ in range(5):
            gone = threading.Event()
            waiter = Waiter(scheduler, caller_gone=gone.is_set)
            hung_up = time.monotonic()
            gone.set()
            wait_until(lambda: not scheduler.stats().waiting)
            times.append(time.monotonic() - hung_up)
            assert isinstance(waiter.error(), ClientGone)
    assert sorted(times)[2] < 0.1  # the median: this machine may be busy with something else
    assert scheduler.stats().refusals[Refusal.HUNG_UP] == 5
    scheduler.enter(Deadline.after(1)).release()  # nothing of them is left


def test_the_deadline_ends_the_wait() -> None:
    scheduler = Scheduler(1, 4)
    with scheduler.enter(Deadline.after(30)):
        scheduler._turn_s = 0.01  # the wait looks short
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            scheduler.enter(Deadline.after(0.2))
        assert 0.2 <= time.monotonic() - started < 1.0
    assert scheduler.stats().waiting == 0
    assert scheduler.stats().refusals[Refusal.DEADLINE] == 1


def test_stopping_admission_ends_waits_and_not_turns() -> None:
    scheduler = Scheduler(1, 4)
    reason = ShuttingDown("bye", retry_after_s=3)
    with scheduler.enter(Deadline.after(30)) as place:
        waiter = Waiter(scheduler)
        scheduler.stop_admission(reason)
        assert waiter.error() is reason
        place.cancel.check()
        assert scheduler.running == 1 and scheduler.closed
        with pytest.raises(ShuttingDown) as caught:
            scheduler.enter(Deadline.after(1))
        assert caught.value.retry_after_s
        scheduler.end_all(reason)
        with pytest.raises(ShuttingDown):
            place.cancel.check()
    assert scheduler.stats().refusals[Refusal.SHUTTING_DOWN] == 2


def test_ending_all_tells_every_turn_why_and_admits_nobody() -> None:
    scheduler = Scheduler(2)
    first, second = scheduler.enter(Deadline.after(1)), scheduler.enter(Deadline.after(1))
    reason = ShuttingDown("bye")
    scheduler.end_all(reason)
    for place in (first, second):
        with pytest.raises(ShuttingDown, match="bye") as caught:
            place.cancel.check()
        assert caught.value is not reason  # which outlives the turns, and would keep the frames of each
    first.release()
    with pytest.raises(ShuttingDown):
        scheduler.enter(Deadline.after(1))


def test_a_place_that_came_while_its_caller_left_is_given_back() -> None:
    clock = FakeClock()
    scheduler = Scheduler(1, 2, clock=clock)
    first = scheduler.apply(deadline(clock)).place
    leaving, next_one = scheduler.apply(deadline(clock)), scheduler.apply(deadline(clock))
    assert first is not None
    first.release()
    assert leaving.place
    scheduler.withdraw(leaving)
    assert next_one.place and scheduler.running == 1


@pytest.mark.parametrize("max_waiting", [0, 4])
def test_many_threads_never_pass_the_bound(max_waiting: int) -> None:
    scheduler = Scheduler(3, max_waiting)
    seen: list[int] = []
    refused: list[MirrorChatError] = []
    start = threading.Barrier(12)

    def visit(number: int) -> None:
        start.wait()
        for turn in range(100):
            try:
                with scheduler.enter(
                    Deadline.after(5), owner=str(number % 3), caller_gone=partial(bool, turn % 10 == 9)
                ):
                    seen.append(scheduler.running)
            except (ServerBusy, ClientGone) as error:
                refused.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen and max(seen) <= 3
    assert len(seen) + len(refused) == 12 * 100
    assert (scheduler.running, scheduler.stats().waiting, scheduler.stats().leftovers) == (0, 0, 0)


def test_a_turn_whose_place_is_free_already_is_ended_too() -> None:
    scheduler = Scheduler(1)
    place = scheduler.enter(Deadline.after(5))
    place.release()
    assert scheduler.running == 0
    scheduler.end_all(ShuttingDown("bye"))  # its speech may still be on the way to a slow reader
    with pytest.raises(ShuttingDown):
        place.cancel.check()


class Admission(RuleBasedStateMachine):
    """Callers of three owners come, wait, leave, run and end in any order, on a clock of our own."""

    MAX_TURNS, MAX_WAITING = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.scheduler = Scheduler(self.MAX_TURNS, self.MAX_WAITING, clock=self.clock)
        self.waiting: list[Ticket] = []
        self.running: list[Place] = []
        self.left_over: list[Place] = []
        self.closed = False
        self.served_since: dict[str, list[str]] = {}  # by an owner that waits and holds no place

    @rule(owner=st.sampled_from("abc"), limit_s=st.sampled_from([1.0, 10.0, LONG]))
    def apply(self, owner: str, limit_s: float) -> None:
        try:
            ticket = self.scheduler.apply(deadline(self.clock, limit_s), owner)
        except ServerBusy as error:
            assert error.retry_after_s and not self.has_room()
        except ShuttingDown:
            assert self.closed
        else:
            self.waiting.append(ticket)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.served_since.pop(ticket.owner, None)
        self.scheduler.withdraw(ticket)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), helper_stays=st.booleans())
    def end(self, data: st.DataObject, helper_stays: bool) -> None:
        place = data.draw(st.sampled_from(self.running))
        self.running.remove(place)
        if helper_stays:
            place.hold()
            place.abandon()
            self.left_over.append(place)
        place.release()
        self.settle()

    @precondition(lambda self: self.left_over)
    @rule()
    def helper_ends(self) -> None:
        self.left_over.pop().release()
        self.settle()

    @rule(seconds=st.floats(0.0, 300.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.scheduler.serve()
        self.settle()

    @rule(rate=st.floats(0.1, 10.0), speaking=st.integers(1, MAX_TURNS))
    def speech_is_made(self, rate: float, speaking: int) -> None:
        self.scheduler.spoke(rate, 1.0, speaking)
        self.settle()

    @rule()
    def stop(self) -> None:
        self.scheduler.stop_admission(ShuttingDown("bye"))
        self.closed = True
        self.settle()

    def has_room(self) -> bool:
        return (
            len(self.running) < self.MAX_TURNS
            and len(self.left_over) < MAX_LEFTOVERS * self.MAX_TURNS
            and self.scheduler.playback.allows(len(self.running) + 1)
        )

    def settle(self) -> None:
        """Take note of who has been admitted, in that order, and of who has been refused."""
        for place in self.scheduler._places:
            if place not in self.running:
                self.running.append(place)
                self.check_round(place.owner)
        self.waiting = [ticket for ticket in self.waiting if not ticket.settled.is_set()]
        holding = {place.owner for place in self.running}
        empty_handed = {ticket.owner for ticket in self.waiting} - holding
        self.served_since = {owner: self.served_since.get(owner, []) for owner in empty_handed}

    def check_round(self, owner: str) -> None:
        """An owner that waits with empty hands sees no other owner served twice."""
        self.served_since.pop(owner, None)
        for seen in self.served_since.values():
            assert owner not in seen
            seen.append(owner)

    @invariant()
    def counts_agree(self) -> None:
        stats = self.scheduler.stats()
        assert stats.running == len(self.running) <= self.MAX_TURNS
        assert stats.waiting == len(self.waiting) <= self.MAX_WAITING
        assert stats.leftovers == len(self.left_over)

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        assert not (self.waiting and self.has_room())
        assert not (self.waiting and self.closed)

    @invariant()
    def one_caller_is_always_admitted(self) -> None:
        if not self.running and not self.closed and len(self.left_over) < MAX_LEFTOVERS * self.MAX_TURNS:
            assert self.has_room()


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_lead_is_wanted_for_each_other_caller_until_speech_is_fast() -> None:
    scheduler = Scheduler(4)
    places = [scheduler.enter(Deadline.after(60)) for _ in range(3)]
    scheduler.spoke(2.0 * SLOW_RATE, 1.0, speaking=1.0)  # alone it is fast enough
    assert places[0].lead_s == pytest.approx(2 * LEAD_PER_CALLER_S)
    places[2].release()
    assert places[0].lead_s == pytest.approx(LEAD_PER_CALLER_S)
    scheduler.spoke(5.0 * LEADLESS_RATE, 5.0, speaking=2.0)
    assert places[0].lead_s == 0.0
    places[1].release()
    assert places[0].lead_s == 0.0
    places[0].release()


@pytest.mark.parametrize(("rate", "lead_s"), [(0.99 * SLOW_RATE, SLOW_LEAD_S), (SLOW_RATE, 0.0)])
def test_one_caller_alone_is_given_a_lead_where_speech_is_slow(rate: float, lead_s: float) -> None:
    scheduler = Scheduler(4)
    place = scheduler.enter(Deadline.after(60))
    assert place.lead_s == SLOW_LEAD_S  # nothing is known
    scheduler.spoke(rate, 1.0, speaking=1.0)
    assert place.lead_s == lead_s
