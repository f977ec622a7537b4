"""Answers that are sent while they are spoken: as one stream of audio, or as server-sent events.

The engines never wait until the caller reads. A turn releases its slot as soon as the engines have finished; the rest
of the answer is then in memory (turn.answer.UNHEARD_LIMIT_S bounds it), and the connection of a caller who does not
read it is closed. Example:

    turn = StreamedTurn(pipeline.run_turn(question, slot, watch=watch), slot, session=session)
    with turn.freed_on_error():
        response, reader = audio_stream(turn, ENCODERS["wav"])  # the response frees the turn from here on
"""

import base64
import errno
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from flask import Response

from mirrorchat.audio.encoders import ENCODERS, Encoder
from mirrorchat.audio.samples import Audio, Samples, pcm16_bytes
from mirrorchat.engines import AnsweredBy, AnswerEnded, EngineInfo, Thinking, Transcript
from mirrorchat.errors import ClientGone, MirrorChatError, as_mirrorchat_error
from mirrorchat.pipeline import Question
from mirrorchat.server.answers import (
    RequestedFormat,
    describe,
    describe_engines,
    engines_json,
    engines_used,
    session_json,
    timings_json,
    unspoken_json,
    voice_json,
)
from mirrorchat.server.runtime import request_record, runtime
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.events import (
    Done,
    Event,
    SentenceFailed,
    SpokenAudio,
    StartedOver,
    StillWorking,
    TextDelta,
    Timings,
    VoiceKnown,
)
from mirrorchat.turn.reader import AnswerReader
from mirrorchat.turn.sessions import Session

GREETING = b": MirrorChat\n\n"  # a comment that sends the headers before the first event
KEEP_ALIVE = b": still working\n\n"

Item = TypeVar("Item")  # of a turn: an event, a chunk or a text
EnginesUsed = Callable[[AnswerReader], Mapping[str, EngineInfo]]  # by stage


class BrokenOff(ConnectionResetError):
    """Ends a transfer without its terminating chunk: the server handles it as a lost connection."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the answer broke off")


class StreamedTurn(Generic[Item]):
    """The present request's turn while its `events` are sent. It holds its slot and its session until it is freed."""

    def __init__(self, events: Generator[Item], slot: Slot, session: Session | None = None) -> None:
        self.events = events
        self.session = session
        self._record = request_record()
        self._context = slot.context
        if self._record.caller is not None:
            self._record.caller.pace()
        slot.hold()
        self._slot: Slot | None = slot

    def send(self, data: bytes) -> Iterator[bytes]:
        """Yield `data`, which the caller must read in time."""
        yield data
        self._record.bytes_out += len(data)

    def heard(self) -> None:
        """Note that the caller gets a part of the answer, which cannot start over from now on."""
        self._context.heard = True

    def sending(self) -> None:
        """Note that the answer is sent from now on: it counts as heard, and only the helpers hold the slot."""
        self.heard()
        self.release_slot()

    def release_slot(self) -> None:
        """Stop holding the slot, so that a slow reader does not occupy it; only the helpers still hold it."""
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def ended(self, reason: MirrorChatError | None = None) -> None:
        """Note the end of the turn, with the error that ended it, if any. The first call counts."""
        self._record.finished(reason)

    def free(self) -> None:
        """End the turn's work, close its session, and release its slot."""
        self.events.close()
        if self.session is not None:
            self.session.close()
        self.release_slot()

    def close(self) -> None:
        """Free the turn at the end of its response, whatever ended it."""
        self.free()
        self.ended(ClientGone("the answer was not read"))
        if self._record.caller is not None and self._record.caller.expired:
            self._record.note = "not_read_in_time"

    @contextmanager
    def freed_on_error(self) -> Iterator[None]:
        """Free the turn when the block raises: then no response will do it."""
        try:
            yield
        except BaseException:
            self.free()
            raise


def stream_answer(requested: RequestedFormat, question: Question, slot: Slot) -> Response:
    """Return a response that sends the answer to `question` while it is spoken; the response holds `slot`, too.

    A stream of audio is returned when its first piece exists; the error of a turn that ends before is raised. A stream
    of events is returned at once.
    """
    pipeline, watch = runtime().pipeline, request_record().watch
    turn = StreamedTurn(pipeline.run_turn(question, slot, watch=watch), slot, question.session)
    engines = partial(engines_used, question, pipeline.engines.infos())
    with turn.freed_on_error():
        if requested.format == "sse":
            turn.heard()  # the caller gets the text at once
            reader = AnswerReader(turn.events)
            response = event_stream(turn, _events(turn, reader, engines), lambda reason: _sse("error", reason.body()))
        else:
            response, reader = audio_stream(turn, ENCODERS[requested.format])
            describe(response, reader, watch.timings(), whole=False)
        describe_engines(response, engines(reader))
        return response


def _sent(turn: StreamedTurn[Item], body: Iterator[bytes], content_type: str) -> Response:
    """Return the response that sends `body` and frees `turn` at its end, even if nobody reads the body."""
    response = Response(body, content_type=content_type)
    response.headers["X-Accel-Buffering"] = "no"  # nginx would delay small pieces
    response.call_on_close(turn.close)
    return response


