"""Answers that are sent while they are spoken: as one stream of audio, or as server-sent events.

The engines never wait for the caller to read. A turn releases its slot as soon as they have done their part; what is
left to send then is in memory (bounded by turn.answer.UNHEARD_LIMIT_S), and a caller who does not fetch it is cut off.
"""

import base64
import errno
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from flask import Response

from mirrorchat.audio.encoders import ENCODERS, Encoder
from mirrorchat.audio.samples import Audio, Samples, pcm16_bytes
from mirrorchat.engines import EngineInfo, Transcript
from mirrorchat.errors import ClientGone, MirrorChatError, as_mirrorchat_error
from mirrorchat.pipeline import Pipeline, Question
from mirrorchat.server.answers import (
    AnswerMetadata,
    RequestedFormat,
    describe,
    describe_engines,
    engines_json,
    engines_used,
    session_json,
    timings_json,
    voice_json,
)
from mirrorchat.server.request_record import RequestRecord
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
from mirrorchat.turn.stopwatch import Stopwatch

WRITE_BYTES = 65_536  # in one write, which has SEND_DEADLINE_S: 1.4 s of wav
GREETING = b": MirrorChat\n\n"  # a comment: sends the headers off before there is anything to say
KEEP_ALIVE = b": still working\n\n"

Item = TypeVar("Item")  # what a turn yields


class BrokenOff(ConnectionResetError):
    """Ends a transfer without its terminating chunk: servers take it for a lost connection, and close theirs."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the answer broke off")


class StreamedTurn(Generic[Item]):
    """One turn that is being sent. It holds its slot and its `events` until it is freed."""

    def __init__(
        self,
        events: Generator[Item],
        slot: Slot,
        watch: Stopwatch,
        record: RequestRecord,
        *,
        session: Session | None = None,
    ) -> None:
        self.events = events
        self.watch = watch
        self.session = session
        self._record = record
        self._context = slot.context
        slot.hold()
        self._slot: Slot | None = slot

    def send(self, data: bytes) -> Iterator[bytes]:
        """Yield `data` in pieces, each of which the caller must take in time."""
        caller = self._record.caller
        for start in range(0, len(data), WRITE_BYTES):
            piece = data[start : start + WRITE_BYTES]
            if caller is not None:
                caller.begin_write()
            yield piece
            if caller is not None:
                caller.end_write()
            self._record.bytes_out += len(piece)

    def heard(self) -> None:
        """Note that the caller has some of the answer: it is not started over from here on."""
        self._context.heard = True

    def release_slot(self) -> None:
        """Release the slot: the helpers alone hold it from here on, so that a slow reader does not."""
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def ended(self, reason: MirrorChatError | None = None) -> None:
        """Note how the turn ended; the first note counts."""
        if reason is None:
            self._record.succeeded()
        else:
            self._record.failed(reason)

    def free(self) -> None:
        """End whatever still runs for the turn and free its slot."""
        self.events.close()
        if self.session is not None:
            self.session.close()
        self.release_slot()

    def close(self) -> None:
        """Free the turn: for the caller the response is over, however that came about."""
        self.free()
        self.ended(ClientGone("the answer was not read"))
        if self._record.caller is not None and self._record.caller.expired:
            self._record.note = "not_read_in_time"

    @contextmanager
    def freed_on_error(self) -> Iterator[None]:
        """Free the turn when the block raises: then there is no response that would."""
        try:
            yield
        except BaseException:
            self.free()
            raise


def stream_answer(
    requested: RequestedFormat,
    question: Question,
    slot: Slot,
    *,
    pipeline: Pipeline,
    watch: Stopwatch,
    record: RequestRecord,
) -> Response:
    """Return the answer to `question` as a response that is made while it is sent; it holds `slot` by itself.

    Audio is returned once its first piece exists: raises what ends the turn before. Events are returned at once.
    """
    events = pipeline.run_turn(question, slot, watch=watch)
    turn = StreamedTurn(events, slot, watch, record, session=question.session)
    used = engines_used(question, pipeline.engines.infos())
    with turn.freed_on_error():
        if requested.format == "sse":
            turn.heard()  # of its text
            response = event_stream(turn, _events(turn, used), lambda reason: _sse("error", reason.body()))
        else:
            response, reader = audio_stream(turn, ENCODERS[requested.format])
            timings = watch.timings()
            describe(response, AnswerMetadata(reader.transcript, reader.reply, False, reader.voice, timings))
        describe_engines(response, used)
        return response


def _sent(turn: StreamedTurn[Item], body: Iterator[bytes], content_type: str) -> Response:
    """Return the response that sends `turn` and frees it when it is over, also when nobody ever reads the body."""
    response = Response(body, content_type=content_type)
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold small pieces back
    response.call_on_close(turn.close)
    return response


# Audio


def audio_stream(turn: StreamedTurn[Event], encoder_at: Callable[[int], Encoder]) -> tuple[Response, AnswerReader]:
    """Return the speech of `turn` as one stream of audio, and the reader that knows what came before it.

    `encoder_at` makes the encoder for a sample rate. Raises what ends the turn before the first audio.
    """
    reader, first = first_audio(turn)
    encoder = encoder_at(first.sample_rate)
    response = _sent(turn, _audio_body(turn, reader, encoder, first.samples), encoder.content_type)
    response.headers["X-MirrorChat-Sample-Rate"] = str(first.sample_rate)
    return response, reader


def first_audio(turn: StreamedTurn[Event]) -> tuple[AnswerReader, Audio]:
    """Read up to the first audio, and return it. Raises what ends the turn before.

    From then on the answer counts as heard, and the helpers alone hold the turn's slot.
    """
    reader = AnswerReader(turn.events, whole=True)
    audio = reader.first_audio()
    turn.heard()
    turn.release_slot()
    return reader, audio


def _audio_body(turn: StreamedTurn[Event], reader: AnswerReader, encoder: Encoder, first: Samples) -> Iterator[bytes]:
    """Yield the answer's bytes. Raises BrokenOff at whatever is wrong: there is no other way to say it here."""
    try:
        yield from turn.send(encoder.start() + encoder.encode(first))
        for event in reader:
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
    """Return `events` as server-sent events. What ends the turn becomes the last one, written by `as_event`."""

    def body() -> Iterator[bytes]:
        try:
            for event in events:
                yield from turn.send(event)
            turn.ended()
        except Exception as error:
            reason = as_mirrorchat_error(error)
            turn.ended(reason)
            yield from turn.send(as_event(reason))

    return _sent(turn, body(), "text/event-stream")


