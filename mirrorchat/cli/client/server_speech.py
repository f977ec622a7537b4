"""Recognition and speech asked of a running server, through the routes that OpenAI's API has for them."""

import itertools
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import numpy as np

from mirrorchat.audio.samples import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Audio
from mirrorchat.cli.client.server_client import ServerClient, read
from mirrorchat.cli.client.terminal import printable
from mirrorchat.engines import Language, Voice, VoiceKind
from mirrorchat.errors import MirrorChatError, ServerFailed
from mirrorchat.text.splitter import split_text

TRANSCRIPTION_MODEL, SPEECH_MODEL = "whisper-1", "tts-1"  # the names that OpenAI's clients send
NEUTRAL_VOICE = "default"  # the server's
INPUT_LIMIT_CHARS = 4000  # of one request: the route takes 4,096
SPEECH_LIMIT_S = 3600.0  # of one
TEXT_LIMIT_CHARS = 200_000
TOKENS_LIMIT = 100_000
_HEADER_LIMIT_BYTES = 4096
_ID_LIMIT_CHARS = 256


def hear_there(client: ServerClient, recording: bytes, language: Language, *, timed: bool) -> dict[str, Any]:
    """Return what is said in `recording`, with `text`, `language`, `duration`, and `tokens`: when each word was said.

    Those are asked for where `timed` says so; there are none where the recognizer does not know. Raises ServerFailed.
    """
    try:
        found = _transcription(client, recording, language, {"timestamp_granularities[]": "word"} if timed else {})
    except ServerFailed as error:
        if not timed or error.said != "unsupported_parameter":
            raise
        found = _transcription(client, recording, language, {})
    try:
        words = list(found.get("words") or [])[:TOKENS_LIMIT]
        tokens = [_token(word) for word in words]
        text = printable(_text(found["text"], TEXT_LIMIT_CHARS))
        duration_s = round(float(found.get("duration") or 0.0), 3)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ServerFailed("the server does not answer as OpenAI's API does") from None
    return {
        "text": text,
        "language": str(language),
        "duration": duration_s,
        "confidence": _share(found.get("confidence")),
        "tokens": tokens,
    }


def _transcription(client: ServerClient, recording: bytes, language: Language, more: Mapping[str, str]) -> Any:
    fields = {"model": TRANSCRIPTION_MODEL, "language": language.code, "response_format": "verbose_json", **more}
    return client.post_json("/v1/audio/transcriptions", files={"file": ("recording", recording)}, data=fields)


def _token(word: Mapping[str, Any]) -> dict[str, Any]:
    text = printable(_text(word["word"], 1000))
    start, end = round(float(word["start"]), 3), round(float(word["end"]), 3)
    return {"text": text, "start": start, "end": end, "confidence": _share(word.get("confidence"))}


def _share(value: object) -> float | None:
    return round(float(value), 4) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _text(value: object, limit_chars: int) -> str:
    if not isinstance(value, str) or len(value) > limit_chars:
        raise TypeError
    return value


@contextmanager
def speech_there(
    client: ServerClient, text: str, recording: bytes | None, language: Language
) -> Iterator[tuple[Voice, Iterator[Audio]]]:
    """Yield the voice, and `text` spoken in it as it comes. A voice that was enrolled for it is deleted at the end."""
    first, *others = split_text(text, language, INPUT_LIMIT_CHARS) or [""]
    with _enrolled(client, recording) as voice:
        body = {"model": SPEECH_MODEL, "voice": voice, "response_format": "wav", "language": language.code}

        def later() -> Iterator[Audio]:
            for part in others:
                with client.open("POST", "/v1/audio/speech", json=body | {"input": part}) as response:
                    yield from _wav_pieces(read(response))

        with client.open("POST", "/v1/audio/speech", json=body | {"input": first}) as response:
            known = _voice_of(response.headers.get("X-MirrorChat-Voice", ""), recording is not None)
            yield known, itertools.chain(_wav_pieces(read(response)), later())


@contextmanager
def _enrolled(client: ServerClient, recording: bytes | None) -> Iterator[str]:
    if recording is None:
        yield NEUTRAL_VOICE
        return
    found = client.post_json(
        "/v1/audio/voices",
        data={"name": f"mirrorchat-say-{secrets.token_hex(8)}"},
        files={"audio_sample": ("voice", recording)},
    )
    try:
        voice = _text(found["id"], _ID_LIMIT_CHARS)
    except (LookupError, TypeError):
        raise ServerFailed("the server does not answer as OpenAI's API does") from None
    try:
        yield voice
    except BaseException:
        with suppress(MirrorChatError):  # the first error says more
            client.delete(f"/v1/audio/voices/{quote(voice, safe='')}")
        raise
    client.delete(f"/v1/audio/voices/{quote(voice, safe='')}")


def _voice_of(header: str, enrolled: bool) -> Voice:
    """Return the voice that the header `X-MirrorChat-Voice` tells of."""
    kind, _, reason = header.partition("; ")
    if kind in set(VoiceKind):
        return Voice(VoiceKind(kind), printable(reason)[:300])
    return Voice(VoiceKind.CLONE if enrolled else VoiceKind.NEUTRAL, "the server does not say how close it is")


def _wav_pieces(body: Iterator[bytes]) -> Iterator[Audio]:
    """Yield the sound of a wav, mono with 16 bits, whatever length its header claims. Raises ServerFailed."""
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
    """Return where the sound begins and its rate in Hz; None while that has not come yet. Raises ServerFailed."""
    if (data[:4] + b"RIFF"[len(data) :], data[8:12] + b"WAVE"[max(0, len(data) - 8) :]) != (b"RIFF", b"WAVE"):
        raise ServerFailed("the server's speech is not a wav")
    place, rate = 12, 0
    while len(data) >= place + 8:
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        if name == b"data" and rate:
            return place + 8, rate
        if name == b"fmt " and len(data) >= place + 24:
            form, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, place + 8)
            if (form, channels, bits) != (1, 1, 16) or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
                raise ServerFailed("the server's speech is not a 16-bit mono wav")
        place += 8 + size + size % 2
        if place > _HEADER_LIMIT_BYTES:
            break
    if len(data) > _HEADER_LIMIT_BYTES or place > _HEADER_LIMIT_BYTES:
        raise ServerFailed("the server's speech is not a wav")
    return None
