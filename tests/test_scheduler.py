"""Admission: a bounded number of places, freed by the last holder, and a way to end all."""

import threading

import pytest

from mirrorchat.engines import Deadline
from mirrorchat.errors import ServerBusy, ShuttingDown
from mirrorchat.scheduler import Scheduler


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
    assert scheduler.running == 0


def test_a_place_is_freed_by_an_error() -> None:
    scheduler = Scheduler(1)
    with pytest.raises(RuntimeError), scheduler.enter(Deadline.after(1)):
        raise RuntimeError
    assert scheduler.running == 0


def test_ending_all_tells_every_turn_why_and_admits_nobody() -> None:
    scheduler = Scheduler(2)
    first, second = scheduler.enter(Deadline.after(1)), scheduler.enter(Deadline.after(1))
    reason = ShuttingDown("bye")
    scheduler.end_all(reason)
    for place in (first, second):
        with pytest.raises(ShuttingDown) as caught:
            place.cancel.check()
        assert caught.value is reason
    first.release()
    with pytest.raises(ShuttingDown):
        scheduler.enter(Deadline.after(1))


def test_many_threads_never_pass_the_bound() -> None:
    scheduler = Scheduler(3)
    seen: list[int] = []
    refused: list[ServerBusy] = []
    start = threading.Barrier(12)

    def visit() -> None:
        start.wait()
        for _ in range(200):
            try:
                with scheduler.enter(Deadline.after(1)):
                    seen.append(scheduler.running)
            except ServerBusy as error:
                refused.append(error)

    threads = [threading.Thread(target=visit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen and max(seen) <= 3
    assert len(seen) + len(refused) == 12 * 200
    assert scheduler.running == 0


def test_a_turn_whose_place_is_free_already_is_ended_too() -> None:
    scheduler = Scheduler(1)
    place = scheduler.enter(Deadline.after(5))
    place.release()
    assert scheduler.running == 0
    scheduler.end_all(ShuttingDown("bye"))  # its speech may still be on the way to a slow reader
    with pytest.raises(ShuttingDown):
        place.cancel.check()
