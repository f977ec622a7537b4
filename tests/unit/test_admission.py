"""Admission: bounded slots and a bounded queue, refusals, fairness, hang-ups in the queue, and the end of it all."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.clock import FakeClock

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone, DeadlineExceeded, MirrorChatError, ServerBusy, ShuttingDown
from mirrorchat.turn.admission import (
    MAX_ORPHANS,
    PREBUFFER_PER_CALLER_S,
    SLOW_PREBUFFER_S,
    SLOW_RATE,
    TURN_MARGIN,
    TYPICAL_TURN_S,
    UNBUFFERED_RATE,
    Admission,
    Refusal,
    Slot,
    Ticket,
)

LONG = 1000.0


def deadline(clock: FakeClock, seconds: float = LONG) -> Context:
    return Context(clock.now + seconds)


def report_speech(admission: Admission, audio_s: float, wall_s: float, speaking: float) -> None:
    """Report a sentence as a turn does: playback learns from it, and the queue gets the slots that it allows."""
    admission.playback.spoke(audio_s, wall_s, speaking)
    admission.serve()


def test_slots_are_bounded_and_become_free() -> None:
    admission = Admission(2)
    with admission.acquire(Context.after(1)), admission.acquire(Context.after(1)):
        assert admission.running == 2
        with pytest.raises(ServerBusy, match="2 callers") as caught:
            admission.acquire(Context.after(1))
        assert caught.value.retry_after_s is not None and 1 <= caught.value.retry_after_s <= 60
    assert admission.running == 0
    admission.acquire(Context.after(1)).release()


def test_a_slot_is_held_until_its_last_holder_releases_it() -> None:
    admission = Admission(1)
    with admission.acquire(Context.after(1)) as slot:
        slot.hold()
    assert admission.running == 1
    slot.release()
    assert (admission.running, admission.stats().orphans) == (0, 0)


def test_a_slot_released_early_is_free_at_once_and_orphans_are_bounded() -> None:
    admission = Admission(1)
    slots = []
    for _ in range(MAX_ORPHANS):
        with admission.acquire(Context.after(1)) as slot:
            slot.hold()
            slot.release_early()
            slot.release_early()  # a second call does nothing
            assert admission.running == 0
        slots.append(slot)
    assert admission.stats().orphans == MAX_ORPHANS
    with pytest.raises(ServerBusy):
        admission.acquire(Context.after(1))
    admission.max_waiting = 1
    waiting = admission.apply(Context.after(30))
    slots[0].release()
    assert waiting.slot is not None
    waiting.slot.release()
    slots[1].release()
    assert (admission.running, admission.stats().orphans) == (0, 0)


def test_a_slot_released_early_without_holders_leaves_no_orphan() -> None:
    admission = Admission(1)
    with admission.acquire(Context.after(1)) as slot:
        slot.release_early()
    slot.release_early()
    assert (admission.running, admission.stats().orphans) == (0, 0)


def test_an_error_frees_the_slot() -> None:
    admission = Admission(1)
    with pytest.raises(RuntimeError), admission.acquire(Context.after(1)):
        raise RuntimeError
    assert admission.running == 0


def test_the_queue_is_first_come_first_served() -> None:
    clock = FakeClock()
    admission = Admission(1, 3, clock=clock)
    running = admission.apply(deadline(clock)).slot
    waiting = [admission.apply(deadline(clock)) for _ in range(3)]
    with pytest.raises(ServerBusy, match="1 callers"):
        admission.apply(deadline(clock))
    for index, ticket in enumerate(waiting):
        assert not ticket.granted.done() and admission.stats().waiting == 3 - index
        clock.now += 2.0
        assert running is not None
        running.release()
        running = ticket.slot
        assert running is not None and running.waited_s == pytest.approx(2.0 * (index + 1))
    assert admission.stats().refusals[Refusal.QUEUE_FULL] == 1


def test_a_request_that_cannot_finish_by_its_deadline_is_rejected_at_once() -> None:
    clock = FakeClock()
    admission = Admission(2, 8, clock=clock)
    for _ in range(2):
        admission.apply(deadline(clock))
    step_s = TYPICAL_TURN_S / 2  # a slot in each
    admission.apply(deadline(clock, TURN_MARGIN * (1.1 * step_s + TYPICAL_TURN_S)))
    with pytest.raises(ServerBusy, match="too late") as caught:
        admission.apply(deadline(clock, TURN_MARGIN * (1.9 * step_s + TYPICAL_TURN_S)))  # 2 steps, and its own
    assert caught.value.retry_after_s == round(2 * step_s)
    admission.apply(deadline(clock, TURN_MARGIN * (2.1 * step_s + TYPICAL_TURN_S)))
    assert admission.stats().refusals[Refusal.WAIT_TOO_LONG] == 1


def test_the_prediction_follows_the_turns() -> None:
    clock = FakeClock()
    admission = Admission(1, 8, clock=clock)
    for _ in range(40):
        slot = admission.apply(deadline(clock)).slot
        clock.now += 0.2
        assert slot is not None
        slot.release()
    admission.apply(deadline(clock))
    admission.apply(deadline(clock, 0.5))  # would be refused at TYPICAL_TURN_S
    with pytest.raises(ServerBusy) as caught:
        admission.apply(deadline(clock, 0.5))
    assert caught.value.retry_after_s == 1


def test_playback_bounds_the_slots_and_a_fast_engine_raises_the_bound() -> None:
    clock = FakeClock()
    admission = Admission(4, 4, clock=clock)
    report_speech(admission, 1.0, 1.0, 1)  # just real time: no room for a second one
    first = admission.apply(deadline(clock))
    second = admission.apply(deadline(clock))
    assert first.slot and not second.slot
    assert admission.stats().slots == 1
    for _ in range(20):
        report_speech(admission, 3.0, 1.0, 1)
    assert second.slot, "speech got faster"
    assert admission.stats().slots == 2


def test_a_caller_who_waits_for_playback_for_too_long_is_rejected() -> None:
    clock = FakeClock()
    admission = Admission(4, 4, clock=clock)
    report_speech(admission, 1.0, 2.0, 1)
    assert admission.apply(deadline(clock)).slot
    with pytest.raises(ServerBusy):  # a whole turn, not a quarter of one: there is one slot in truth
        admission.apply(deadline(clock, TYPICAL_TURN_S * 0.9))


def test_the_queue_goes_round_the_tenants() -> None:
    clock = FakeClock()
    admission = Admission(1, 10, clock=clock)
    slot = admission.apply(deadline(clock), "nobody").slot
    tickets = {name: admission.apply(deadline(clock), name[0]) for name in ("a1", "a2", "a3", "b1", "b2", "c1")}
    order = []
    while slot is not None:
        slot.release()
        name = next((name for name, ticket in tickets.items() if ticket.slot), None)
        slot = tickets.pop(name).slot if name else None
        order.append(name)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_a_tenant_that_holds_its_share_is_passed_over() -> None:
    clock = FakeClock()
    admission = Admission(4, 10, clock=clock)
    held = [admission.apply(deadline(clock), "greedy").slot for _ in range(4)]
    more = [admission.apply(deadline(clock), "greedy") for _ in range(3)]
    others = [admission.apply(deadline(clock), "other") for _ in range(3)]
    for slot in held[:2]:
        assert slot is not None
        slot.release()
    assert [bool(ticket.slot) for ticket in others] == [True, True, False]  # two of four each
    assert held[2] is not None
    held[2].release()  # greedy holds one now: it is below its share again, and first in the round
    assert [bool(ticket.slot) for ticket in more] == [True, False, False]


def test_a_full_queue_loses_a_ticket_to_another_tenant() -> None:
    clock = FakeClock()
    admission = Admission(1, 3, clock=clock)
    admission.apply(deadline(clock), "greedy")
    greedy = [admission.apply(deadline(clock), "greedy") for _ in range(3)]
    other = admission.apply(deadline(clock), "other")
    refusal = greedy[2].granted.exception()
    assert isinstance(refusal, ServerBusy) and refusal.retry_after_s
    assert not other.granted.done() and admission.stats().waiting == 3
    with pytest.raises(ServerBusy):  # two and one: that is fair
        admission.apply(deadline(clock), "other")
    with pytest.raises(ServerBusy):
        admission.apply(deadline(clock), "greedy")


class Waiter:
    """One who waits in `acquire` on a thread of its own."""

    def __init__(self, admission: Admission, context: Context | None = None) -> None:
        self._pool = ThreadPoolExecutor(1)
        before = admission.stats().waiting
        self.result = self._pool.submit(admission.acquire, context or Context.after(30))
        wait_until(lambda: admission.stats().waiting > before)

    def error(self) -> BaseException | None:
        error = self.result.exception(5)
        self._pool.shutdown()
        return error


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.001)


def test_a_caller_who_hangs_up_leaves_the_queue_within_100_ms() -> None:
    admission = Admission(1, 4)
    times = []
    with admission.acquire(Context.after(30)):
        for _ in range(5):
            context = Context.after(30)
            waiter = Waiter(admission, context)
            hung_up = time.monotonic()
            context.cancel(ClientGone("the caller hung up"))
            wait_until(lambda: not admission.stats().waiting)
            times.append(time.monotonic() - hung_up)
            assert isinstance(waiter.error(), ClientGone)
    assert sorted(times)[2] < 0.1  # the median: this machine may be busy with something else
    assert admission.stats().refusals[Refusal.HUNG_UP] == 5
    admission.acquire(Context.after(1)).release()  # nothing of them is left


def test_the_deadline_ends_the_wait() -> None:
    admission = Admission(1, 4)
    with admission.acquire(Context.after(30)):
        admission._turn_s = 0.01  # the wait looks short
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            admission.acquire(Context.after(0.2))
        assert 0.2 <= time.monotonic() - started < 10.0  # and not for as long as the other turn runs
    assert admission.stats().waiting == 0
    assert admission.stats().refusals[Refusal.DEADLINE] == 1


def test_stopping_admission_ends_waits_and_not_turns() -> None:
    admission = Admission(1, 4)
    reason = ShuttingDown("bye", retry_after_s=3)
    with admission.acquire(Context.after(30)) as slot:
        waiter = Waiter(admission)
        admission.stop_admission(reason)
        assert waiter.error() is reason
        slot.context.check()
        assert admission.running == 1 and admission.closed
        with pytest.raises(ShuttingDown) as caught:
            admission.acquire(Context.after(1))
        assert caught.value.retry_after_s
        admission.end_all(reason)
        with pytest.raises(ShuttingDown):
            slot.context.check()
    assert admission.stats().refusals[Refusal.SHUTTING_DOWN] == 2


def test_ending_all_cancels_every_turn_with_the_reason_and_admits_none() -> None:
    admission = Admission(2)
    first, second = admission.acquire(Context.after(1)), admission.acquire(Context.after(1))
    reason = ShuttingDown("bye")
    admission.end_all(reason)
    for slot in (first, second):
        with pytest.raises(ShuttingDown, match="bye") as caught:
            slot.context.check()
        assert caught.value is not reason  # which outlives the turns, and would keep the frames of each
    first.release()
    with pytest.raises(ShuttingDown):
        admission.acquire(Context.after(1))


def test_a_slot_granted_while_its_caller_left_is_released() -> None:
    clock = FakeClock()
    admission = Admission(1, 2, clock=clock)
    first = admission.apply(deadline(clock)).slot
    leaving, next_one = admission.apply(deadline(clock)), admission.apply(deadline(clock))
    assert first is not None
    first.release()
    assert leaving.slot
    admission.withdraw(leaving)
    assert next_one.slot and admission.running == 1


@pytest.mark.parametrize("max_waiting", [0, 4])
def test_many_threads_never_exceed_the_bound(max_waiting: int) -> None:
    admission = Admission(3, max_waiting)
    seen: list[int] = []
    refused: list[MirrorChatError] = []
    start = threading.Barrier(12)

    def visit(number: int) -> None:
        start.wait()
        for turn in range(100):
            try:
                context = Context.after(5)
                if turn % 10 == 9:
                    context.cancel(ClientGone("the caller hung up"))
                with admission.acquire(context, tenant=str(number % 3)):
                    seen.append(admission.running)
            except (ServerBusy, ClientGone) as error:
                refused.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen and max(seen) <= 3
    assert len(seen) + len(refused) == 12 * 100
    assert (admission.running, admission.stats().waiting, admission.stats().orphans) == (0, 0, 0)


def test_a_turn_whose_slot_is_free_already_is_cancelled_too() -> None:
    admission = Admission(1)
    slot = admission.acquire(Context.after(5))
    slot.release()
    assert admission.running == 0
    admission.end_all(ShuttingDown("bye"))  # its speech may still be on the way to a slow reader
    with pytest.raises(ShuttingDown):
        slot.context.check()


class CallersComeAndGo(RuleBasedStateMachine):
    """Callers of three owners come, wait, leave, run and end in any order, on a clock of our own."""

    MAX_TURNS, MAX_WAITING = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.admission = Admission(self.MAX_TURNS, self.MAX_WAITING, clock=self.clock)
        self.waiting: list[Ticket] = []
        self.running: list[Slot] = []
        self.left_over: list[Slot] = []
        self.closed = False
        self.served_since: dict[str, list[str]] = {}  # by an owner that waits and holds no slot

    @rule(owner=st.sampled_from("abc"), limit_s=st.sampled_from([1.0, 10.0, LONG]))
    def apply(self, owner: str, limit_s: float) -> None:
        try:
            ticket = self.admission.apply(deadline(self.clock, limit_s), owner)
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
        self.served_since.pop(ticket.tenant, None)
        self.admission.withdraw(ticket)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), helper_stays=st.booleans())
    def end(self, data: st.DataObject, helper_stays: bool) -> None:
        slot = data.draw(st.sampled_from(self.running))
        self.running.remove(slot)
        if helper_stays:
            slot.hold()
            slot.release_early()
            self.left_over.append(slot)
        slot.release()
        self.settle()

    @precondition(lambda self: self.left_over)
    @rule()
    def helper_ends(self) -> None:
        self.left_over.pop().release()
        self.settle()

    @rule(seconds=st.floats(0.0, 300.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.admission.serve()
        self.settle()

    @rule(rate=st.floats(0.1, 10.0), speaking=st.integers(1, MAX_TURNS))
    def speech_is_made(self, rate: float, speaking: int) -> None:
        report_speech(self.admission, rate, 1.0, speaking)
        self.settle()

    @rule()
    def stop(self) -> None:
        self.admission.stop_admission(ShuttingDown("bye"))
        self.closed = True
        self.settle()

    def has_room(self) -> bool:
        return (
            len(self.running) < self.MAX_TURNS
            and len(self.left_over) < MAX_ORPHANS * self.MAX_TURNS
            and self.admission.playback.allows(len(self.running) + 1)
        )

    def settle(self) -> None:
        """Take note of who has been admitted, in that order, and of who has been refused."""
        for slot in self.admission._slots:
            if slot not in self.running:
                self.running.append(slot)
                self.check_round(slot.tenant)
        self.waiting = [ticket for ticket in self.waiting if not ticket.granted.done()]
        holding = {slot.tenant for slot in self.running}
        empty_handed = {ticket.tenant for ticket in self.waiting} - holding
        self.served_since = {owner: self.served_since.get(owner, []) for owner in empty_handed}

    def check_round(self, owner: str) -> None:
        """An owner that waits with empty hands sees no other owner served twice."""
        self.served_since.pop(owner, None)
        for seen in self.served_since.values():
            assert owner not in seen
            seen.append(owner)

    @invariant()
    def counts_agree(self) -> None:
        stats = self.admission.stats()
        assert stats.running == len(self.running) <= self.MAX_TURNS
        assert stats.waiting == len(self.waiting) <= self.MAX_WAITING
        assert stats.orphans == len(self.left_over)

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        assert not (self.waiting and self.has_room())
        assert not (self.waiting and self.closed)

    @invariant()
    def one_caller_is_always_admitted(self) -> None:
        if not self.running and not self.closed and len(self.left_over) < MAX_ORPHANS * self.MAX_TURNS:
            assert self.has_room()


TestAdmission = CallersComeAndGo.TestCase
TestAdmission.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_each_other_caller_needs_a_prebuffer_until_speech_is_fast() -> None:
    admission = Admission(4)
    slots = [admission.acquire(Context.after(60)) for _ in range(3)]
    report_speech(admission, 2.0 * SLOW_RATE, 1.0, speaking=1.0)  # alone it is fast enough
    assert slots[0].prebuffer_s == pytest.approx(2 * PREBUFFER_PER_CALLER_S)
    slots[2].release()
    assert slots[0].prebuffer_s == pytest.approx(PREBUFFER_PER_CALLER_S)
    report_speech(admission, 5.0 * UNBUFFERED_RATE, 5.0, speaking=2.0)
    assert slots[0].prebuffer_s == 0.0
    slots[1].release()
    assert slots[0].prebuffer_s == 0.0
    slots[0].release()


@pytest.mark.parametrize(("rate", "prebuffer_s"), [(0.99 * SLOW_RATE, SLOW_PREBUFFER_S), (SLOW_RATE, 0.0)])
def test_a_single_caller_gets_a_prebuffer_if_speech_is_slow(rate: float, prebuffer_s: float) -> None:
    admission = Admission(4)
    slot = admission.acquire(Context.after(60))
    assert slot.prebuffer_s == SLOW_PREBUFFER_S  # nothing is known
    report_speech(admission, rate, 1.0, speaking=1.0)
    assert slot.prebuffer_s == prebuffer_s
