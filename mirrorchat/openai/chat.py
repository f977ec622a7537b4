"""`POST /v1/chat/completions` asks the chat APIs; it speaks the answer if `modalities` has audio."""

import base64
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flask import Response, jsonify, request

from mirrorchat.audio.encoders import ENCODERS, encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.chat.chunks import ChatChunk, Relays, as_events
from mirrorchat.chat.stream import AnswerFailed
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import AnswerEnded, ChatEvent, ChatModel, EngineInfo, Language, Thinking
from mirrorchat.errors import ChatFailure, NoChatApi, NoWords
from mirrorchat.openai import content_urls, fields
from mirrorchat.openai.chat_request import (
    RequestedChat,
    RequestedSpeech,
    as_messages,
    last_question,
    requested_chat,
    sounds_in,
    with_words,
)
from mirrorchat.openai.transcriptions import hearing_for
from mirrorchat.openai.turn import (
    DONE,
    admitted,
    event_response,
    from_first,
    in_helper,
    spoken_turn,
    sse,
    streamed_turn,
)
from mirrorchat.openai.voices import named
from mirrorchat.server.answers import describe_engines, name_unspoken
from mirrorchat.server.form import decode_upload
from mirrorchat.server.runtime import request_record, runtime
from mirrorchat.server.streams import KEEP_ALIVE, StreamedTurn
from mirrorchat.text.sentences.speech_length import language_of
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.answer import with_fallback
from mirrorchat.turn.events import Event, SpokenAudio, StartedOver, StillWorking, TextDelta
from mirrorchat.turn.reader import AnswerReader, collect
from mirrorchat.turn.spoken_notices import no_words
from mirrorchat.turn.stopwatch import Stopwatch

JSON_OVERHEAD_BYTES = 1 << 20  # of a body without its recordings


def create() -> Response:
    """Answer a chat. Recordings in it are recognized first."""
    limit_bytes = runtime().settings.upload_limit_bytes * 4 // 3 + JSON_OVERHEAD_BYTES
    requested = requested_chat(fields.json_body(request, limit_bytes=limit_bytes))
    allow_private = runtime().settings.chat_private_urls
    names = content_urls.public_names(requested.body["messages"], allow_private=allow_private)
    with admitted() as slot:
        if names:  # to be looked up, which may take long
            in_helper(slot, partial(content_urls.check_names, names, slot.context))
        requested = _heard(requested, slot)
        asking = Asking(runtime().pipeline.engines.chat, requested, request_record().watch)
        response = _response(requested, asking, slot)
        describe_engines(response, {"chat": asking.answered_by or asking.chat.info})
        return response


def _response(requested: RequestedChat, asking: "Asking", slot: Slot) -> Response:
    if requested.speech is not None:
        return _spoken(requested, requested.speech, asking, slot)
    if requested.stream:
        return _streamed(requested, asking, slot)
    return jsonify(_completion(requested, _message(collect(_chunks(asking, slot))), asking))


@dataclass
class Asking:
    """Asks the chat for one request, and keeps the answer's finish_reason and usage. It does not use Flask."""

    chat: ChatModel
    requested: RequestedChat
    watch: Stopwatch
    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None = None
    answered_by: EngineInfo | None = None
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunks(self, failed: Sequence[ChatFailure], context: Context) -> Iterator[ChatChunk]:
        """Yield the answer in chunks that have content, or tell that the model reasons."""
        return (chunk for chunk in self._noted(failed, context) if chunk.delta or chunk.reasons)

    def _noted(self, failed: Sequence[ChatFailure], context: Context) -> Iterator[ChatChunk]:
        """Yield all chunks, and note what they tell of the answer."""
        self.finish_reason, self.usage = "stop", None
        with self.watch.time("answer"):
            for chunk in self._all(failed, context):
                self.finish_reason = chunk.finish_reason or self.finish_reason
                self.usage = chunk.usage or self.usage
                self.answered_by = chunk.answered_by or self.answered_by
                yield chunk

    def texts(self, failed: Sequence[ChatFailure], context: Context) -> Iterator[ChatEvent]:
        """Yield the answer as text and what is known of it. Raises NoChatApi if it has no text."""
        try:
            for event in as_events(self._noted(failed, context)):
                if isinstance(event, AnswerEnded):  # a spoken answer may end before the API's
                    self.finish_reason = event.finish_reason
                yield event
        except AnswerFailed as error:
            raise NoChatApi(f"no chat API answered with words: {error.reason}", failed) from None

    def _all(self, failed: Sequence[ChatFailure], context: Context) -> Iterator[ChatChunk]:
        body, chat = self.requested.body, self.chat
        if isinstance(chat, Relays):
            yield from chat.relay(body, model=self.requested.model, context=context, failed=failed)
            return
        for event in chat.stream(as_messages(body["messages"]), context=context, failed=failed):
            if isinstance(event, str):
                yield ChatChunk({"content": event})


def _heard(requested: RequestedChat, slot: Slot) -> RequestedChat:
    """Return `requested` with text in place of recordings. Raises NoWords for a recording without words."""
    messages = requested.body["messages"]
    languages = (requested.language,) if requested.language else tuple(Language)
    hearing, words = hearing_for(slot), list[str]()
    for sound in sounds_in(messages):
        audio = decode_upload(sound, "messages")
        text = in_helper(slot, partial(hearing.hear, audio, languages)).text
        if not text:
            raise NoWords("no words were recognized in the audio", param="messages")
        words.append(text)
    return replace(requested, body={**requested.body, "messages": with_words(messages, iter(words))})