# Audio


def audio_stream(turn: StreamedTurn[Event], encoder_at: Callable[[int], Encoder]) -> tuple[Response, AnswerReader]:
    """Return a response with the speech of `turn`, and the reader with the transcript, voice and text so far.

    `encoder_at` makes the encoder for a sample rate. Raises the error that ends the turn before the first audio.
    """
    reader, first = first_audio(turn)
    encoder = encoder_at(first.sample_rate)
    response = _sent(turn, _audio_body(turn, reader, encoder, first.samples), encoder.content_type)
    response.headers["X-MirrorChat-Sample-Rate"] = str(first.sample_rate)
    return response, reader


def first_audio(turn: StreamedTurn[Event]) -> tuple[AnswerReader, Audio]:
    """Read the events of `turn` up to the first audio. Return the reader and the audio.

    From then on the answer counts as heard, and only the helpers hold the turn's slot. Raises the error that ends the
    turn before.
    """
    reader = AnswerReader(turn.events)
    audio = reader.first_audio()
    turn.sending()
    return reader, audio


def _audio_body(turn: StreamedTurn[Event], reader: AnswerReader, encoder: Encoder, first: Samples) -> Iterator[bytes]:
    """Yield the answer's bytes. Raises BrokenOff for any error: a stream of audio cannot say it in another way."""
    try:
        yield from turn.send(encoder.start() + encoder.encode(first))
        for event in reader.complete():
            if isinstance(event, StartedOver):
                raise event.reason
            if isinstance(event, SpokenAudio):
                yield from turn.send(encoder.encode(event.audio.samples))
        yield from turn.send(encoder.finish())
        turn.ended()
    except Exception as error:
        turn.ended(as_mirrorchat_error(error))
        raise BrokenOff from None
    finally:
        encoder.close()


# Events


def event_stream(
    turn: StreamedTurn[Item], events: Iterator[bytes], as_event: Callable[[MirrorChatError], bytes]
) -> Response:
    """Return a response with server-sent `events`. An error that ends the turn becomes the last one, by `as_event`."""

    def body() -> Iterator[bytes]:
        try:
            for event in events:
                yield from turn.send(event)
            turn.ended()
        except Exception as error:
            reason = as_mirrorchat_error(error)
            turn.ended(reason)
            yield from turn.send(as_event(reason))

    return _sent(turn, body(), "text/event-stream; charset=utf-8")


def kept_alive(items: Iterable[Any], write: Callable[[Any], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield the bytes that `write` makes of each item, and comments that keep the connection alive.

    Raises the reason if the answer starts over: the caller has got a part of it.
    """
    for item in items:
        if isinstance(item, StartedOver):
            raise item.reason
        if isinstance(item, StillWorking):
            yield KEEP_ALIVE
        else:
            yield from write(item)


def _events(turn: StreamedTurn[Event], reader: AnswerReader, engines: EnginesUsed) -> Iterator[bytes]:
    """Yield the events of an answer as server-sent events."""
    thinks = False

    def write(event: Event) -> Iterator[bytes]:
        nonlocal thinks
        if isinstance(event, VoiceKnown | TextDelta):
            turn.release_slot()
        if isinstance(event, StillWorking):
            yield KEEP_ALIVE
        elif isinstance(event, Done):
            yield _done(event, reader, turn, engines)
        elif isinstance(event, Thinking):
            yield KEEP_ALIVE if thinks else _sse("thinking", {})
            thinks = True
        elif not isinstance(event, AnsweredBy | AnswerEnded):  # both are in the last event
            yield _written(event)

    yield GREETING
    for event in reader:
        yield from write(event)


def _done(event: Done, reader: AnswerReader, turn: StreamedTurn[Event], engines: EnginesUsed) -> bytes:
    """Return the last event, with the whole reply."""
    data: dict[str, object] = {
        "reply": reader.reply,
        "finish_reason": reader.finish_reason,
        "voice": voice_json(event.voice),
        "engines": engines_json(engines(reader)),
    }
    return _sse("done", data | (session_json(turn.session.id, event.quality) if turn.session is not None else {}))


def _written(event: Event) -> bytes:
    """Return one event as a server-sent event."""
    match event:
        case Transcript(text=text, language=language):
            return _sse("transcript", {"text": text, "language": language})
        case VoiceKnown(voice=voice):
            return _sse("voice", voice_json(voice))
        case TextDelta(text=text):
            return _sse("text", {"delta": text})
        case SpokenAudio(index=index, sentence=sentence, audio=audio):
            return _sse("audio", {"index": index, "sentence": sentence} | _pcm_json(audio))
        case SentenceFailed():
            return _sse("sentence_failed", unspoken_json(event))
        case StartedOver():
            return _sse("started_over", {})
        case Timings():
            return _sse("timings", timings_json(event))
    raise TypeError(f"{type(event).__name__} is never sent")


def _pcm_json(audio: Audio) -> dict[str, object]:
    pcm = pcm16_bytes(audio.samples)
    return {"format": "pcm_s16le", "sample_rate": audio.sample_rate, "audio": base64.b64encode(pcm).decode()}


def _sse(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
