"""What every request of OpenAI's API shares: its deadline and slot, work done by a helper, server-sent events."""

import json
import queue
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from flask import Response, request

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Cancel, Deadline, Language, Voice
from mirrorchat.errors import ClientGone, MissingField
from mirrorchat.pipeline import EVENT_LIMIT, KEEP_ALIVE_S, POLL_S, TURN_OVER, Pipeline, Texts
from mirrorchat.server.form import LIST_FORM_PARTS, decode_upload
from mirrorchat.server.runtime import acquire_slot, request_record, runtime
from mirrorchat.server.socket_watch import hung_up, upload_deadline
from mirrorchat.server.streams import KEEP_ALIVE, StreamedTurn, as_mirrorchat_error
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.events import Error, Event, SentenceFailed, StillWorking
from mirrorchat.turn.stopwatch import Stopwatch

DONE = b"data: [DONE]\n\n"

Made = TypeVar("Made")


@contextmanager
def admitted(*, turns: float = 1.0) -> Iterator[Slot]:
    """Wait for a slot and hold it; when the block ends, nothing is left of it but what has taken hold of it itself.

    `turns`: how many times the time of a turn the work may take.
    """
    deadline = Deadline.after(turns * runtime().settings.turn_deadline_s)
    request_record().watch = Stopwatch()
    with acquire_slot(deadline) as slot:
        try:
            yield slot
        except BaseException:
            slot.release_early()  # a helper may be in a native call that nothing can interrupt
            raise


def watch() -> Stopwatch:
    """Return the present request's stopwatch. Called after `admitted`."""
    kept = request_record().watch
    assert kept is not None, "admitted() sets it"
    return kept


def uploaded(*names: str) -> bytes:
    """Return the file in the first of the form's fields `names` that is there. Raises MissingField."""
    request.max_form_parts = LIST_FORM_PARTS
    with upload_deadline(request.environ):
        for name in names:
            if name in request.files:
                data: bytes = request.files[name].read()
                return data
    wanted = "send a recording as a file (multipart/form-data)"
    raise MissingField(f"the field {names[0]} is missing: {wanted}", param=names[0])


def decoded(data: bytes, param: str) -> Audio:
    """Return the speech in `data`; an error names the field `param`."""
    return decode_upload(data, param, watch())


def worked(
    pipeline: Pipeline,
    slot: Slot,
    make: Callable[[Cancel], Iterator[Made]],
    caller_gone: Callable[[], bool],
) -> Generator[Made | StillWorking]:
    """Yield what `make` gives, in a helper, as it comes; now and then that it still works.

    Raises what `make` raises, and what ends a turn from outside: its deadline, a shutdown, a caller who hung up. Then,
    and when the generator is closed, the cancel switch that `make` was given is set.
    """
    cancel = Cancel()
    made: queue.Queue[Made | Exception | None] = queue.Queue(EVENT_LIMIT)
    pipeline.submit(slot, partial(_report, make, cancel, made))
    try:
        while True:
            item = yield from _next(made, slot, caller_gone)
            if item is None:
                return
            yield item
    finally:
        cancel.set(TURN_OVER)


def last_worked(
    pipeline: Pipeline,
    slot: Slot,
    make: Callable[[Cancel], Iterator[Made]],
    caller_gone: Callable[[], bool],
) -> Generator[Made | StillWorking]:
    """Yield what `worked` does, as the last work of a turn: its slot is then free, whatever a helper is still at."""
    try:
        yield from worked(pipeline, slot, make, caller_gone)
    finally:
        slot.release_early()


def _report(
    make: Callable[[Cancel], Iterator[Made]], cancel: Cancel, made: "queue.Queue[Made | Exception | None]"
) -> None:
    try:
        for item in make(cancel):
            made.put_nowait(item)
        made.put_nowait(None)
    except Exception as error:
        with suppress(queue.Full):
            made.put_nowait(error)


