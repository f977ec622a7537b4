"""`POST /v1/chat/completions`: passed on to the chat APIs; spoken where `modalities` asks for audio."""

import base64
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from flask import Response, jsonify, request

from mirrorchat.audio.encoders import ENCODERS, encode_wav
from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.chat.chunks import ChatChunk, Relays
from mirrorchat.chat.stream import AnswerFailed, spoken
from mirrorchat.engines import Cancel, ChatModel, Deadline, Language
from mirrorchat.errors import ChatFailure, ChatInterrupted, NoChatApi, NoWords
from mirrorchat.openai import fields
from mirrorchat.openai.chat_request import (
    ChatWanted,
    Speech,
    as_messages,
    last_question,
    sounds_in,
    wanted_chat,
    with_words,
)
from mirrorchat.openai.transcriptions import hearing_for
from mirrorchat.openai.turn import (
    DONE,
    admitted,
    decoded,
    event_response,
    first_event,
    freed_on_error,
    last_worked,
    one,
    spoken_turn,
    sse,
    watch,
)
from mirrorchat.openai.voices import named
from mirrorchat.server.runtime import request_record, runtime
from mirrorchat.server.socket_watch import hung_up
from mirrorchat.server.streams import StreamedTurn
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.events import Error, Event, SentenceFailed, SpokenAudio, StartedOver, StillWorking, TextDelta
from mirrorchat.turn.stopwatch import Stopwatch

JSON_OVERHEAD_BYTES = 1 << 20  # of a body, beside the recordings in it


def create() -> Response:
    """Answer a chat; recordings in it are recognized first."""
    limit_bytes = runtime().settings.upload_limit_bytes * 4 // 3 + JSON_OVERHEAD_BYTES
    wanted = wanted_chat(fields.json_body(request, limit_bytes=limit_bytes))
    with admitted() as slot:
        wanted = _heard(wanted, slot)
        asking = Asking(runtime().pipeline.engines.chat, wanted, slot.deadline, watch())
        if wanted.speech is not None:
            return _spoken(wanted, wanted.speech, asking, slot)
        if wanted.stream:
            return _streamed(wanted, asking, slot)
        return jsonify(_completion(wanted, _message(_whole(asking, slot)), asking))


@dataclass
class Asking:
    """Asks the chat for one request, and notes how the answer ended and what it took. It asks nothing of Flask."""

    chat: ChatModel
    wanted: ChatWanted
    deadline: Deadline
    watch: Stopwatch
    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None = None
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunks(self, failed: Sequence[ChatFailure], cancel: Cancel) -> Iterator[ChatChunk]:
        """Yield the answer, in chunks that say something."""
        self.finish_reason, self.usage = "stop", None
        with self.watch.time("answer"):
            for chunk in self._all(failed, cancel):
                self.finish_reason = chunk.finish_reason or self.finish_reason
                self.usage = chunk.usage or self.usage
                if chunk.delta:
                    yield chunk

    def texts(self, failed: Sequence[ChatFailure], cancel: Cancel) -> Iterator[str]:
        """Yield the answer's text alone. Raises NoChatApi where it has none."""
        try:
            yield from spoken(chunk.text for chunk in self.chunks(failed, cancel))
        except AnswerFailed as error:
            raise NoChatApi(f"no chat API answered with words: {error.reason}", failed) from None

    def _all(self, failed: Sequence[ChatFailure], cancel: Cancel) -> Iterator[ChatChunk]:
        asked, chat = self.wanted.request, self.chat
        if isinstance(chat, Relays):
            yield from chat.relay(
                asked, model=self.wanted.model, deadline=self.deadline, cancel=cancel, failed=failed
            )  # fmt: skip
            return
        messages = as_messages(asked["messages"])
        for text in chat.stream(messages, deadline=self.deadline, cancel=cancel, failed=failed):
            yield ChatChunk({"content": text})


def _heard(wanted: ChatWanted, slot: Slot) -> ChatWanted:
    """Return `wanted` with words in the place of recordings. Raises NoWords for one without."""
    messages = wanted.request["messages"]
    languages = (wanted.language,) if wanted.language else tuple(Language)
    hearing, words = hearing_for(slot), list[str]()
    for sound in sounds_in(messages):
        audio = decoded(sound, "messages")
        text = one(slot, partial(hearing.hear, audio, languages)).text
        if not text:
            raise NoWords("no words were recognized in the audio", param="messages")
        words.append(text)
    return replace(wanted, request={**wanted.request, "messages": with_words(messages, iter(words))})


def _whole(asking: Asking, slot: Slot) -> list[ChatChunk]:
    """Return the whole answer, started over with the next API as long as one breaks off."""
    failed: Sequence[ChatFailure] = ()
    while True:
        try:
            return one(slot, partial(_all_chunks, asking, failed))
        except ChatInterrupted as error:
            failed = error.failures


def _all_chunks(asking: Asking, failed: Sequence[ChatFailure], cancel: Cancel) -> list[ChatChunk]:
    return list(asking.chunks(failed, cancel))


