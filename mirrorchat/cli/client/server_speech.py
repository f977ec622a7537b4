"""Recognition and speech of a running server, through its routes of the OpenAI API."""

import itertools
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import numpy as np

from mirrorchat.audio.samples import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Audio
from mirrorchat.cli.client.server_client import ServerClient, read, text_of
from mirrorchat.cli.client.terminal import printable
from mirrorchat.engines import AUTO, Language, Voice, VoiceKind
from mirrorchat.errors import MirrorChatError, ServerFailed
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.text.splitter import split_text

TRANSCRIPTION_MODEL, SPEECH_MODEL = "whisper-1", "tts-1"  # the names that OpenAI clients send
NEUTRAL_VOICE = "default"  # its name in the API
INPUT_LIMIT_CHARS = 4000  # for one request; the route accepts 4,096
SPEECH_LIMIT_S = 3600.0  # for the speech of one request
TEXT_LIMIT_CHARS = 200_000
TOKENS_LIMIT = 100_000
_HEADER_LIMIT_BYTES = 4096
_ID_LIMIT_CHARS = 256


def recognize_on_server(
    client: ServerClient, recording: bytes, language: Language | None, *, timed: bool
) -> dict[str, Any]:
    """Return the transcript of `recording`: its `text`, `language`, `duration`, `confidence` and `tokens`.

    None has the language detected. Tokens, which are words with their times, are requested if `timed` is set. There
    are none if the recognizer does not know them. Raises ServerFailed.
    """
    try:
        found = _transcription(client, recording, language, {"timestamp_granularities[]": "word"} if timed else {})
    except ServerFailed as error:
        if not timed or error.refusal_code != "unsupported_parameter":
            raise
        found = _transcription(client, recording, language, {})
    try:
        words = list(found.get("words") or [])[:TOKENS_LIMIT]
        tokens = [_token(word) for word in words]
        text = printable(text_of(found["text"], TEXT_LIMIT_CHARS))
        duration_s = round(float(found.get("duration") or 0.0), 3)
        heard_in = language or Language.parse(text_of(found["language"]))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ServerFailed("the server does not answer as OpenAI's API does") from None
    return {
        "text": text,
        "language": str(heard_in),
        "duration": duration_s,
        "confidence": _confidence(found.get("confidence")),
        "tokens": tokens,
    }


def _transcription(client: ServerClient, recording: bytes, language: Language | None, more: Mapping[str, str]) -> Any:
    named = language.code if language else AUTO
    fields = {"model": TRANSCRIPTION_MODEL, "language": named, "response_format": "verbose_json", **more}
    return client.post_json("/v1/audio/transcriptions", files={"file": ("recording", recording)}, data=fields)


def _token(word: Mapping[str, Any]) -> dict[str, Any]:
    text = printable(text_of(word["word"], 1000))
    start, end = round(float(word["start"]), 3), round(float(word["end"]), 3)
    return {"text": text, "start": start, "end": end, "confidence": _confidence(word.get("confidence"))}


def _confidence(value: object) -> float | None:
    return round(float(value), 4) if isinstance(value, int | float) and 0 <= value <= 1 else None


@contextmanager
def speech_from_server(
    client: ServerClient,
    text: str,
    recording: bytes | None,
    language: Language,
    *,
    speaker: str | None = None,
    options: SpeechOptions = NO_OPTIONS,
) -> Iterator[tuple[Voice, Iterator[Audio]]]:
    """Yield the voice of `recording`, or else of the server's `speaker` (neutral for None), and the speech of `text`.

    A voice that was enrolled for the speech is deleted at the end. Raises ServerFailed.
    """
    first, *others = split_text(text, language, INPUT_LIMIT_CHARS) or [""]
    with _enrolled(client, recording) as enrolled:
        voice = enrolled or speaker or NEUTRAL_VOICE
        body = {"model": SPEECH_MODEL, "voice": voice, "response_format": "wav", "language": language.code}
        body |= options.given()

        def remaining() -> Iterator[Audio]:
            for part in others:
                with client.open("POST", "/v1/audio/speech", json=body | {"input": part}) as response:
                    yield from _wav_pieces(read(response))

        with client.open("POST", "/v1/audio/speech", json=body | {"input": first}) as response:
            known = _voice_of(response.headers.get("X-MirrorChat-Voice", ""), recording is not None)
            yield known, itertools.chain(_wav_pieces(read(response)), remaining())


