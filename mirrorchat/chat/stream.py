"""The body of a chat API's response, read as JSON objects in any of three forms: server-sent events, lines, or one.

The first bytes tell the form; the Content-Type of many servers is wrong or missing. These functions use no connection;
attempt.py reads the bytes. Every size is bounded, since a server can be broken.
"""

import codecs
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from mirrorchat.errors import ChatFault

_MAX_LINE_CHARS = 1_000_000
_BOM = "\ufeff"  # some servers send one before each event
_BLANKS = _BOM.encode() + b" \t\r\n"
_FORM_BYTES = 6
_FORM = re.compile(rb"(?P<page><)|(?P<json>[{\[])|(?:data|event|id|retry|error)?:|data[\r\n]")


class AnswerFailed(Exception):
    """This API gave no whole answer. `reason` is for people and holds no key, no path and no text of the server.

    `message` is the server's own text, which can hold a key: it is masked before it goes anywhere.
    """

    def __init__(
        self,
        reason: str,
        fault: ChatFault = ChatFault.ANSWER,
        *,
        message: str = "",
        status: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message
        self.fault = fault
        self.status = status
        self.retry_after_s = retry_after_s


def json_value(text: str) -> Any:
    """Return the JSON value in `text`. Text without an object may follow an object, as some proxies append it.

    NaN and numbers beyond a float, which JSON does not have, become None. Raises ValueError and RecursionError.
    """
    text = text.strip()
    value, end = _JSON.raw_decode(text)
    if end < len(text) and ("{" in text[end:] or not isinstance(value, dict | list)):
        raise ValueError("more than one value")
    return value


def _finite(number: str) -> float | None:
    return float(number) if math.isfinite(float(number)) else None


_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=lambda name: None)


def _lines(chunks: Iterable[bytes], limit_chars: int) -> Iterator[str]:
    """Yield the lines, without their ends (LF, CR or CRLF), of UTF-8 in chunks of any length, and without any BOM.

    Other bytes become U+FFFD, as the standard of event streams requires.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    decoder = io.IncrementalNewlineDecoder(cast(Any, utf8), translate=True)
    # The parts of a line that has not ended; they are joined once, so that a long line takes linear time.
    parts: list[str] = []
    size = 0
    for chunk in chunks:
        *whole, rest = decoder.decode(chunk).replace(_BOM, "").split("\n")
        for line in whole:
            yield "".join(parts) + line
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > limit_chars:
            raise AnswerFailed("a line is too long for an event stream")
    yield "".join(parts) + decoder.decode(b"", final=True).rstrip("\n")


@dataclass(frozen=True)
class Event:
    """A piece of a response's body: the `name` of a server-sent event, its data, and whether it is plain JSON."""

    name: str
    data: str
    is_plain: bool = False


def events(chunks: Iterable[bytes], *, limit_chars: int = _MAX_LINE_CHARS) -> Iterator[Event]:
    """Yield the pieces of a response's body. Raises AnswerFailed for a body that no chat API sends."""
    chunks = iter(chunks)
    start = _start(chunks)
    lines = _lines(chain([start], chunks), limit_chars)
    match _FORM.match(start):
        case None if not start.strip(_BLANKS):
            raise AnswerFailed("an empty stream")
        case None:
            raise AnswerFailed("neither an event stream nor JSON", message=_readable(next(lines)))
        case form if form["page"]:
            raise AnswerFailed("a web page instead of an answer: it may be the sign-in page of a proxy")
        case form if form["json"]:
            return _json_pieces(lines, limit_chars)
    return _server_sent(lines, limit_chars)


def server_sent_events(chunks: Iterable[bytes], *, limit_chars: int = _MAX_LINE_CHARS) -> Iterator[Event]:
    """Yield the events of a body that is known to be a stream of server-sent events."""
    return _server_sent(_lines(chunks, limit_chars), limit_chars)


def _start(chunks: Iterator[bytes]) -> bytes:
    """Return as much of the body as tells its form."""
    start = b""
    for chunk in chunks:
        start = (start + chunk).lstrip(_BLANKS)
        if len(start) >= _FORM_BYTES or start[:1] in (b"<", b"{", b"["):
            break
    return start


def _readable(line: str) -> str:
    """Return `line`, "" if its bytes were no text."""
    return "" if "\ufffd" in line else line


def _json_pieces(lines: Iterator[str], limit_chars: int) -> Iterator[Event]:
    """Yield the objects of a body with one on each line, as Ollama's own API sends them; else the whole body."""
    first = next(line for line in lines if line.strip())
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        yield Event("", "\n".join([first, *_bounded(lines, limit_chars)]), is_plain=True)
        return
    for line in chain([first], lines):
        if line.strip():
            yield Event("", line, is_plain=True)


def _bounded(lines: Iterable[str], limit_chars: int) -> Iterator[str]:
    for line in lines:
        limit_chars -= len(line) + 1
        if limit_chars < 0:
            raise AnswerFailed("the JSON body is too long")
        yield line


def _server_sent(lines: Iterator[str], limit_chars: int) -> Iterator[Event]:
    """Yield the events of a stream of server-sent events (WHATWG HTML, section 9.2).

    Unlike the standard, this keeps an event that the end of the stream cuts off, since many servers end at
    `data: [DONE]`, and it parts events between which a server forgets the blank line. It knows the field `error`, and
    JSON without a field, which some servers send after comments.
    """
    name, data, size = "", list[str](), 0
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith("{") and not data:
            yield from _json_pieces(chain([line], lines), limit_chars)
            return
        if field == "error":
            yield Event("error", value)
        elif field == "data":
            if data and data[-1].endswith("}") and value.startswith(("{", "[DONE]")):
                yield Event(name, "\n".join(data))
                data, size = [], 0
            data.append(value)
            size += len(value)
        elif field == "event":
            name = value
        elif not line:
            if data:
                yield Event(name, "\n".join(data))
            name, data, size = "", [], 0
        if size > limit_chars:
            raise AnswerFailed("an event is too long for an event stream")
    if data:
        yield Event(name, "\n".join(data))
