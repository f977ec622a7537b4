"""`POST /v1/audio/speech` speaks a text, and sends the speech while it is made."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from mirrorchat.audio.encoders import ENCODERS, Encoder
from mirrorchat.chat.reasoning import without_reasoning
from mirrorchat.engines import Language
from mirrorchat.errors import InvalidField
from mirrorchat.openai import fields
from mirrorchat.openai.models import SPEAKS, chosen
from mirrorchat.openai.speech_options import requested_options
from mirrorchat.openai.turn import admitted, event_response, spoken_turn, sse
from mirrorchat.openai.voices import DEFAULT, named
from mirrorchat.server.answers import voice_label
from mirrorchat.server.ignored import ignore_others
from mirrorchat.server.runtime import runtime
from mirrorchat.server.streams import StreamedTurn, audio_stream, first_audio
from mirrorchat.speech.options import BOUNDS, SpeechOptions
from mirrorchat.text.sentences.speech_length import count_han, language_of
from mirrorchat.turn.events import Event, SpokenAudio
from mirrorchat.turn.reader import AnswerReader

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
INPUT_LIMIT_CHARS = 4_096
BODY_LIMIT_BYTES = 65_536
LETTERS_PER_TURN = 1_000  # a minute of speech, which has the deadline of one turn; longer texts get more time
LETTERS_PER_HAN = 3  # by the duration of their speech
# The answer is always streamed, so `stream` says nothing new.
KNOWN = ("model", "input", "voice", "language", "response_format", "stream_format", "stream", *BOUNDS)


@dataclass(frozen=True)
class RequestedSpeech:
    """A request for speech. `events` asks for server-sent events."""

    text: str
    language: Language
    format: str
    options: SpeechOptions
    events: bool

    def encoder(self, sample_rate: int) -> Encoder:
        """Return the encoder for speech at `sample_rate`."""
        return ENCODERS[self.format](sample_rate)

    @property
    def turns(self) -> float:
        """Return how many turns' time the speech may take."""
        return max(1.0, _letters(self.text) / LETTERS_PER_TURN / (self.options.speed or 1.0))


def create() -> Response:
    """Speak the field `input` in the voice that the field `voice` names."""
    body = fields.json_body(request, limit_bytes=BODY_LIMIT_BYTES)
    requested = _requested(body)
    voice = named(_voice(body), "voice", requested.language)
    with admitted(turns=requested.turns) as slot:
        turn = spoken_turn(
            lambda failed, context: iter((requested.text,)),
            voice,
            requested.language,
            slot,
            no_words=_no_words,
            options=requested.options,
        )
        with turn.freed_on_error():
            response, reader = (
                _event_stream(turn, requested) if requested.events else audio_stream(turn, requested.encoder)
            )
            response.headers["X-MirrorChat-Voice"] = voice_label(reader.voice)
            return response


def _voice(body: Mapping[str, Any]) -> Any:
    """Return the field `voice`. Some clients leave it out or empty, since other servers have a default."""
    if runtime().settings.api_aliases and body.get("voice") in (None, ""):
        return DEFAULT
    return fields.required(body, "voice")


def _requested(body: Mapping[str, Any]) -> RequestedSpeech:
    ignore_others(body, KNOWN)
    text = without_reasoning(fields.text(body, "input", limit_chars=INPUT_LIMIT_CHARS))
    language = fields.language(body) or language_of(text)
    if language not in chosen(body, SPEAKS).languages:
        raise InvalidField(f"model: {body['model']} does not speak {language.value}", param="model")
    return RequestedSpeech(
        text,
        language,
        fields.choice(body, "response_format", FORMATS, "mp3"),
        requested_options(body, [runtime().pipeline.engines.synthesizers[language]]),
        fields.choice(body, "stream_format", ("audio", "sse"), "audio") == "sse",
    )


def _no_words(text: str, language: Language) -> str:
    raise InvalidField("input holds nothing that can be spoken", param="input")


def _letters(text: str) -> int:
    return len(text) + (LETTERS_PER_HAN - 1) * count_han(text)


def _event_stream(turn: StreamedTurn[Event], requested: RequestedSpeech) -> tuple[Response, AnswerReader]:
    """Return the speech as events, and their reader. An error before the first audio is raised."""
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

    return event_response(turn, reader.complete(), write, end, begin=begin, close=encoder.close), reader


def _delta(data: bytes) -> Iterator[bytes]:
    if data:
        yield sse({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})


def _usage(text: str) -> dict[str, int]:
    """Return the usage that clients expect, in characters: this server counts no tokens of speech."""
    return {"input_tokens": len(text), "output_tokens": 0, "total_tokens": len(text)}
