"""The body of a chat API's response, read as the chunks of one answer without its reasoning."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import urllib3

from mirrorchat.chat.chunks import ChatChunk, chunk_of
from mirrorchat.chat.complaints import complaint
from mirrorchat.chat.reasoning import ReasoningFilter
from mirrorchat.chat.stream import AnswerFailed, Event, events, json_value
from mirrorchat.errors import ChatFault

_READ_ERRORS = (urllib3.exceptions.HTTPError, OSError)


def answer_chunks(body: Iterable[bytes], reasoning: ReasoningFilter) -> Iterator[ChatChunk]:
    """Yield the chunks of an answer, up to its finish_reason and the usage after it.

    Arguments:
        body: the bytes as they arrive.
        reasoning: the filter for this answer; it is asked nothing else meanwhile.

    Raises:
        AnswerFailed: the body is no whole answer.
        OpeningMissing: text that has been yielded was reasoning.
    """
    pieces, reader = events(body), _Reader()
    for event in pieces:
        if _is_end(event):
            break
        if (chunk := reader.chunk(event)) is None:
            continue
        yield _without_reasoning(chunk, reasoning)
        if chunk.finish_reason:
            yield from _usage_after(pieces)
            return
    else:
        reader.check_whole()
    yield _last_chunk(reasoning)


class _Reader:
    """Reads the events of one body as chunks, and knows at its end whether it was a whole answer."""

    def __init__(self) -> None:
        self._count = 0  # of objects
        self._is_whole = False
        self._has_deltas = False
        self._status = ""  # what the last event said instead of text

    def chunk(self, event: Event) -> ChatChunk | None:
        """Return the chunk of an event, None if it has none. Raises AnswerFailed if it is an error."""
        if (body := _object(event)) is None:
            self._status = event.data
            return None
        self._is_whole = not self._count and _is_whole(event, body)
        self._count += 1
        chunk = _checked_chunk(event, body)
        self._status = "" if chunk.is_token else complaint(body) or self._status
        return self._without_summary(chunk, is_delta='"delta"' in event.data)

    def _without_summary(self, chunk: ChatChunk, *, is_delta: bool) -> ChatChunk:
        """Leave out the message that repeats the whole answer in the last event of MiniMax's API."""
        if is_delta:
            self._has_deltas = self._has_deltas or bool(chunk.delta)
            return chunk
        return replace(chunk, delta={}) if self._has_deltas else chunk

    def check_whole(self) -> None:
        """Raise AnswerFailed if the body has ended before the answer."""
        if not self._is_whole:
            raise AnswerFailed("the stream broke off" if self._count else "an empty stream", message=self._status)


def _is_end(event: Event) -> bool:
    return event.data.strip(' "').upper() == "[DONE]"


def _object(event: Event) -> dict[str, Any] | None:
    """Return the object of an event; None for what keeps the connection alive, such as blank data and pings."""
    data = event.data.strip()
    if event.name != "error" and (event.name == "ping" or not data.startswith(("{", "["))):
        return None
    if not data.startswith(("{", "[")):
        raise AnswerFailed("an error in the stream", ChatFault.ERROR, message=data)
    try:
        parsed = json_value(data)
    except (ValueError, RecursionError):
        raise AnswerFailed("not valid JSON") from None
    if isinstance(parsed, list) and len(parsed) == 1:  # as Gemini's API sends errors
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        raise AnswerFailed("not a chat completion")
    return parsed


def _is_whole(event: Event, body: Mapping[str, Any]) -> bool:
    """Tell whether an object that is the only one of its body is a whole answer, although no finish_reason says so."""
    return event.is_plain and body.get("done") is not False and '"delta"' not in event.data


def _checked_chunk(event: Event, body: Mapping[str, Any]) -> ChatChunk:
    """Return the chunk of an event. Raises AnswerFailed if the event is an error."""
    message = complaint(body, whole=event.is_plain or event.name == "error")
    if message is None and event.name == "error":
        message = ""
    if message is not None:
        reason = "an error instead of an answer" if event.is_plain else "an error in the stream"
        raise AnswerFailed(reason, ChatFault.ERROR, message=message)
    return chunk_of(body)


def _without_reasoning(chunk: ChatChunk, reasoning: ReasoningFilter) -> ChatChunk:
    if chunk.reasons:
        reasoning.reasoned_apart()
    end = chunk.finish_reason
    text = reasoning.finish(end, chunk.text) if end else reasoning.feed(chunk.text)
    reasons = chunk.reasons or (chunk.is_token and reasoning.is_reasoning)
    reasons = reasons or bool(end and reasoning.has_reasoned)
    return replace(chunk, delta=_with_text(chunk.delta, text), reasons=reasons)


def _with_text(delta: Mapping[str, Any], text: str) -> dict[str, Any]:
    others = {name: value for name, value in delta.items() if name != "content"}
    return {"content": text, **others} if text else others


def _last_chunk(reasoning: ReasoningFilter) -> ChatChunk:
    """Return the rest of an answer without a finish_reason."""
    text = reasoning.finish("stop")
    return ChatChunk(_with_text({}, text), "stop", reasons=reasoning.has_reasoned)


def _usage_after(pieces: Iterator[Event]) -> Iterator[ChatChunk]:
    """Yield the usage that follows a whole answer. All else there, broken connections too, is passed over."""
    with suppress(AnswerFailed, *_READ_ERRORS):
        for event in pieces:
            if _is_end(event):
                return
            if '"usage"' not in event.data:
                continue
            with suppress(ValueError, RecursionError):
                parsed = json_value(event.data)
                usage = parsed.get("usage") if isinstance(parsed, dict) else None
                if usage and isinstance(usage, dict):
                    yield ChatChunk({}, usage=usage)