def kept_alive(items: Iterable[Any], write: Callable[[Any], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield what `write` makes of each item, and comments that keep the connection alive."""
    for item in items:
        if isinstance(item, StillWorking | StartedOver):
            yield KEEP_ALIVE
        else:
            yield from write(item)


def _events(turn: StreamedTurn[Event], used: Mapping[str, EngineInfo]) -> Iterator[bytes]:
    """Yield the events of an answer as they are sent."""
    reader = AnswerReader(turn.events, whole=False)

    def write(event: Event) -> Iterator[bytes]:
        if isinstance(event, VoiceKnown | TextDelta):
            turn.release_slot()
        yield _done(event, reader, turn, used) if isinstance(event, Done) else _written(event)

    yield GREETING
    yield from kept_alive(reader, write)


def _done(event: Done, reader: AnswerReader, turn: StreamedTurn[Event], used: Mapping[str, EngineInfo]) -> bytes:
    """Return the last event, with the whole reply."""
    data: dict[str, object] = {"reply": reader.reply, "voice": voice_json(event.voice)}
    session = session_json(turn.session.id, event.quality) if turn.session is not None else {}
    return _sse("done", data | {"engines": engines_json(used)} | session)


def _written(event: Event) -> bytes:
    """Return one event as it is sent."""
    match event:
        case Transcript(text=text, language=language):
            return _sse("transcript", {"text": text, "language": language})
        case VoiceKnown(voice=voice):
            return _sse("voice", voice_json(voice))
        case TextDelta(text=text):
            return _sse("text", {"delta": text})
        case SpokenAudio(index=index, sentence=sentence, audio=audio):
            return _sse("audio", {"index": index, "sentence": sentence} | _pcm_json(audio))
        case SentenceFailed(index=index, sentence=sentence, reason=reason):
            return _sse("sentence_failed", {"index": index, "sentence": sentence} | reason.body())
        case Timings():
            return _sse("timings", timings_json(event))
    raise TypeError(f"{type(event).__name__} is never sent")


def _pcm_json(audio: Audio) -> dict[str, object]:
    pcm = pcm16_bytes(audio.samples)
    return {"format": "pcm_s16le", "sample_rate": audio.sample_rate, "audio": base64.b64encode(pcm).decode()}


def _sse(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
