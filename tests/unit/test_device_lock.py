"""The lock of engines that share a GPU is acquired in the order of the requests."""

import threading
import time

import pytest

from mirrorchat.concurrency.device_lock import DeviceLock


def wait_for_turns(lock: DeviceLock, count: int) -> None:
    """Wait until `count` threads hold the lock or wait for it."""
    limit = time.monotonic() + 20
    while len(lock._turns) != count:
        assert time.monotonic() < limit
        time.sleep(0.002)


def test_threads_enter_one_at_a_time_in_their_order() -> None:
    lock, order, inside = DeviceLock(), list[int](), list[int]()

    def step(number: int) -> None:
        with lock:
            inside.append(number)
            order.append(number)
            assert inside == [number]
            inside.clear()

    threads = [threading.Thread(target=step, args=(number,)) for number in range(8)]
    with lock:
        for waiting, thread in enumerate(threads):
            thread.start()
            wait_for_turns(lock, waiting + 2)
        assert order == []
    for thread in threads:
        thread.join(20)
    assert order == list(range(8))


def test_a_thread_that_steps_without_pause_lets_another_in() -> None:
    lock, order = DeviceLock(), list[str]()

    def other() -> None:
        with lock:
            order.append("other")

    thread = threading.Thread(target=other)
    with lock:
        thread.start()
        wait_for_turns(lock, 2)
    for _ in range(3):  # with a threading.Lock this thread, which still runs, would get all steps
        with lock:
            order.append("busy")
    thread.join(20)
    assert order == ["other", "busy", "busy", "busy"]


def test_an_error_releases_the_lock() -> None:
    lock = DeviceLock()
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError("a step failed")
    with lock:
        wait_for_turns(lock, 1)
