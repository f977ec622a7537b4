"""A turn's context: what ends it, and waits that end with it at once."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone, DeadlineExceeded, ShuttingDown

GONE = ClientGone("the caller hung up")
LONG_S = 30.0


def waits() -> list[Callable[[Context], Any]]:
    """Return a wait for each kind of source; nothing ever comes."""
    changed = threading.Condition()
    return [
        lambda context: context.wait(queue.Queue[int]()),
        lambda context: context.wait(Future[int]()),
        lambda context: context.wait(changed, lambda: False),
    ]


@pytest.mark.parametrize("wait", waits())
def test_a_cancellation_wakes_the_waiting_thread(wait: Callable[[Context], Any]) -> None:
    context = Context.after(LONG_S)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, context)
        while not context._calls and not waiting.done():  # until it waits
            time.sleep(0.001)
        context.cancel(GONE)
        with pytest.raises(ClientGone):
            waiting.result(LONG_S / 2)
    assert not context._calls  # nothing is left of the wait


@pytest.mark.parametrize("wait", waits())
def test_the_deadline_ends_a_wait(wait: Callable[[Context], Any]) -> None:
    with pytest.raises(DeadlineExceeded):
        wait(Context.after(0.05))


@pytest.mark.parametrize("wait", waits())
def test_what_is_cancelled_already_does_not_wait(wait: Callable[[Context], Any]) -> None:
    context = Context()
    context.cancel(GONE)
    with pytest.raises(ClientGone):
        wait(context)


@pytest.mark.parametrize("wait", [0, 1, 2])
def test_a_timeout_is_not_the_deadline(wait: int) -> None:
    changed = threading.Condition()
    with pytest.raises(TimeoutError):
        if wait == 0:
            Context().wait(queue.Queue[int](), timeout_s=0.02)
        elif wait == 1:
            Context().wait(Future[int](), timeout_s=0.02)
        else:
            Context.after(LONG_S).wait(changed, lambda: False, timeout_s=0.02)


def test_what_comes_is_returned() -> None:
    context = Context.after(LONG_S)
    numbers: queue.Queue[int] = queue.Queue()
    result: Future[str] = Future()

    def come() -> None:
        numbers.put(1)
        result.set_result("done")

    timer = threading.Timer(0.05, come)
    timer.start()
    assert context.wait(numbers) == 1
    assert context.wait(result) == "done"
    timer.join()


def test_what_a_future_raises_is_raised() -> None:
    failed: Future[int] = Future()
    failed.set_exception(ShuttingDown("bye"))
    with pytest.raises(ShuttingDown):
        Context().wait(failed)


def test_what_is_there_is_returned_after_the_deadline_and_not_after_the_cancellation() -> None:
    numbers: queue.Queue[int] = queue.Queue()
    numbers.put(1)
    numbers.put(2)
    late = Context.after(0.0)
    assert late.wait(numbers) == 1
    late.cancel(GONE)
    with pytest.raises(ClientGone):
        late.wait(numbers)


def test_each_item_of_a_queue_goes_to_one_waiting_thread() -> None:
    context, numbers = Context.after(LONG_S), queue.Queue[int]()
    with ThreadPoolExecutor(8) as pool:
        taken = [pool.submit(context.wait, numbers) for _ in range(200)]
        for number in range(200):
            numbers.put(number)
        assert sorted(each.result() for each in taken) == list(range(200))


def test_a_child_ends_with_its_parent_and_may_end_before() -> None:
    parent = Context.after(LONG_S)
    first, second = parent.child(), parent.child()
    assert first.deadline == parent.deadline
    first.cancel(ClientGone("the part is over"))
    parent.check()
    second.check()
    parent.cancel(GONE)
    for context, words in ((first, "the part is over"), (second, "hung up"), (parent.child(), "hung up")):
        with pytest.raises(ClientGone, match=words):
            context.check()


def test_only_the_first_reason_counts_and_is_raised_as_a_copy() -> None:
    context, reasons = Context(), list[object]()
    context.on_cancel(reasons.append)
    context.cancel(GONE)
    context.cancel(ShuttingDown("bye"))
    with pytest.raises(ClientGone) as caught:
        context.check()
    assert caught.value is not GONE and GONE.__traceback__ is None
    assert reasons == [GONE] and context.is_over


def test_a_call_that_was_undone_is_not_made() -> None:
    context, reasons = Context(), list[object]()
    undo = context.on_cancel(reasons.append)
    undo()
    context.cancel(GONE)
    assert not reasons
    context.on_cancel(reasons.append)  # after the cancellation: at once
    assert reasons == [GONE]


def test_without_a_deadline_nothing_is_over() -> None:
    context = Context()
    context.check()
    assert not context.is_over and context.remaining_s() == float("inf")
    assert Context.after(0.0).is_over


def test_a_call_that_fails_keeps_no_other_from_being_made() -> None:
    context, reasons = Context(), list[object]()

    def fail(_: object) -> None:
        raise RuntimeError("a defect")

    context.on_cancel(fail)
    context.on_cancel(reasons.append)
    context.cancel(GONE)
    assert reasons == [GONE]


def test_a_child_that_has_ended_is_forgotten_by_its_parent() -> None:
    parent = Context()
    for _ in range(10):
        parent.child().cancel(ClientGone("the part is over"))
    assert not parent._calls
