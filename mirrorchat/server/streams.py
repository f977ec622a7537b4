"""Answers that are sent while they are spoken: as one stream of audio, or as server-sent events.

The engines never wait for the caller to read. A turn gives its slot back as soon as they have done their part; what is
left to send then is in memory (pipeline.UNHEARD_LIMIT_S bounds it), and SendWatch ends a caller who does not fetch it.
"""

import base64
import errno
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Generic, TypeVar

from flask import Response

from mirrorchat.audio.encoders import ENCODERS, Encoder
from mirrorchat.audio.samples import Audio, Samples, pcm16_bytes
from mirrorchat.engines import EngineInfo, Transcript, Voice, VoiceKind
from mirrorchat.errors import ClientGone, MirrorChatError, SynthesisFailed, log_unexpected
from mirrorchat.pipeline import Pipeline, Question
from mirrorchat.server.answers import (
    Facts,
    Wanted,
    describe,
    describe_engines,
    engines_json,
    engines_used,
    session_json,
    timings_json,
    voice_json,
)
from mirrorchat.server.request_record import RequestRecord
from mirrorchat.server.socket_watch import SendWatch, hung_up
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.events import (
    Done,
    Error,
    Event,
    SentenceFailed,
    SpokenAudio,
    StartedOver,
    TextDelta,
    Timings,
    VoiceKnown,
)
from mirrorchat.turn.sessions import Session
from mirrorchat.turn.stopwatch import Stopwatch

WRITE_BYTES = 65_536  # in one write, which has SEND_DEADLINE_S: 1.4 s of wav
GREETING = b": MirrorChat\n\n"  # a comment: sends the headers off before there is anything to say
KEEP_ALIVE = b": still working\n\n"


Said = TypeVar("Said")  # the events of a turn


class BrokenOff(ConnectionResetError):
    """Ends a transfer without its terminating chunk: servers take it for a lost connection, and close theirs."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the answer broke off")


def stream_answer(
    wanted: Wanted,
    question: Question,
    slot: Slot,
    *,
    pipeline: Pipeline,
    watch: Stopwatch,
    environ: Mapping[str, Any],
    record: RequestRecord,
) -> Response:
    """Return the answer to `question` as a response that is made while it is sent; it holds `slot` by itself.

    Audio is returned once its first piece exists: raises what ends the turn before. Events are returned at once.
    """
    turn = _QuestionTurn(question, slot, pipeline, watch, environ, record)
    try:
        response = _event_response(turn) if wanted.form == "sse" else _audio_response(turn, wanted.form)
        response.headers["X-Accel-Buffering"] = "no"  # nginx would hold small pieces back
        describe_engines(response, turn.used)
    except BaseException:
        turn.free()
        raise
    response.call_on_close(turn.close)  # also when nobody ever iterates over the body
    return response


class StreamedTurn(Generic[Said]):
    """One turn on its way out. Holds its slot, its events and the watch on the caller's socket until it is freed.

    `begin` gets a function that tells whether the caller has `heard` any of the answer, and gives the events.
    """

    def __init__(
        self,
        begin: Callable[[Callable[[], bool]], Generator[Said]],
        slot: Slot,
        watch: Stopwatch,
        environ: Mapping[str, Any],
        record: RequestRecord,
    ) -> None:
        self.watch = watch
        self.session: Session | None = None
        self.heard = False  # whether the caller has had any of the answer
        self.events = begin(lambda: self.heard)
        self._record = record
        self._sending = SendWatch(environ)
        slot.hold()
        self._place: Slot | None = slot

    def send(self, data: bytes) -> Iterator[bytes]:
        """Yield `data` in pieces, each of which the caller must take in time."""
        for start in range(0, len(data), WRITE_BYTES):
            piece = data[start : start + WRITE_BYTES]
            self._sending.begin()
            yield piece
            self._sending.end()
            self._record.bytes_out += len(piece)

    def leave(self) -> None:
        """Let go of the slot: the engines alone hold it from here on, so a slow reader does not."""
        if self._place is not None:
            self._place.release()
            self._place = None

    def ended(self, reason: MirrorChatError | None = None) -> None:
        """Note how the turn ended; the first note counts."""
        if reason is None:
            self._record.succeeded()
        else:
            self._record.failed(reason)

    def free(self) -> None:
        """End whatever still runs for the turn and free its slot."""
        self._sending.close()
        self.events.close()
        if self.session is not None:
            self.session.close()
        self.leave()

    def close(self) -> None:
        """Free the turn: for the caller the response is over, however that came about."""
        self.free()
        self.ended(ClientGone("the answer was not read"))
        if self._sending.expired:
            self._record.note = "not_read_in_time"


class _QuestionTurn(StreamedTurn[Event]):
    """The answer to a question."""

    def __init__(
        self,
        question: Question,
        slot: Slot,
        pipeline: Pipeline,
        watch: Stopwatch,
        environ: Mapping[str, Any],
        record: RequestRecord,
    ) -> None:
        def begin(heard: Callable[[], bool]) -> Generator[Event]:
            return pipeline.run_turn(question, slot, watch=watch, heard=heard, caller_gone=hung_up(environ))

        super().__init__(begin, slot, watch, environ, record)
        self.used: dict[str, EngineInfo] = engines_used(question, pipeline.engines.infos())
        self.session = question.session


# Audio


def _audio_response(turn: StreamedTurn[Event], form: str) -> Response:
    facts, first = first_audio(turn)
    encoder = ENCODERS[form](first.sample_rate)
    response = Response(audio_body(turn, encoder, first.samples), content_type=encoder.content_type)
    response.headers["X-MirrorChat-Sample-Rate"] = str(first.sample_rate)
    describe(response, facts)
    return response


def first_audio(turn: StreamedTurn[Event]) -> tuple[Facts, Audio]:
    """Return what is known by the time the first audio exists, and that audio. Raises what ends the turn before.

    From then on it counts as heard, and the engines alone hold the turn's slot.
    """
    transcript, reply, voice = "", list[str](), Voice(VoiceKind.NEUTRAL, "")
    for event in turn.events:
        match event:
            case Transcript(text=text):
                transcript = text
            case VoiceKnown(voice=known):
                voice = known
            case TextDelta(text=text):
                reply.append(text)
            case StartedOver():
                reply.clear()
            case SpokenAudio(audio=audio):
                turn.heard = True
                turn.leave()
                return Facts(transcript, "".join(reply), False, voice, turn.watch.timings()), audio
            case SentenceFailed(reason=reason) | Error(reason=reason):
                raise reason
    raise SynthesisFailed("the answer held nothing that can be spoken")


def audio_body(turn: StreamedTurn[Event], encoder: Encoder, first: Samples) -> Iterator[bytes]:
    """Yield the answer's bytes. Raises BrokenOff at whatever is wrong: there is no other way to say it here."""
    try:
        yield from turn.send(encoder.start() + encoder.encode(first))
        for event in turn.events:
            if isinstance(event, SpokenAudio):
                yield from turn.send(encoder.encode(event.audio.samples))
            elif isinstance(event, SentenceFailed | Error):
                raise event.reason
        yield from turn.send(encoder.finish())
        turn.ended()
    except Exception as error:
        turn.ended(as_mirrorchat_error(error))
        raise BrokenOff from None
    finally:
        encoder.close()


