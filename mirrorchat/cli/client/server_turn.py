"""A turn of a running server: reads its server-sent events into the events of a turn."""

import base64
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np

from mirrorchat.audio.samples import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Audio
from mirrorchat.chat.chunks import MAX_ANSWER_CHARS
from mirrorchat.chat.stream import AnswerFailed, Event, server_sent_events
from mirrorchat.cli.client.server_client import EVENTS_TIMEOUT_S, ServerClient, error_in, read, text_of
from mirrorchat.cli.client.terminal import printable
from mirrorchat.cli.client.turn import TurnCompleted, TurnEvent, TurnRequest
from mirrorchat.engines import AUTO, Language, Thinking, Transcript, Voice, VoiceKind
from mirrorchat.errors import ServerFailed
from mirrorchat.turn.events import SentenceFailed, SpokenAudio, StartedOver, TextDelta, Timings, VoiceKnown

EVENT_LIMIT_CHARS = 8_000_000  # two minutes of speech in one event; the server sends at most 10 s
SPEECH_LIMIT_S = 3600.0  # for an answer: three times the longest one
TEXT_LIMIT_CHARS = 4 * MAX_ANSWER_CHARS
_TIMINGS_LIMIT = 32
_NAME_CHARS = 300


def ask_server(client: ServerClient, request: TurnRequest) -> Generator[TurnEvent]:
    """Yield the events of a turn, TurnCompleted last. Raises ServerFailed for an incomplete or malformed answer."""
    fields = {
        "language": request.language or AUTO,
        "reply_language": request.reply_language,
        "stream": "true",
        "response_format": "sse",
        "text": request.text,
        "hotwords": request.hotwords or None,
        "session_id": request.session_id,
        **request.options.given(),
    }
    data = {name: str(value) for name, value in fields.items() if value is not None}
    files = {"audio": ("question", request.recording)}
    with client.open("POST", "/process_audio", silence_s=EVENTS_TIMEOUT_S, data=data, files=files) as response:
        yield from _bounded(_decoded(server_sent_events(read(response), limit_chars=EVENT_LIMIT_CHARS)))


def _decoded(raw: Iterator[Event]) -> Iterator[TurnEvent]:
    try:
        for sent in raw:
            if sent.name == "error":
                raise error_in(json.loads(sent.data)["error"])
            if sent.name in _READERS:
                event = _READERS[sent.name](json.loads(sent.data))
                yield event
                if isinstance(event, TurnCompleted):
                    return
    except (AnswerFailed, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise ServerFailed("the server does not answer as MirrorChat does (its events cannot be read)") from None
    raise ServerFailed("the answer broke off")


def _bounded(turn: Iterator[TurnEvent]) -> Iterator[TurnEvent]:
    """Yield the events unchanged. Raises ServerFailed when they hold more speech or text than an answer can have."""
    speech_s, chars = 0.0, 0
    for event in turn:
        if isinstance(event, SpokenAudio):
            speech_s += event.audio.duration_s
        elif isinstance(event, TextDelta | Transcript):
            chars += len(event.text)
        if speech_s > SPEECH_LIMIT_S or chars > TEXT_LIMIT_CHARS:
            raise ServerFailed("the answer is too long")
        yield event


# Each reader takes an event's data. Missing and malformed values raise LookupError, TypeError or ValueError.


def _name(value: object) -> str:
    return printable(text_of(value))[:_NAME_CHARS]


def _voice(data: Mapping[str, Any]) -> Voice:
    return Voice(VoiceKind(data["kind"]), _name(data["reason"]))


def _audio(data: Mapping[str, Any]) -> SpokenAudio:
    rate = data["sample_rate"]
    if data["format"] != "pcm_s16le" or type(rate) is not int or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise ValueError
    samples = np.frombuffer(base64.b64decode(data["audio"], validate=True), "<i2").astype(np.float32) / 32767
    return SpokenAudio(int(data["index"]), text_of(data["sentence"]), Audio(np.clip(samples, -1.0, 1.0), rate))


def _failed(data: Mapping[str, Any]) -> SentenceFailed:
    return SentenceFailed(int(data["index"]), text_of(data["sentence"]), error_in(data["error"]))


def _timings(data: Mapping[str, Any]) -> Timings:
    return Timings({_name(stage).removesuffix("_s"): float(data[stage]) for stage in list(data)[:_TIMINGS_LIMIT]})


def _answered(data: Mapping[str, Any]) -> TurnCompleted:
    engines = {
        _name(stage): {_name(key): _name(value) for key, value in list(engine.items())[:_TIMINGS_LIMIT]}
        for stage, engine in list(data["engines"].items())[:_TIMINGS_LIMIT]
    }
    finish_reason = _name(data.get("finish_reason", "stop"))
    return TurnCompleted(_voice(data["voice"]), engines, _name(data.get("session_id", "")), finish_reason)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], TurnEvent]] = {
    "thinking": lambda data: Thinking(),
    "started_over": lambda data: StartedOver(ServerFailed("the answer started over")),
    "transcript": lambda data: Transcript(text_of(data["text"]), Language.parse(data["language"])),
    "voice": lambda data: VoiceKnown(_voice(data)),
    "text": lambda data: TextDelta(text_of(data["delta"])),
    "audio": _audio,
    "sentence_failed": _failed,
    "timings": _timings,
    "done": _answered,
}
