"""Who has the model next."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mirrorchat.engines import Cancel, Deadline, Priority
from mirrorchat.xtts_turns import Turnstile


def test_first_sentences_go_before_later_ones() -> None:
    turnstile = Turnstile()
    order: list[str] = []

    def pass_through(name: str, priority: Priority) -> None:
        with turnstile.turn(priority, Deadline.after(600.0), Cancel()):
            order.append(name)

    calls = [("later", Priority.LATER), ("first", Priority.FIRST), ("first too", Priority.FIRST)]
    with ThreadPoolExecutor(3) as pool, turnstile.turn(Priority.LATER, Deadline.after(600.0), Cancel()):
        for count, call in enumerate(calls, start=1):
            pool.submit(pass_through, *call)
            wait_until(lambda count=count: len(turnstile._waiting) == count)  # type: ignore[misc]
    assert order == ["first", "first too", "later"]


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)
