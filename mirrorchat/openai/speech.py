"""`POST /v1/audio/speech`: a text spoken, sent while it is made."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from mirrorchat.audio.encoders import ENCODERS, Encoder
from mirrorchat.audio.time_stretch import FASTEST, SLOWEST, StretchedEncoder
from mirrorchat.engines import Cancel, Language, Voice
from mirrorchat.errors import ChatFailure, InvalidField, MissingField
from mirrorchat.openai import fields
from mirrorchat.openai.models import SPEAKS, chosen
from mirrorchat.openai.turn import admitted, event_response, freed_on_error, spoken_turn, sse
from mirrorchat.openai.voices import named
from mirrorchat.server.streams import StreamedTurn, audio_body, first_audio
from mirrorchat.text.sentences.speech_length import HAN
from mirrorchat.text.splitter import SentenceSplitter
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.events import Error, Event, SentenceFailed, SpokenAudio

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
INPUT_LIMIT_CHARS = 4_096
BODY_LIMIT_BYTES = 65_536
LETTERS_PER_TURN = 1_000  # of a text that has the time of a turn: a minute of speech; a longer one has as much more
LETTERS_PER_HAN = 3  # by the time that they take to say
REFUSED = {"instructions": "a voice says the text as it stands"}


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    text: str
    language: Language
    form: str
    speed: float
    events: bool

    def encoder(self, sample_rate: int) -> Encoder:
        encoder = ENCODERS[self.form](sample_rate)
        return encoder if self.speed == 1.0 else StretchedEncoder(encoder, self.speed, sample_rate)


def create() -> Response:
    """Return the field `input` spoken in the field `voice`."""
    body = fields.json_body(request, limit_bytes=BODY_LIMIT_BYTES)
    wanted = _wanted(body)
    if body.get("voice") is None:
        raise MissingField("the field voice is missing", param="voice")
    voice = named(body["voice"], "voice", wanted.language)
    with admitted(turns=max(1.0, _letters(wanted.text) / LETTERS_PER_TURN)) as slot:
        turn = _spoken(wanted, voice, slot)
        with freed_on_error(turn):
            return _event_response(turn, wanted) if wanted.events else _audio_response(turn, wanted)


def _spoken(wanted: Wanted, voice: Callable[[], Voice], slot: Slot) -> StreamedTurn[Event]:
    """Return the turn that speaks what is wanted."""

    def texts(failed: Sequence[ChatFailure], cancel: Cancel) -> Iterator[str]:
        yield wanted.text

    return spoken_turn(texts, voice, wanted.language, slot)


def _wanted(body: Mapping[str, Any]) -> Wanted:
    fields.refuse(body, REFUSED)
    text = fields.text(body, "input", limit_chars=INPUT_LIMIT_CHARS)
    language = fields.language(body) or fields.language_of(text)
    cutter = SentenceSplitter(language)
    if not cutter.feed(text) and not cutter.flush():
        raise InvalidField("input holds nothing that can be spoken", param="input")
    if language not in chosen(body, SPEAKS).languages:
        raise InvalidField(f"model: {body['model']} does not speak {language.value}", param="model")
    return Wanted(
        text,
        language,
        fields.choice(body, "response_format", FORMATS, "mp3"),
        fields.number(body, "speed", SLOWEST, FASTEST, 1.0),
        fields.choice(body, "stream_format", ("audio", "sse"), "audio") == "sse",
    )


def _letters(text: str) -> int:
    return len(text) + (LETTERS_PER_HAN - 1) * len(HAN.findall(text))


def _audio_response(turn: StreamedTurn[Event], wanted: Wanted) -> Response:
    facts, first = first_audio(turn)
    encoder = wanted.encoder(first.sample_rate)
    response = Response(audio_body(turn, encoder, first.samples), content_type=encoder.content_type)
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold small pieces back
    response.headers["X-MirrorChat-Voice"] = f"{facts.voice.kind}; {facts.voice.reason}"
    response.call_on_close(turn.close)
    return response


def _event_response(turn: StreamedTurn[Event], wanted: Wanted) -> Response:
    """Return the speech as events. What fails before the first sound has its own status, as in audio."""
    facts, first = first_audio(turn)
    encoder = wanted.encoder(first.sample_rate)

    def begin() -> Iterator[bytes]:
        yield from _delta(encoder.start() + encoder.encode(first.samples))

    def said(event: Event) -> Iterator[bytes]:
        if isinstance(event, SpokenAudio):
            yield from _delta(encoder.encode(event.audio.samples))
        elif isinstance(event, SentenceFailed | Error):
            raise event.reason

    def end() -> Iterator[bytes]:
        yield from _delta(encoder.finish())
        yield sse({"type": "speech.audio.done", "usage": _usage(wanted.text)})

    response = event_response(turn, said, end, begin=begin, close=encoder.close)
    response.headers["X-MirrorChat-Voice"] = f"{facts.voice.kind}; {facts.voice.reason}"
    return response


def _delta(data: bytes) -> Iterator[bytes]:
    if data:
        yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def _usage(text: str) -> dict[str, int]:
    """Return the usage that clients expect: no token is counted here."""
    return {"input_tokens": len(text), "output_tokens": 0, "total_tokens": len(text)}
