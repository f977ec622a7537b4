"""The pieces of an answer: read from what a chat API sends, and passed on as events of a turn or to API clients."""

import codecs
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from mirrorchat.chat.stream import AnswerFailed
from mirrorchat.chat.tool_calls import ToolCalls
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import AnsweredBy, AnswerEnded, ChatEvent, EngineInfo, Thinking
from mirrorchat.errors import ChatFailure, ChatFault

MAX_ANSWER_CHARS = 20_000  # about twenty minutes of speech
RELAY_LIMIT_CHARS = 1_000_000  # of an answer that is passed on, as JSON
RELAY_LIMIT_CHUNKS = 40_000  # below turn.helper_threads.EVENT_LIMIT
THINKING_EVERY_S = 1.0
# The fields of a delta or a message that are passed on beside its text; the server itself sets `role`.
_CALLS = ("tool_calls", "function_call")
_PASSED_ON: Mapping[str, type] = {"refusal": str, "tool_calls": list, "function_call": dict}
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "reasoning_text")
_TEXT_PARTS = (None, "", "text", "output_text", "input_text")
# Other APIs' words for OpenAI's reasons.
_FINISH_REASONS = {
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "spii": "content_filter",
    "end_turn": "stop",
    "complete": "stop",
    "normal": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
}
_FAILURES = ("error", "network_error", "insufficient_system_resource", "abort")  # instead of a reason


@dataclass(frozen=True)
class ChatChunk:
    """The next piece of an answer: fields of OpenAI's `delta`, its finish_reason and its usage; any may be missing.

    `reasons` tells that the model reasons, and `is_token` that it has written something, be it held back or left out.
    `answered_by` is the API.
    """

    delta: Mapping[str, Any]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    reasons: bool = False
    is_token: bool = False
    answered_by: EngineInfo | None = None

    @property
    def text(self) -> str:
        content = self.delta.get("content")
        return content if isinstance(content, str) else ""

    @property
    def spoken(self) -> str:
        """The text for a listener: a model that refuses may say so in a field of its own."""
        return self.text or str(self.delta.get("refusal", ""))


@runtime_checkable
class Relays(Protocol):
    """A chat model that passes on whole requests in OpenAI's format."""

    def relay(
        self,
        request: Mapping[str, Any],
        *,
        model: str | None = None,
        context: Context,
        failed: Sequence[ChatFailure] = (),
    ) -> Iterator[ChatChunk]:
        """Yield the answer in chunks. Raises the same as ChatModel.stream."""
        ...


def chunk_of(body: Mapping[str, Any]) -> ChatChunk:
    """Return the chunk in an object that a chat API sends: an event, or a whole answer.

    Ollama's own API sends `message` and `done` without `choices`.
    """
    choice = _first_choice(body)
    content = choice.get("delta") or choice.get("message")
    message = content if isinstance(content, dict) else {"content": choice.get("text")}
    is_thought = _is_thought(message)
    text = "" if is_thought else _text(message.get("content"))
    delta: dict[str, Any] = {"content": text} if text else {}
    delta |= {
        name: message[name]
        for name, kind in _PASSED_ON.items()
        if isinstance(message.get(name), kind) and message[name]
    }
    apart = any(isinstance(message.get(name), str | list) and message[name] for name in _REASONING_FIELDS)
    reasons = is_thought or apart or _has_reasoning(message.get("content"))
    is_token = reasons or bool(text.strip()) or any(name in delta for name in _PASSED_ON)
    return ChatChunk(delta, _finish_reason(choice), _usage(body), reasons, is_token)


def _first_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first of the `choices`; {} where there is none, or only another one."""
    choices = body.get("choices")
    if choices is None and ("done" in body or isinstance(body.get("message"), dict)):
        return body
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index") in (None, 0, "0"):
            return choice
    return {}


def _finish_reason(choice: Mapping[str, Any]) -> str | None:
    """Return the finish_reason as OpenAI's API names it. Raises AnswerFailed if it is a failure."""
    reason = choice.get("finish_reason") or choice.get("done_reason") or ("stop" if choice.get("done") else None)
    if not isinstance(reason, str) or reason.lower() in ("null", "none"):
        return None
    if reason.lower() in _FAILURES:
        raise AnswerFailed("an error in the stream", ChatFault.ERROR, message=reason.lower().removeprefix("error"))
    return _FINISH_REASONS.get(reason.lower(), reason.lower()[:40])