def _chunks(asking: Asking, slot: Slot) -> Generator[ChatChunk | StillWorking | StartedOver]:
    """Yield the answer as it arrives, and StartedOver when an API breaks off before anything was sent."""
    helpers = runtime().pipeline.helpers
    yield from with_fallback(lambda failed: helpers.stream(slot, partial(asking.chunks, failed)), slot.context)


def _message(chunks: Sequence[ChatChunk]) -> dict[str, Any]:
    """Return the message that consists of `chunks`."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    for name in ("content", "refusal"):
        texts = [chunk.delta[name] for chunk in chunks if isinstance(chunk.delta.get(name), str)]
        if texts:
            message[name] = "".join(texts)
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk.delta.get("tool_calls", ()):
            _add_call(calls, part)
        if isinstance(chunk.delta.get("function_call"), dict):  # the older form of one tool call
            _add_function(message.setdefault("function_call", {}), chunk.delta["function_call"])
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message


def _add_call(calls: dict[int, dict[str, Any]], part: Mapping[str, Any]) -> None:
    """Add a part of a tool call: the arguments arrive in parts, the other fields once."""
    others = {name: value for name, value in part.items() if name not in ("index", "function")}
    call = calls.setdefault(part["index"], {"function": {}})
    call.update(others)
    _add_function(call["function"], part["function"])


def _add_function(kept: dict[str, str], part: Mapping[str, Any]) -> None:
    for name in ("name", "arguments"):
        if isinstance(part.get(name), str):
            kept[name] = kept.get(name, "") + part[name]


def _completion(requested: RequestedChat, message: Mapping[str, Any], asking: Asking) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": asking.finish_reason}
    body = {"id": asking.id, "object": "chat.completion", "created": asking.created, "model": requested.name}
    return body | {"choices": [choice]} | ({"usage": asking.usage} if asking.usage else {})


# As it arrives


def _streamed(requested: RequestedChat, asking: Asking, slot: Slot) -> Response:
    turn = streamed_turn(slot, _chunks(asking, slot))

    def write(chunk: ChatChunk) -> Iterator[bytes]:
        yield _chunk(requested, asking, chunk.delta) if chunk.delta else KEEP_ALIVE

    return _events(turn, turn.events, requested, asking, write)


def _events(
    turn: StreamedTurn[Any],
    items: Iterator[Any],
    requested: RequestedChat,
    asking: Asking,
    write: Callable[[Any], Iterator[bytes]],
) -> Response:
    """Return the answer as events. The first one holds the role, the last ones the finish_reason and the usage."""

    def begin() -> Iterator[bytes]:
        yield _chunk(requested, asking, {"role": "assistant", "content": ""})

    def end() -> Iterator[bytes]:
        yield _chunk(requested, asking, {}, asking.finish_reason)
        if requested.include_usage and asking.usage:
            yield _chunk(requested, asking, None)
        yield DONE

    with turn.freed_on_error():
        return event_response(turn, from_first(turn, items), write, end, begin=begin)


def _chunk(
    requested: RequestedChat, asking: Asking, delta: Mapping[str, Any] | None, finish: str | None = None
) -> bytes:
    """Return one event; without a `delta` it holds the usage."""
    body = {"id": asking.id, "object": "chat.completion.chunk", "created": asking.created, "model": requested.name}
    if delta is None:
        return sse({**body, "choices": [], "usage": asking.usage})
    return sse({**body, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})


# Spoken


def _spoken(requested: RequestedChat, speech: RequestedSpeech, asking: Asking, slot: Slot) -> Response:
    language = requested.language or language_of(last_question(requested.body["messages"]))
    turn = spoken_turn(asking.texts, named(speech.voice, "audio.voice", language), language, slot, no_words=no_words)
    if requested.stream:
        return _spoken_events(turn, requested, asking)
    with turn.freed_on_error():
        answer = AnswerReader(turn.events).collect()
    turn.ended()
    turn.close()
    audio = _audio_json(answer.reply, answer.audio, speech.format)
    message = {"role": "assistant", "content": None, "refusal": None, "audio": audio}
    response = jsonify(_completion(requested, message, asking))
    name_unspoken(response, answer.unspoken)
    return response


def _audio_json(text: str, audio: Audio, format: str) -> dict[str, Any]:
    """Return a spoken answer. It expires at once: the server keeps no audio for a later request."""
    return {
        "id": f"audio_{secrets.token_hex(12)}",
        "data": base64.b64encode(_encoded(audio, format)).decode(),
        "transcript": text,
        "expires_at": int(time.time()),
    }


def _encoded(audio: Audio, format: str) -> bytes:
    if format == "wav":
        return encode_wav(audio)
    encoder = ENCODERS["pcm" if format == "pcm16" else format](audio.sample_rate)
    return encoder.start() + encoder.encode(audio.samples) + encoder.finish()


def _spoken_events(turn: StreamedTurn[Event], requested: RequestedChat, asking: Asking) -> Response:
    audio_id = f"audio_{secrets.token_hex(12)}"

    def write(event: Event) -> Iterator[bytes]:
        match event:
            case Thinking():
                yield KEEP_ALIVE
            case TextDelta(text=text):
                yield _chunk(requested, asking, {"audio": {"id": audio_id, "transcript": text}})
            case SpokenAudio(audio=audio):
                data = base64.b64encode(_encoded(audio, "pcm16")).decode()
                yield _chunk(requested, asking, {"audio": {"id": audio_id, "data": data}})

    return _events(turn, AnswerReader(turn.events).complete(), requested, asking, write)
