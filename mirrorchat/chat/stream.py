"""The response of a chat-completions API, read as text: a stream of server-sent events, or one JSON body.

These functions use no connection; attempt.py reads the bytes. Every size is bounded, since a server can be broken.
"""

import codecs
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from mirrorchat.errors import ChatFault

MAX_ANSWER_CHARS = 20_000  # about twenty minutes of speech
_MAX_LINE_CHARS = 1_000_000


class AnswerFailed(Exception):
    """This API gave no whole answer. `reason` is for people and holds no key, no path and no text of the server."""

    def __init__(
        self, reason: str, fault: ChatFault = ChatFault.ANSWER, *, status: int = 0, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault = fault
        self.status = status
        self.retry_after_s = retry_after_s


def _lines(chunks: Iterable[bytes], limit_chars: int) -> Iterator[str]:
    """Yield the lines, without their ends (LF, CR or CRLF), of UTF-8 in chunks of any length, with or without a BOM.

    Other bytes become U+FFFD, as the standard of event streams requires.
    """
    utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
    decoder = io.IncrementalNewlineDecoder(cast(Any, utf8), translate=True)
    # The parts of a line that has not ended; they are joined once, so that a long line takes linear time.
    parts: list[str] = []
    size = 0
    for chunk in chunks:
        *whole, rest = decoder.decode(chunk).split("\n")
        for line in whole:
            yield "".join(parts) + line
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > limit_chars:
            raise AnswerFailed("a line is too long for an event stream")
    yield "".join(parts) + decoder.decode(b"", final=True).rstrip("\n")


def events(chunks: Iterable[bytes], *, limit_chars: int = _MAX_LINE_CHARS) -> Iterator[tuple[str, str]]:
    """Yield (event name, data) of a stream of server-sent events (WHATWG HTML, section 9.2).

    Unlike the standard, this keeps an event that the end of the stream cuts off: many servers end at `data: [DONE]`.
    """
    name, data, size = "", [], 0
    for line in _lines(chunks, limit_chars):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
            size += len(value)
        elif field == "event":
            name = value
        elif not line:
            if data:
                yield name, "\n".join(data)
            name, data, size = "", [], 0
        if size > limit_chars:
            raise AnswerFailed("an event is too long for an event stream")
    if data:
        yield name, "\n".join(data)


def event_text(name: str, data: str) -> tuple[str, bool]:
    """Return the text of one event of OpenAI's stream, and whether the event finishes the answer."""
    body = _object(data)
    if body.get("error") or name == "error":
        raise AnswerFailed("an error in the stream")
    choice = first_choice(body)  # Azure's filter results and OpenAI's usage have none
    return _content(choice.get("delta")), bool(choice.get("finish_reason"))


def whole_text(chunks: Iterable[bytes]) -> str:
    """Return the answer of an API that ignores the request for a stream and sends one JSON body."""
    return _content(first_choice(whole_object(chunks)).get("message"))


def whole_object(chunks: Iterable[bytes]) -> dict[str, Any]:
    """Return the JSON body of such an answer. Raises AnswerFailed for an error, or another body."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _MAX_LINE_CHARS:
            raise AnswerFailed("the JSON body is too long")
    parsed = _object(body)
    if parsed.get("error"):
        raise AnswerFailed("an error instead of an answer")
    return parsed


def _object(text: str | bytearray) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise AnswerFailed("not valid JSON") from None
    if not isinstance(parsed, dict):
        raise AnswerFailed("not a chat completion")
    return parsed


def first_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first of the `choices` in a chat completion; {} where there is none."""
    choices = body.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _content(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def spoken(texts: Iterable[str]) -> Iterator[str]:
    """Yield `texts` without leading whitespace and without half characters, at most MAX_ANSWER_CHARS characters.

    At that length the answer counts as finished: nobody listens for longer. Raises AnswerFailed for an empty answer.
    """
    # JSON writes a character such as an emoji as two surrogates, which some servers send in two events.
    pairs = codecs.getincrementaldecoder("utf-16-le")("replace")
    left = MAX_ANSWER_CHARS
    for text in texts:
        piece = pairs.decode(text.encode("utf-16-le", "surrogatepass"))
        piece = (piece.lstrip() if left == MAX_ANSWER_CHARS else piece)[:left]
        if piece:
            yield piece
            left -= len(piece)
        if not left:
            return
    if left == MAX_ANSWER_CHARS:
        raise AnswerFailed("an empty answer", ChatFault.EMPTY)