def _usage(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    usage = body.get("usage")
    return usage if isinstance(usage, dict) and usage else None


def _text(content: object) -> str:
    """Return the text of a message's content: a text, or a list of parts, of which those of text count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_text, content[:1000])) if not any(isinstance(part, list) for part in content) else ""
    if isinstance(content, dict) and content.get("type") in _TEXT_PARTS and not content.get("thought"):
        text = content.get("text")
        text = text.get("value") if isinstance(text, dict) else text
        return text if isinstance(text, str) else ""
    return ""


def _has_reasoning(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, dict) and re.search("think|thought|reason", str(part.get("type"))) for part in content
    )


def _is_thought(message: Mapping[str, Any]) -> bool:
    """Tell whether Gemini's API says that the content is reasoning."""
    extra = message.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return message.get("thought") is True or (isinstance(google, dict) and google.get("thought") is True)


class SpokenText:
    """The text of an answer as it is spoken: without leading whitespace and half characters, and of bounded length."""

    def __init__(self) -> None:
        # JSON writes a character such as an emoji as two surrogates, which some servers send in two events.
        self._pairs = codecs.getincrementaldecoder("utf-16-le")("replace")
        self._left = MAX_ANSWER_CHARS

    @property
    def is_empty(self) -> bool:
        return self._left == MAX_ANSWER_CHARS

    @property
    def is_full(self) -> bool:
        return not self._left

    def add(self, text: str) -> str:
        """Return the part of `text` that is spoken."""
        piece = self._pairs.decode(text.encode("utf-16-le", "surrogatepass"))
        piece = (piece.lstrip() if self.is_empty else piece)[: self._left]
        self._left -= len(piece)
        return piece


def as_events(chunks: Iterable[ChatChunk]) -> Iterator[ChatEvent]:
    """Yield the events of an answer that is spoken. At MAX_ANSWER_CHARS it counts as finished: nobody listens longer.

    Raises AnswerFailed for an answer without text.
    """
    text, finish_reason, has_reasoned, thought_at = SpokenText(), "stop", False, float("-inf")
    for chunk in chunks:
        finish_reason = chunk.finish_reason or finish_reason
        has_reasoned = has_reasoned or chunk.reasons
        was_empty = text.is_empty
        if piece := text.add(chunk.spoken):
            if was_empty and chunk.answered_by is not None:
                yield AnsweredBy(chunk.answered_by)
            yield piece
        elif chunk.reasons and text.is_empty and time.monotonic() >= thought_at + THINKING_EVERY_S:
            thought_at = time.monotonic()
            yield Thinking()
        if text.is_full:
            finish_reason = "length"
            break
    if text.is_empty:
        raise _empty_answer(finish_reason, has_reasoned)
    yield AnswerEnded(finish_reason)


def as_relayed(chunks: Iterable[ChatChunk], *, tools: bool = True) -> Iterator[ChatChunk]:
    """Yield the chunks that a client gets, without calls of tools if it has offered none.

    Raises AnswerFailed for an empty answer, and beyond the limits.
    """
    is_empty, has_reasoned, finish_reason, size, count = True, False, "stop", 0, 0
    thought_at, calls = float("-inf"), ToolCalls()
    for chunk in chunks:
        finish_reason = chunk.finish_reason or finish_reason
        has_reasoned = has_reasoned or chunk.reasons
        chunk = replace(chunk, delta=_with_calls(chunk.delta, calls) if tools else _without_calls(chunk.delta))
        if not chunk.delta and not chunk.finish_reason and not chunk.usage:
            if not chunk.reasons or time.monotonic() < thought_at + THINKING_EVERY_S:
                continue
            thought_at = time.monotonic()
        size, count = size + len(json.dumps(chunk.delta)), count + 1
        if size > RELAY_LIMIT_CHARS or count > RELAY_LIMIT_CHUNKS:
            raise AnswerFailed("the answer is too long")
        is_empty = is_empty and not chunk.delta
        yield chunk
    if is_empty:
        raise _empty_answer(finish_reason, has_reasoned)


def _without_calls(delta: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in delta.items() if name not in _CALLS}


def _with_calls(delta: Mapping[str, Any], calls: ToolCalls) -> Mapping[str, Any]:
    if "tool_calls" not in delta:
        return delta
    numbered = calls.numbered(delta["tool_calls"])
    return {**_without_calls(delta), **({"tool_calls": numbered} if numbered else {})}


def _empty_answer(finish_reason: str, has_reasoned: bool) -> AnswerFailed:
    if finish_reason == "content_filter":
        return AnswerFailed("its content filter removed the answer", ChatFault.EMPTY)
    if finish_reason in ("tool_calls", "function_call"):
        return AnswerFailed("a call of a tool instead of an answer", ChatFault.EMPTY)
    if has_reasoned:
        return AnswerFailed("only reasoning, no answer: raise max_tokens", ChatFault.EMPTY)
    return AnswerFailed("an empty answer", ChatFault.EMPTY)
