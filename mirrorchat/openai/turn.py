"""What every request of OpenAI's API shares: its deadline and slot, work done by a helper, server-sent events."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Response

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Voice
from mirrorchat.server.form import LIST_FORM_PARTS, decode_upload, uploaded_file
from mirrorchat.server.runtime import acquire_slot, request_record, runtime
from mirrorchat.server.streams import StreamedTurn, event_stream, kept_alive
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.answer import Texts
from mirrorchat.turn.events import Event, StartedOver, StillWorking
from mirrorchat.turn.stopwatch import Stopwatch

DONE = b"data: [DONE]\n\n"

Item = TypeVar("Item")


@contextmanager
def admitted(*, turns: float = 1.0) -> Iterator[Slot]:
    """Wait for a slot and hold it for the block; helpers that still run hold it for themselves.

    `turns`: how many times the time of a turn the work may take.
    """
    with acquire_slot(Context.after(turns * runtime().settings.turn_deadline_s)) as slot:
        try:
            yield slot
        except BaseException:
            slot.release_early()  # a helper may be in a native call that nothing can interrupt
            raise


def watch() -> Stopwatch:
    """Return the present request's stopwatch."""
    return request_record().watch


def uploaded(*names: str) -> bytes:
    """Return the file in the first of the form's fields `names` that is present. Raises as `uploaded_file` does."""
    return uploaded_file(*names, max_parts=LIST_FORM_PARTS)


def decoded(data: bytes, param: str) -> Audio:
    """Return the speech in `data`; an error names the field `param`."""
    return decode_upload(data, param, watch())


def in_helper(slot: Slot, call: Callable[[], Item]) -> Item:
    """Return what `call` returns in a helper. Raises what `call` raises and what ends the slot's context."""
    return runtime().pipeline.helpers.result(slot, call)


def streamed_turn(slot: Slot, events: Generator[Item]) -> StreamedTurn[Item]:
    """Return the present request's turn, whose last work makes `events`: the slot is free when they end."""

    def last() -> Generator[Item]:
        try:
            yield from events
        finally:
            slot.release_early()

    return StreamedTurn(last(), slot)


def spoken_turn(texts: Texts, voice: Callable[[], Voice], language: Language, slot: Slot) -> StreamedTurn[Event]:
    """Return a turn for the present request that speaks `texts` in `voice`."""
    return streamed_turn(slot, runtime().pipeline.speak(texts, voice, language, slot, watch=watch()))


def first_item(turn: StreamedTurn[Any], items: Iterator[Item | StillWorking | StartedOver]) -> Iterator[Item]:
    """Return the first item as an iterator over it, or over nothing where there is none.

    Raises what ends the turn before, which so gets an HTTP status of its own. From then on the answer counts as heard,
    and helpers alone hold the turn's slot.
    """
    for item in items:
        if not isinstance(item, StillWorking | StartedOver):
            turn.heard()
            turn.release_slot()
            return iter((item,))
    return iter(())


def sse(data: Mapping[str, object]) -> bytes:
    """Return an event as OpenAI's API sends it. ASCII only: half a surrogate pair may be in it."""
    return f"data: {json.dumps(data)}\n\n".encode()


def event_response(
    turn: StreamedTurn[Any],
    items: Iterator[Any],
    write: Callable[[Any], Iterator[bytes]],
    end: Callable[[], Iterator[bytes]],
    *,
    begin: Callable[[], Iterator[bytes]] = lambda: iter(()),
    close: Callable[[], None] = lambda: None,
) -> Response:
    """Return a response of server-sent events: those of `begin`, those that `write` makes of each item, those of `end`.

    What ends the turn becomes an event, too. The response frees the turn, and calls `close`.
    """

    def events() -> Iterator[bytes]:
        yield from begin()
        yield from kept_alive(items, write)
        yield from end()

    response = event_stream(turn, events(), lambda reason: sse(dict(reason.body())))
    response.call_on_close(close)
    return response
