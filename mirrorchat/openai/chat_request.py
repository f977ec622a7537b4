"""A request for a chat completion: the fields that are passed on, used here, or rejected by name."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirrorchat.engines import Language, Message
from mirrorchat.errors import InvalidField, MissingField, UnsupportedField
from mirrorchat.openai import fields
from mirrorchat.openai.models import ALL, CHATS, chosen
from mirrorchat.server.ignored import ignore_others

MESSAGES_LIMIT = 1_000
SOUNDS_LIMIT = 16  # recordings in one request
ROLES = ("developer", "system", "user", "assistant", "tool", "function")
SPOKEN_FORMATS = ("wav", "mp3", "flac", "opus", "aac", "pcm16")
# The fields that are passed on to the API unchanged; it may reject them.
PASSED_ON = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "presence_penalty", "frequency_penalty",
    "logit_bias", "seed", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
    "response_format", "reasoning_effort", "verbosity", "service_tier", "user", "safety_identifier", "prompt_cache_key",
)  # fmt: skip
RANGES = {
    "temperature": (0.0, 2.0), "top_p": (0.0, 1.0), "presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0),
}  # fmt: skip
WHOLE_RANGES = {
    "max_tokens": (1, 1_000_000),
    "max_completion_tokens": (1, 1_000_000),
    "seed": (-(1 << 63), (1 << 63) - 1),
}
REFUSED = {
    "logprobs": "log probabilities are not passed on",
    "top_logprobs": "log probabilities are not passed on",
    "web_search_options": "the server searches nothing",
    "store": "the server keeps nothing",
}
KNOWN = (
    "model", "messages", "stream", "stream_options", "n", "modalities", "audio", "language", *PASSED_ON, *REFUSED,
)  # fmt: skip


@dataclass(frozen=True)
class RequestedSpeech:
    """The `voice` of a spoken answer, as the request names it, and its `format` (of SPOKEN_FORMATS)."""

    voice: object
    format: str


@dataclass(frozen=True)
class RequestedChat:
    """A request for a chat completion. `body` is passed on; its messages may hold recordings (`sounds_in`)."""

    name: str  # the request's own name of the model
    model: str | None  # only chat APIs with this model are asked; None asks all
    body: Mapping[str, Any]
    stream: bool
    include_usage: bool
    speech: RequestedSpeech | None
    language: Language | None


def requested_chat(body: Mapping[str, Any]) -> RequestedChat:
    """Return the request in `body`. Raises InvalidField, MissingField, UnsupportedField and ModelNotFound."""
    fields.refuse(body, REFUSED)
    ignore_others(body, KNOWN)
    if body.get("n") not in (None, 1):
        raise UnsupportedField("n is not supported: there is one answer", param="n")
    for name, (low, high) in RANGES.items():
        if isinstance(body.get(name), str):
            raise InvalidField(f"{name} must be a number, not a text", param=name)
        fields.number(body, name, low, high, low)
    for name, (least, most) in WHOLE_RANGES.items():
        value = body.get(name)
        if value is not None and not (type(value) is int and least <= value <= most):
            raise InvalidField(f"{name} must be a whole number from {least} to {most}", param=name)
    model = chosen(body, CHATS)
    stream = fields.flag(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InvalidField("stream_options must be an object", param="stream_options")
    include_usage = not stream or fields.flag(options, "include_usage")
    passed = {name: body[name] for name in PASSED_ON if body.get(name) is not None}
    usage = {"stream_options": {"include_usage": True}} if include_usage else {}
    return RequestedChat(
        name=str(body.get("model") or ALL),
        model=None if model.id == ALL else model.id,
        body={"messages": _messages(body), **passed, **usage},
        stream=stream,
        include_usage=include_usage,
        speech=_speech(body, stream),
        language=fields.language(body),
    )


def _speech(body: Mapping[str, Any], stream: bool) -> RequestedSpeech | None:
    modalities = body.get("modalities") or ["text"]
    if not isinstance(modalities, list) or not set(map(str, modalities)) <= {"text", "audio"}:
        raise InvalidField("modalities must be a list of text and audio", param="modalities")
    if "audio" not in modalities:
        return None
    audio = body.get("audio")
    if not isinstance(audio, dict):
        raise MissingField("the field audio is missing: modalities with audio need its voice and format", param="audio")
    named = {"audio.format": audio.get("format")}  # as errors name it
    format = fields.choice(named, "audio.format", SPOKEN_FORMATS, "pcm16" if stream else "wav")
    if stream and format != "pcm16":
        raise UnsupportedField("audio.format must be pcm16 with stream", param="audio.format")
    fields.refuse(body, dict.fromkeys(("tools", "functions"), "a spoken answer calls no tools"))
    fields.refuse(body, {"response_format": "a spoken answer is text"})
    if audio.get("voice") is None:
        raise MissingField("the field audio.voice is missing", param="audio.voice")
    return RequestedSpeech(audio["voice"], format)


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = fields.required(body, "messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MESSAGES_LIMIT:
        raise InvalidField(f"messages must be a list of 1 to {MESSAGES_LIMIT} messages", param="messages")
    return [_message(number, message) for number, message in enumerate(messages)]


def _message(number: int, message: object) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise InvalidField(f"{where} must be an object with a role: {', '.join(ROLES)}", param="messages")
    content = message.get("content")
    if message.get("audio") and content is None:
        reason = "the server keeps no answer: send its transcript as content"
        raise UnsupportedField(f"{where}.audio is not supported: {reason}", param="messages")
    if content is not None and not isinstance(content, str) and not _is_parts(content):
        raise InvalidField(f"{where}.content must be a text or a list of parts", param="messages")
    return {name: value for name, value in message.items() if name != "audio"}


def _is_parts(content: object) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in content
    )


def sounds_in(messages: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return the recordings in `messages`, in order. Raises InvalidField if one is not base64, or for too many."""
    sounds = [_sound(part) for part in _sound_parts(messages)]
    if len(sounds) > SOUNDS_LIMIT:
        raise InvalidField(f"messages hold more than {SOUNDS_LIMIT} recordings", param="messages")
    return sounds


def with_words(messages: Sequence[Mapping[str, Any]], words: Iterator[str]) -> list[dict[str, Any]]:
    """Return `messages` with each recording replaced by the next of `words`."""

    def replaced(part: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"type": "text", "text": next(words)} if part["type"] == "input_audio" else part

    return [
        {**message, "content": _plain([replaced(part) for part in message["content"]])}
        if isinstance(message.get("content"), list)
        else dict(message)
        for message in messages
    ]


def _plain(parts: list[Mapping[str, Any]]) -> object:
    """Return parts that are all text as one text, which every API accepts."""
    if all(part["type"] == "text" and isinstance(part.get("text"), str) for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def as_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return the texts of `messages`, for a chat model that accepts only text."""
    return [_as_message(message["role"], text_of(message)) for message in messages]


def _as_message(role: str, text: str) -> Message:
    if role == "user":
        return Message("user", text)
    return Message("assistant" if role == "assistant" else "system", text)


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part.get("text"), str))
    return content or ""


def last_question(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last user message."""
    return next((text_of(message) for message in reversed(messages) if message["role"] == "user"), "")


def _sound_parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (part for part in content if part["type"] == "input_audio")


def _sound(part: Mapping[str, Any]) -> bytes:
    sound = part.get("input_audio")
    try:
        if not isinstance(sound, dict) or not isinstance(sound.get("data"), str):
            raise ValueError
        return base64.b64decode(sound["data"], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField("input_audio must hold the recording in base64 as data", param="messages") from None
