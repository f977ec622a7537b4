"""The common parts of OpenAI's routes: the turn's slot, the upload, calls in a helper, and server-sent events."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

from flask import Response

from mirrorchat.concurrency.context import Context
from mirrorchat.engines import AnsweredBy, Language, Voice
from mirrorchat.server.form import LIST_FORM_PARTS, uploaded_file
from mirrorchat.server.runtime import acquire_slot, request_record, runtime
from mirrorchat.server.streams import StreamedTurn, event_stream, kept_alive
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.answer import NoWordsSentence, Texts
from mirrorchat.turn.events import Event, StartedOver, StillWorking, VoiceKnown
from mirrorchat.turn.helper_threads import TURN_OVER

DONE = b"data: [DONE]\n\n"

Item = TypeVar("Item")


@contextmanager
def admitted(*, turns: float = 1.0) -> Iterator[Slot]:
    """Wait for a slot and hold it for the block. Helpers that still run after the block hold it, too.

    The deadline is `turns` times that of one turn.
    """
    with acquire_slot(Context.after(turns * runtime().settings.turn_deadline_s)) as slot:
        try:
            yield slot
        except BaseException:
            slot.release_early()  # a helper may be in a native call that nothing can interrupt
            raise


def uploaded(*names: str) -> bytes:
    """Return the file in the first of the form's fields `names` that is present. Raises as `uploaded_file` does."""
    return uploaded_file(*names, max_parts=LIST_FORM_PARTS)


def in_helper(slot: Slot, call: Callable[[], Item]) -> Item:
    """Return the result of `call` in a helper. Raises its errors, and the reason if the slot's context ends."""
    return runtime().pipeline.helpers.result(slot, call)


def streamed_turn(slot: Slot, events: Generator[Item]) -> StreamedTurn[Item]:
    """Return the present request's turn with its last `events`: its slot is free when they end."""

    def until_free() -> Generator[Item]:
        try:
            yield from events
        finally:
            slot.context.cancel(TURN_OVER)
            slot.release_early()

    return StreamedTurn(until_free(), slot)


def spoken_turn(
    texts: Texts,
    voice: Callable[[], Voice],
    language: Language,
    slot: Slot,
    *,
    no_words: NoWordsSentence,
    options: SpeechOptions = NO_OPTIONS,
) -> StreamedTurn[Event]:
    """Return a turn of the present request that speaks `texts` in `voice`. The rest is as for Pipeline.speak."""
    pipeline, watch = runtime().pipeline, request_record().watch
    events = pipeline.speak(texts, voice, language, slot, watch=watch, no_words=no_words, options=options)
    return streamed_turn(slot, events)


def from_first(turn: StreamedTurn[Any], items: Iterator[Any]) -> Iterator[Any]:
    """Wait for the first item of the answer, or until the model thinks, and return all items from there on.

    From then on the answer counts as heard, and only helpers hold the turn's slot. Raises the error that ends the turn
    before, which the response can report with an HTTP status.
    """
    for item in items:
        if not isinstance(item, StillWorking | StartedOver | VoiceKnown | AnsweredBy):
            turn.sending()
            return chain((item,), items)
    return iter(())


def sse(data: Mapping[str, object]) -> bytes:
    """Return an event as OpenAI's API sends it, in ASCII, since a text may hold half a surrogate pair."""
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
    """Return a response of server-sent events.

    Arguments:
        turn: the turn, which the response frees.
        items: the results of the turn.
        write: returns the events of one item.
        end: returns the events after the last item.
        begin: returns the events before the first item.
        close: the response calls it at its end.

    An error that ends the turn becomes the last event.
    """

    def events() -> Iterator[bytes]:
        yield from begin()
        yield from kept_alive(items, write)
        yield from end()

    response = event_stream(turn, events(), lambda reason: sse(dict(reason.body())))
    response.call_on_close(close)
    return response
