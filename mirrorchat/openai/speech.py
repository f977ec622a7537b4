"""`POST /v1/audio/speech`: a text spoken, sent while it is made."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from mirrorchat.audio.encoders import ENCODERS, Encoder
from mirrorchat.audio.time_stretch import FASTEST, SLOWEST, StretchedEncoder
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Voice
from mirrorchat.errors import ChatFailure, InvalidField, MissingField
from mirrorchat.openai import fields
from mirrorchat.openai.models import SPEAKS, chosen
from mirrorchat.openai.turn import admitted, event_response, spoken_turn, sse
from mirrorchat.openai.voices import named
from mirrorchat.server.answers import voice_label
from mirrorchat.server.streams import StreamedTurn, audio_stream, first_audio
from mirrorchat.text.sentences.speech_length import count_han
from mirrorchat.text.splitter import SentenceSplitter
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.events import Event, SpokenAudio

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
INPUT_LIMIT_CHARS = 4_096
BODY_LIMIT_BYTES = 65_536
LETTERS_PER_TURN = 1_000  # of a text that has the time of a turn: a minute of speech; a longer one has as much more
LETTERS_PER_HAN = 3  # by the time that they take to say
REFUSED = {"instructions": "a voice says the text as it stands"}


@dataclass(frozen=True)
class RequestedSpeech:
    """What a request asks for."""

    text: str
    language: Language
    format: str
    speed: float
    events: bool

    def encoder(self, sample_rate: int) -> Encoder:
        encoder = ENCODERS[self.format](sample_rate)
        return encoder if self.speed == 1.0 else StretchedEncoder(encoder, self.speed, sample_rate)


def create() -> Response:
    """Return the field `input` spoken in the field `voice`."""
    body = fields.json_body(request, limit_bytes=BODY_LIMIT_BYTES)
    requested = _requested(body)
    if body.get("voice") is None:
        raise MissingField("the field voice is missing", param="voice")
    voice = named(body["voice"], "voice", requested.language)
    with admitted(turns=max(1.0, _letters(requested.text) / LETTERS_PER_TURN)) as slot:
        turn = _spoken(requested, voice, slot)
        with turn.freed_on_error():
            return _event_response(turn, requested) if requested.events else _audio_response(turn, requested)


def _spoken(requested: RequestedSpeech, voice: Callable[[], Voice], slot: Slot) -> StreamedTurn[Event]:
    """Return the turn that speaks what is requested."""

    def texts(failed: Sequence[ChatFailure], context: Context) -> Iterator[str]:
        yield requested.text

    return spoken_turn(texts, voice, requested.language, slot)


def _requested(body: Mapping[str, Any]) -> RequestedSpeech:
    fields.refuse(body, REFUSED)
    text = fields.text(body, "input", limit_chars=INPUT_LIMIT_CHARS)
    language = fields.language(body) or fields.language_of(text)
    cutter = SentenceSplitter(language)
    if not cutter.feed(text) and not cutter.flush():
        raise InvalidField("input holds nothing that can be spoken", param="input")
    if language not in chosen(body, SPEAKS).languages:
        raise InvalidField(f"model: {body['model']} does not speak {language.value}", param="model")
    return RequestedSpeech(
        text,
        language,
        fields.choice(body, "response_format", FORMATS, "mp3"),
        fields.number(body, "speed", SLOWEST, FASTEST, 1.0),
        fields.choice(body, "stream_format", ("audio", "sse"), "audio") == "sse",
    )


def _letters(text: str) -> int:
    return len(text) + (LETTERS_PER_HAN - 1) * count_han(text)


def _audio_response(turn: StreamedTurn[Event], requested: RequestedSpeech) -> Response:
    response, reader = audio_stream(turn, requested.encoder)
    response.headers["X-MirrorChat-Voice"] = voice_label(reader.voice)
    return response


def _event_response(turn: StreamedTurn[Event], requested: RequestedSpeech) -> Response:
    """Return the speech as events. What fails before the first sound has its own status, as in audio."""
    reader, first = first_audio(turn)
    encoder = requested.encoder(first.sample_rate)

    def begin() -> Iterator[bytes]:
        yield from _delta(encoder.start() + encoder.encode(first.samples))

    def write(event: Event) -> Iterator[bytes]:
        if isinstance(event, SpokenAudio):
            yield from _delta(encoder.encode(event.audio.samples))

    def end() -> Iterator[bytes]:
        yield from _delta(encoder.finish())
        yield sse({"type": "speech.audio.done", "usage": _usage(requested.text)})

    response = event_response(turn, iter(reader), write, end, begin=begin, close=encoder.close)
    response.headers["X-MirrorChat-Voice"] = voice_label(reader.voice)
    return response


def _delta(data: bytes) -> Iterator[bytes]:
    if data:
        yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def _usage(text: str) -> dict[str, int]:
    """Return the usage that clients expect: no token is counted here."""
    return {"input_tokens": len(text), "output_tokens": 0, "total_tokens": len(text)}
