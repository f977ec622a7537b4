"""Helper threads: what the turn's thread hears of them."""

from concurrent.futures import Future
from typing import Any

import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import NoWords
from mirrorchat.turn.admission import Admission
from mirrorchat.turn.events import StillWorking
from mirrorchat.turn.helper_threads import EventQueue, HelperThreads, still_working


def test_a_helper_that_ends_just_after_the_wait_has_its_result_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    helper: Future[str] = Future()

    class Late(Context):
        def wait(self, source: Any, *arguments: Any, **options: Any) -> Any:
            helper.set_result("the result")
            raise TimeoutError

    waiting = still_working(helper, Late())
    with pytest.raises(StopIteration) as end:
        next(waiting)
    assert end.value.value == "the result"


def test_what_a_helper_makes_comes_in_order_and_its_error_last() -> None:
    helpers, admission = HelperThreads(2, 1), Admission(1)

    def make(context: Context) -> Any:
        yield from ("a", "b")
        raise NoWords("nothing was said")

    with admission.acquire(Context.after(30.0)) as slot:
        found = []
        with pytest.raises(NoWords):
            for item in helpers.stream(slot, make):
                found.append(item)
    assert found == ["a", "b"]
    helpers.close()


def test_silence_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrorchat.turn.helper_threads.KEEP_ALIVE_S", 0.02)
    events: EventQueue[str] = EventQueue(Context.after(30.0))
    iterator = iter(events)
    assert isinstance(next(iterator), StillWorking)
    events.put("text")
    assert next(iterator) == "text"
    events.end()
    assert list(iterator) == []