def _next(
    made: "queue.Queue[Made | Exception | None]", slot: Slot, caller_gone: Callable[[], bool]
) -> Generator[StillWorking, None, Made | None]:
    waits = 0
    while True:
        slot.cancel.check()
        if caller_gone():
            raise ClientGone("the caller hung up")
        try:
            item = made.get(timeout=POLL_S)
        except queue.Empty:
            slot.deadline.check()
            waits += 1
            if waits * POLL_S >= KEEP_ALIVE_S:
                yield StillWorking()
                waits = 0
            continue
        if isinstance(item, Exception):
            raise item
        return item


def one(slot: Slot, make: Callable[[Cancel], Made]) -> Made:
    """Return what `make` returns, in a helper. Raises as `worked` does."""

    def once(cancel: Cancel) -> Iterator[Made]:
        yield make(cancel)

    items = worked(runtime().pipeline, slot, once, hung_up(request.environ))
    try:
        return next(item for item in items if not isinstance(item, StillWorking))
    finally:
        items.close()


def spoken_turn(texts: Texts, voice: Callable[[], Voice], language: Language, slot: Slot) -> StreamedTurn[Event]:
    """Return a turn for the present request that speaks `texts` in `voice`."""
    pipeline, stopwatch, caller_gone = runtime().pipeline, watch(), hung_up(request.environ)
    return StreamedTurn(
        lambda heard: pipeline.speak(
            texts, voice, language, slot, watch=stopwatch, heard=heard, caller_gone=caller_gone
        ),
        slot,
        stopwatch,
        request.environ,
        request_record(),
    )


@contextmanager
def freed_on_error(turn: StreamedTurn[Any]) -> Iterator[None]:
    """Free `turn` when the block raises: then there is no response that would."""
    try:
        yield
    except BaseException:
        turn.free()
        raise


def first_event(turn: StreamedTurn[Any]) -> Iterator[Any]:
    """Return the first thing that a turn says, as an iterator of it, or of nothing where it says nothing.

    Raises what ends the turn before: so it has a status of its own. From then on helpers alone hold its slot.
    """
    for event in turn.events:
        if isinstance(event, Error | SentenceFailed):
            raise event.reason
        if not isinstance(event, StillWorking):
            turn.heard = True
            turn.leave()
            return iter((event,))
    return iter(())


def sse(data: Mapping[str, object]) -> bytes:
    """Return an event as OpenAI's API sends it. ASCII only: half a surrogate pair may be in it."""
    return f"data: {json.dumps(data)}\n\n".encode()


def event_response(
    turn: StreamedTurn[Any],
    said: Callable[[Any], Iterator[bytes]],
    end: Callable[[], Iterator[bytes]],
    *,
    begin: Callable[[], Iterator[bytes]] = lambda: iter(()),
    close: Callable[[], None] = lambda: None,
) -> Response:
    """Return a response of server-sent events: what `begin` gives, `said` makes of each of the turn's, `end` gives.

    Whatever ends the turn is an event too. The response frees the turn, and calls `close`.
    """

    def body() -> Iterator[bytes]:
        try:
            for data in _events(turn, said, begin, end):
                yield from turn.send(data)
            turn.ended()
        except Exception as error:
            reason = as_mirrorchat_error(error)
            turn.ended(reason)
            yield from turn.send(sse(dict(reason.body())))

    response = Response(body(), content_type="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold small pieces back
    response.call_on_close(turn.close)
    response.call_on_close(close)
    return response


def _events(
    turn: StreamedTurn[Any],
    said: Callable[[Any], Iterator[bytes]],
    begin: Callable[[], Iterator[bytes]],
    end: Callable[[], Iterator[bytes]],
) -> Iterator[bytes]:
    yield from begin()
    for event in turn.events:
        if isinstance(event, StillWorking):
            yield KEEP_ALIVE
        else:
            yield from said(event)
    yield from end()