@contextmanager
def _enrolled(client: ServerClient, recording: bytes | None) -> Iterator[str]:
    """Yield the id of the voice in `recording`, which is enrolled for the block; "" for None."""
    if recording is None:
        yield ""
        return
    found = client.post_json(
        "/v1/audio/voices",
        data={"name": f"mirrorchat-say-{secrets.token_hex(8)}"},
        files={"audio_sample": ("voice", recording)},
    )
    try:
        voice = text_of(found["id"], _ID_LIMIT_CHARS)
    except (LookupError, TypeError):
        raise ServerFailed("the server does not answer as OpenAI's API does") from None
    try:
        yield voice
    except BaseException:
        with suppress(MirrorChatError):  # the first error is more useful
            client.delete(f"/v1/audio/voices/{quote(voice, safe='')}")
        raise
    client.delete(f"/v1/audio/voices/{quote(voice, safe='')}")


def _voice_of(header: str, enrolled: bool) -> Voice:
    """Return the voice in the header `X-MirrorChat-Voice`."""
    kind, _, reason = header.partition("; ")
    if kind in set(VoiceKind):
        return Voice(VoiceKind(kind), printable(reason)[:300])
    return Voice(VoiceKind.CLONE if enrolled else VoiceKind.NEUTRAL, "the server does not describe its voice")


def _wav_pieces(body: Iterator[bytes]) -> Iterator[Audio]:
    """Yield the sound of a mono 16-bit wav, and ignore the length in its header. Raises ServerFailed for other data."""
    data = b""
    begin: tuple[int, int] | None = None
    spoken = 0
    for piece in body:
        data += piece
        begin = begin or _wav_begin(data)
        if begin is None:
            continue
        offset, rate = begin
        sound, data = data[offset:], b""
        begin = (0, rate)
        sound, data = sound[: len(sound) // 2 * 2], sound[len(sound) // 2 * 2 :]
        spoken += len(sound) // 2
        if spoken > SPEECH_LIMIT_S * rate:
            raise ServerFailed("the speech is too long")
        if sound:
            yield Audio(np.frombuffer(sound, "<i2").astype(np.float32) / np.float32(32768), rate)
    if begin is None:
        raise ServerFailed("the server's speech is not a wav")


def _wav_begin(data: bytes) -> tuple[int, int] | None:
    """Return the offset of the sound and its rate in Hz, or None if `data` does not reach it. Raises ServerFailed."""
    if (data[:4] + b"RIFF"[len(data) :], data[8:12] + b"WAVE"[max(0, len(data) - 8) :]) != (b"RIFF", b"WAVE"):
        raise ServerFailed("the server's speech is not a wav")
    offset, rate = 12, 0
    while len(data) >= offset + 8:
        name, size = data[offset : offset + 4], struct.unpack_from("<I", data, offset + 4)[0]
        if name == b"data" and rate:
            return offset + 8, rate
        if name == b"fmt " and len(data) >= offset + 24:
            encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, offset + 8)
            if (encoding, channels, bits) != (1, 1, 16) or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
                raise ServerFailed("the server's speech is not a 16-bit mono wav")
        offset += 8 + size + size % 2
        if offset > _HEADER_LIMIT_BYTES:
            break
    if len(data) > _HEADER_LIMIT_BYTES or offset > _HEADER_LIMIT_BYTES:
        raise ServerFailed("the server's speech is not a wav")
    return None
