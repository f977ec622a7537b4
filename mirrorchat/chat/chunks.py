"""Readers of an API's answer: as text, which is spoken, or as chunks of OpenAI's API, which clients get."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from mirrorchat.chat.stream import AnswerFailed, event_text, first_choice, spoken, whole_object, whole_text
from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ChatFailure

RELAY_LIMIT_CHARS = 1_000_000  # of an answer that is passed on, as JSON
RELAY_LIMIT_CHUNKS = 40_000  # below turn.helper_threads.EVENT_LIMIT
# The fields of a delta or a message that are passed on; the server itself sets `role`.
PASSED_ON = ("content", "refusal", "tool_calls", "reasoning_content")

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class ChatChunk:
    """The next piece of an answer: fields of OpenAI's `delta`, its finish_reason and its usage; any may be missing."""

    delta: Mapping[str, Any]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        content = self.delta.get("content")
        return content if isinstance(content, str) else ""


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


class Reader(Protocol[Piece]):
    """Reads one answer. Every method raises AnswerFailed if the data is no answer."""

    def event(self, name: str, data: str) -> tuple[Piece | None, bool]:
        """Return the piece in one event of a stream, and whether the event finishes the answer."""
        ...

    def whole(self, chunks: Iterable[bytes]) -> Iterator[Piece]:
        """Yield the answer of an API that ignores the request for a stream and sends one JSON body."""
        ...

    def passed_on(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Yield the `pieces` that are passed on, within limits."""
        ...


class TextReader:
    """Reads the text of an answer."""

    def event(self, name: str, data: str) -> tuple[str | None, bool]:
        text, finished = event_text(name, data)
        return text or None, finished

    def whole(self, chunks: Iterable[bytes]) -> Iterator[str]:
        yield whole_text(chunks)

    def passed_on(self, pieces: Iterable[str]) -> Iterator[str]:
        return spoken(pieces)


class ChunkReader:
    """Reads everything that a client of OpenAI's API may need: text, tool calls, finish_reason, usage."""

    def event(self, name: str, data: str) -> tuple[ChatChunk | None, bool]:
        event_text(name, data)  # raises if it is no event of an answer
        chunk = _chunk(json.loads(data), "delta")
        return chunk, bool(chunk and chunk.finish_reason)

    def whole(self, chunks: Iterable[bytes]) -> Iterator[ChatChunk]:
        chunk = _chunk(whole_object(chunks), "message")
        if chunk is not None:
            yield chunk

    def passed_on(self, pieces: Iterable[ChatChunk]) -> Iterator[ChatChunk]:
        """Yield all pieces. Raises AnswerFailed for an empty answer, and beyond RELAY_LIMIT_CHARS or _CHUNKS."""
        is_empty, size = True, 0
        for count, chunk in enumerate(pieces):
            size += len(json.dumps(chunk.delta))
            if size > RELAY_LIMIT_CHARS or count > RELAY_LIMIT_CHUNKS:
                raise AnswerFailed("the answer is too long")
            is_empty = is_empty and not chunk.delta
            yield chunk
        if is_empty:
            raise AnswerFailed("an empty answer")


def _chunk(body: Mapping[str, Any], part: str) -> ChatChunk | None:
    """Return the chunk in the `part` of the first choice of `body`; None when it is empty."""
    choice = first_choice(body)
    content, reason, usage = choice.get(part), choice.get("finish_reason"), body.get("usage")
    fields = {name: content[name] for name in PASSED_ON if content.get(name)} if isinstance(content, dict) else {}
    if not fields and not reason and not usage:
        return None
    return ChatChunk(fields, reason if isinstance(reason, str) else None, usage if isinstance(usage, dict) else None)
