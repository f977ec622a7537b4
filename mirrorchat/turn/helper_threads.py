"""Helpers: threads of one bounded pool that work for turns, and the queue of their results for the turn's thread.

The request's thread only waits, apart from decoding the upload and encoding the answer. A deadline, a shutdown or a
hang-up therefore ends the turn at once while a helper's native call still runs; the call's result is discarded, and the
slot counts as an orphan until the call returns. A hang-up during decoding is noticed after it.
"""

import queue
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone
from mirrorchat.turn.admission import MAX_ORPHANS, Slot
from mirrorchat.turn.events import StillWorking

KEEP_ALIVE_S = 2.0  # without an event, after which StillWorking follows
EVENT_LIMIT = 50_000  # more than the longest answer (20,000 characters) has; only a defect reaches it
TURN_OVER = ClientGone("the turn is over")  # the reason that ends helpers which outlive their turn; nobody sees it

Item = TypeVar("Item")
Result = TypeVar("Result")


class EventQueue(Generic[Item]):
    """The queue from the helpers of a turn to the turn's thread.

    events: EventQueue[str] = EventQueue(context)
    events.put("text")  # in a helper, which calls events.end() after its last item
    for item in events: ...  # in the turn's thread
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue: queue.Queue[Item | Exception | None] = queue.Queue(EVENT_LIMIT)

    def put(self, item: Item) -> None:
        """Add an item without waiting."""
        self._queue.put_nowait(item)

    def end(self, error: Exception | None = None) -> None:
        """End the iteration over the queue; it raises `error` if one is given."""
        with suppress(queue.Full):
            self._queue.put_nowait(error)

    def run(self, work: Callable[[], object]) -> None:
        """Do the `work` of a helper, whose error ends the iteration."""
        try:
            work()
        except Exception as error:
            self.end(error)

    def __iter__(self) -> Iterator[Item | StillWorking]:
        """Yield the items as they arrive, and StillWorking after each KEEP_ALIVE_S without an item.

        Raises the error of `end`, and the reason if the context ends. Queued items are yielded even after the deadline,
        so that a slow reader gets them.
        """
        while True:
            try:
                item = self._context.wait(self._queue, timeout_s=KEEP_ALIVE_S)
            except TimeoutError:
                yield StillWorking()
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item


class HelperThreads:
    """A bounded pool of threads, `per_turn` of them for each of `max_turns`. Thread-safe."""

    def __init__(self, per_turn: int, max_turns: int) -> None:
        turns = (2 + MAX_ORPHANS) * max_turns  # those that run, and orphans
        self._pool = ThreadPoolExecutor(per_turn * turns, thread_name_prefix="turn")

    def submit(self, slot: Slot, call: Callable[[], Result]) -> "Future[Result]":
        """Run `call` in the pool and return its future. The helper holds `slot` until `call` returns or raises."""
        slot.hold()
        try:
            future = self._pool.submit(call)
        except BaseException:
            slot.release()
            raise
        future.add_done_callback(lambda _: slot.release())
        return future

    def result(self, slot: Slot, call: Callable[[], Result]) -> Result:
        """Return the result of `call` in a helper. Raises its errors, and the reason if the slot's context ends."""
        return slot.context.wait(self.submit(slot, call))

    def stream(self, slot: Slot, make: Callable[[Context], Iterator[Item]]) -> Generator[Item | StillWorking]:
        """Yield the items that `make` yields in a helper, and StillWorking.

        Arguments:
            slot: the turn; the helper holds the slot.
            make: returns the items. Its argument is a context, which ends when this generator ends or is closed.

        Raises:
            The errors of `make`, and the reason if the slot's context ends.
        """
        context = slot.context.child()
        events: EventQueue[Item] = EventQueue(slot.context)

        def work() -> None:
            for item in make(context):
                events.put(item)
            events.end()

        self.submit(slot, partial(events.run, work))
        try:
            yield from events
        finally:
            context.cancel(TURN_OVER)

    def close(self) -> None:
        """Start no more calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def still_working(helper: "Future[Result]", context: Context) -> Generator[StillWorking, None, Result]:
    """Return the result of `helper`; yield StillWorking meanwhile. Raises its error, or the reason of `context`."""
    while True:
        try:
            return context.wait(helper, timeout_s=KEEP_ALIVE_S)
        except TimeoutError:
            if helper.done():  # meanwhile, or with a TimeoutError of its own
                return helper.result()
            yield StillWorking()
