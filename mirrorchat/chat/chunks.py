"""An answer read as text, which is spoken, or as the chunks of OpenAI's API, which are passed on to its clients."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from mirrorchat.chat.stream import AnswerFailed, event_text, spoken, whole_object, whole_text
from mirrorchat.errors import ChatFailure
from mirrorchat.turn.context import Context

RELAY_LIMIT_CHARS = 1_000_000  # of an answer that is passed on, as JSON
RELAY_LIMIT_CHUNKS = 40_000  # under pipeline.EVENT_LIMIT
PASSED_ON = ("content", "refusal", "tool_calls", "reasoning_content")  # of a delta or a message; `role` is ours

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class ChatChunk:
    """A further piece of an answer: fields of OpenAI's `delta`, why it ended, what it took; any may be missing."""

    delta: Mapping[str, Any]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        content = self.delta.get("content")
        return content if isinstance(content, str) else ""


@runtime_checkable
class Relays(Protocol):
    """A chat model that passes whole requests in OpenAI's form on."""

    def relay(
        self,
        request: Mapping[str, Any],
        *,
        model: str | None = None,
        context: Context,
        failed: Sequence[ChatFailure] = (),
    ) -> Iterator[ChatChunk]:
        """Yield the answer in chunks. Raises as ChatModel.stream does."""
        ...


class Reader(Protocol[Piece]):
    """Reads one answer. Every method raises AnswerFailed for what is none."""

    def event(self, name: str, data: str) -> tuple[Piece | None, bool]:
        """Return what one event of a stream says, and whether the answer is finished with it."""
        ...

    def whole(self, chunks: Iterable[bytes]) -> Iterator[Piece]:
        """Yield what an API says that sends one JSON body although a stream was asked for."""
        ...

    def passed_on(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Yield `pieces` fit to pass on, within bounds."""
        ...


class TextReader:
    """The text alone."""

    def event(self, name: str, data: str) -> tuple[str | None, bool]:
        text, finished = event_text(name, data)
        return text or None, finished

    def whole(self, chunks: Iterable[bytes]) -> Iterator[str]:
        yield whole_text(chunks)

    def passed_on(self, pieces: Iterable[str]) -> Iterator[str]:
        return spoken(pieces)


class ChunkReader:
    """All that a client of OpenAI's API may want: text, calls of tools, why it ended, what it took."""

    def event(self, name: str, data: str) -> tuple[ChatChunk | None, bool]:
        event_text(name, data)  # raises for what is no event of an answer
        chunk = _chunk(json.loads(data), "delta")
        return chunk, bool(chunk and chunk.finish_reason)

    def whole(self, chunks: Iterable[bytes]) -> Iterator[ChatChunk]:
        chunk = _chunk(whole_object(chunks), "message")
        if chunk is not None:
            yield chunk

    def passed_on(self, pieces: Iterable[ChatChunk]) -> Iterator[ChatChunk]:
        """Raises AnswerFailed for an answer that says nothing, and past RELAY_LIMIT_CHARS or _CHUNKS."""
        said, size = False, 0
        for count, chunk in enumerate(pieces):
            size += len(json.dumps(chunk.delta))
            if size > RELAY_LIMIT_CHARS or count > RELAY_LIMIT_CHUNKS:
                raise AnswerFailed("the answer is too long")
            said = said or bool(chunk.delta)
            yield chunk
        if not said:
            raise AnswerFailed("an empty answer")


def _chunk(body: Mapping[str, Any], part: str) -> ChatChunk | None:
    """Return what `body` says in its first choice's `part`; None when that is nothing."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    said, reason, usage = choice.get(part), choice.get("finish_reason"), body.get("usage")
    fields = {name: said[name] for name in PASSED_ON if said.get(name)} if isinstance(said, dict) else {}
    if not fields and not reason and not usage:
        return None
    return ChatChunk(fields, reason if isinstance(reason, str) else None, usage if isinstance(usage, dict) else None)
