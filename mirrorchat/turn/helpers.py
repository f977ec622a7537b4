"""Helpers: threads of one bounded pool that work for turns, and the queue in which a turn's thread hears of them.

The request's thread only waits. A deadline, a shutdown or a hang-up therefore ends the turn at once while a native call
still runs; its result is thrown away, and the turn's slot counts it as orphaned work until it ends.
"""

import queue
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone
from mirrorchat.turn.admission import MAX_ORPHANS, Slot
from mirrorchat.turn.events import StillWorking

KEEP_ALIVE_S = 2.0  # of silence, after which a turn says that it still works
EVENT_LIMIT = 50_000  # above what the longest answer (20,000 characters) can give; reached only by a defect
TURN_OVER = ClientGone("the turn is over")  # what helpers that outlive their turn are cancelled with; nobody sees it

Item = TypeVar("Item")
Result = TypeVar("Result")


class EventQueue(Generic[Item]):
    """Carries what helpers make to the thread of the turn."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue: queue.Queue[Item | Exception | None] = queue.Queue(EVENT_LIMIT)

    def put(self, item: Item) -> None:
        """Add an item, without waiting."""
        self._queue.put_nowait(item)

    def end(self, error: Exception | None = None) -> None:
        """End the iteration over the queue, with `error` if one is given."""
        with suppress(queue.Full):
            self._queue.put_nowait(error)

    def __iter__(self) -> Iterator[Item | StillWorking]:
        """Yield the items as they come, StillWorking after each KEEP_ALIVE_S of silence.

        Raises the error that a helper gave, and what ends the context. What has come is yielded even after the
        deadline: a slow listener may fetch what is there.
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


class Helpers:
    """A bounded pool of threads, `per_turn` of them for each of `max_turns`. Thread-safe."""

    def __init__(self, per_turn: int, max_turns: int) -> None:
        turns = (2 + MAX_ORPHANS) * max_turns  # those that run, and those that ended with work left over
        self._pool = ThreadPoolExecutor(per_turn * turns, thread_name_prefix="turn")

    def submit(self, slot: Slot, call: Callable[[], Result]) -> "Future[Result]":
        """Run `call` in the pool; `slot` is held until it has ended, however long a native call takes."""
        slot.hold()
        try:
            future = self._pool.submit(call)
        except BaseException:
            slot.release()
            raise
        future.add_done_callback(lambda _: slot.release())
        return future

    def result(self, slot: Slot, call: Callable[[], Result]) -> Result:
        """Return what `call` returns in a helper. Raises as `call` does, and what ends the slot's context."""
        return slot.context.wait(self.submit(slot, call))

    def stream(self, slot: Slot, make: Callable[[Context], Iterator[Item]]) -> Generator[Item | StillWorking]:
        """Yield what `make` yields in a helper, as it comes, and StillWorking.

        Raises as `make` does, and what ends the slot's context. When the generator ends or is closed, the context that
        `make` was given is cancelled.
        """
        context = slot.context.child()
        events: EventQueue[Item] = EventQueue(slot.context)

        def run() -> None:
            try:
                for item in make(context):
                    events.put(item)
                events.end()
            except Exception as error:
                events.end(error)

        self.submit(slot, run)
        try:
            yield from events
        finally:
            context.cancel(TURN_OVER)

    def close(self) -> None:
        """Start nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def still_working(helper: "Future[Result]", context: Context) -> Generator[StillWorking, None, Result]:
    """Return what `helper` returns, and yield StillWorking meanwhile. Raises as `helper` and `context.wait` do."""
    while True:
        try:
            return context.wait(helper, timeout_s=KEEP_ALIVE_S)
        except TimeoutError:
            if helper.done():  # it raised a TimeoutError of its own
                raise
            yield StillWorking()