# Events


def _event_response(turn: _QuestionTurn) -> Response:
    turn.heard = True  # of its text
    return Response(_event_body(turn), content_type="text/event-stream")


def _event_body(turn: _QuestionTurn) -> Iterator[bytes]:
    """Yield the turn as server-sent events; whatever ends it is one too."""
    reply: list[str] = []
    try:
        yield from turn.send(GREETING)
        for event in turn.events:
            if isinstance(event, VoiceKnown | TextDelta):
                turn.leave()
            if isinstance(event, TextDelta):
                reply.append(event.text)
            if isinstance(event, Error):
                raise event.reason
            if isinstance(event, Done):
                yield from turn.send(_done(event, "".join(reply), turn))
            else:
                yield from turn.send(_as_sent(event))
        turn.ended()
    except Exception as error:
        reason = as_mirrorchat_error(error)
        turn.ended(reason)
        yield from turn.send(_sse("error", reason.body()))


def _done(event: Done, reply: str, turn: _QuestionTurn) -> bytes:
    """Return the last event, with the whole `reply`."""
    facts: dict[str, object] = {"reply": reply.strip(), "voice": voice_json(event.voice)}
    session = session_json(turn.session.id, event.quality) if turn.session is not None else {}
    return _sse("done", facts | {"engines": engines_json(turn.used)} | session)


def _as_sent(event: Event) -> bytes:
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
        case _:
            return KEEP_ALIVE


def _pcm_json(audio: Audio) -> dict[str, object]:
    pcm = pcm16_bytes(audio.samples)
    return {"format": "pcm_s16le", "sample_rate": audio.sample_rate, "audio": base64.b64encode(pcm).decode()}


def _sse(name: str, data: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def as_mirrorchat_error(error: Exception) -> MirrorChatError:
    """Return `error`, or what the caller is told instead of it: a defect is logged."""
    if isinstance(error, MirrorChatError):
        return error
    log_unexpected(error)
    return MirrorChatError("something went wrong inside the server")