def _message(chunks: Sequence[ChatChunk]) -> dict[str, Any]:
    """Return the message that `chunks` make together."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    for name in ("content", "refusal", "reasoning_content"):
        texts = [chunk.delta[name] for chunk in chunks if isinstance(chunk.delta.get(name), str)]
        if texts:
            message[name] = "".join(texts)
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        given = chunk.delta.get("tool_calls")
        for place, call in enumerate(given if isinstance(given, list) else ()):
            if isinstance(call, dict):
                _add_call(calls, call, place)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message


def _add_call(calls: dict[int, dict[str, Any]], call: Mapping[str, Any], place: int) -> None:
    """Add a piece of a tool's call: the arguments come in parts, all else once."""
    index = call.get("index")
    kept = calls.setdefault(index if isinstance(index, int) else place, {"id": "", "type": "function", "function": {}})
    for name in ("id", "type"):
        if isinstance(call.get(name), str) and call[name]:
            kept[name] = call[name]
    function = call.get("function")
    for name in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(name), str):
            kept["function"][name] = kept["function"].get(name, "") + function[name]


def _completion(wanted: ChatWanted, message: Mapping[str, Any], asking: Asking) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": asking.finish_reason}
    body = {"id": asking.id, "object": "chat.completion", "created": asking.created, "model": wanted.name}
    return body | {"choices": [choice]} | ({"usage": asking.usage} if asking.usage else {})


# As it comes


def _streamed(wanted: ChatWanted, asking: Asking, slot: Slot) -> Response:
    pipeline, caller_gone = runtime().pipeline, hung_up(request.environ)
    turn: StreamedTurn[ChatChunk | StillWorking] = StreamedTurn(
        lambda heard: last_worked(pipeline, slot, partial(asking.chunks, ()), caller_gone),
        slot,
        watch(),
        request.environ,
        request_record(),
    )

    def said(chunk: ChatChunk) -> Iterator[bytes]:
        yield _chunk(wanted, asking, dict(chunk.delta))

    return _events(turn, wanted, asking, said)


def _events(
    turn: StreamedTurn[Any], wanted: ChatWanted, asking: Asking, said: Callable[[Any], Iterator[bytes]]
) -> Response:
    """Return the answer as events; the first says who speaks, the last ones why it ended and what it took."""

    def begin() -> Iterator[bytes]:
        yield _chunk(wanted, asking, {"role": "assistant", "content": ""})
        for event in first:
            yield from said(event)

    def end() -> Iterator[bytes]:
        yield _chunk(wanted, asking, {}, asking.finish_reason)
        if wanted.include_usage and asking.usage:
            yield _chunk(wanted, asking, None)
        yield DONE

    with freed_on_error(turn):
        first = first_event(turn)
        return event_response(turn, said, end, begin=begin)


def _chunk(wanted: ChatWanted, asking: Asking, delta: Mapping[str, Any] | None, finish: str | None = None) -> bytes:
    """Return one event; with no `delta` it says what the answer took."""
    body = {"id": asking.id, "object": "chat.completion.chunk", "created": asking.created, "model": wanted.name}
    if delta is None:
        return sse({**body, "choices": [], "usage": asking.usage})
    return sse({**body, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})


# Spoken


def _spoken(wanted: ChatWanted, speech: Speech, asking: Asking, slot: Slot) -> Response:
    language = wanted.language or fields.language_of(last_question(wanted.request["messages"]))
    turn = spoken_turn(asking.texts, named(speech.voice, "audio", language), language, slot)
    if wanted.stream:
        return _spoken_events(turn, wanted, asking)
    with freed_on_error(turn):
        text, audio = _collected(turn)
    turn.close()
    message = {"role": "assistant", "content": None, "refusal": None, "audio": _audio_json(text, audio, speech.form)}
    return jsonify(_completion(wanted, message, asking))


def _collected(turn: StreamedTurn[Event]) -> tuple[str, Audio]:
    """Return the whole text and speech of a turn. Raises what ended it, a sentence that failed included."""
    texts, samples, sample_rate = list[str](), list[Samples](), 24_000
    for event in turn.events:
        match event:
            case TextDelta(text=text):
                texts.append(text)
            case SpokenAudio(audio=audio):
                samples.append(audio.samples)
                sample_rate = audio.sample_rate
            case StartedOver():
                texts.clear()
                samples.clear()
            case SentenceFailed(reason=reason) | Error(reason=reason):
                raise reason
    turn.ended()
    return "".join(texts).strip(), Audio(np.concatenate(samples), sample_rate)


def _audio_json(text: str, audio: Audio, form: str) -> dict[str, Any]:
    """Return a spoken answer. It expires at once: nothing is kept that a later request could name."""
    return {
        "id": f"audio_{secrets.token_hex(12)}",
        "data": base64.b64encode(_encoded(audio, form)).decode(),
        "transcript": text,
        "expires_at": int(time.time()),
    }


def _encoded(audio: Audio, form: str) -> bytes:
    if form == "wav":
        return encode_wav(audio)
    encoder = ENCODERS["pcm" if form == "pcm16" else form](audio.sample_rate)
    return encoder.start() + encoder.encode(audio.samples) + encoder.finish()


def _spoken_events(turn: StreamedTurn[Event], wanted: ChatWanted, asking: Asking) -> Response:
    audio_id = f"audio_{secrets.token_hex(12)}"

    def said(event: Event) -> Iterator[bytes]:
        match event:
            case TextDelta(text=text):
                yield _chunk(wanted, asking, {"audio": {"id": audio_id, "transcript": text}})
            case SpokenAudio(audio=audio):
                data = base64.b64encode(_encoded(audio, "pcm16")).decode()
                yield _chunk(wanted, asking, {"audio": {"id": audio_id, "data": data}})
            case SentenceFailed(reason=reason) | Error(reason=reason):
                raise reason

    return _events(turn, wanted, asking, said)
