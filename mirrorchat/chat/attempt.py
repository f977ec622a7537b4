"""One request to one chat API: a thread reads the answer, and the caller's thread waits for its pieces.

The reading thread makes the calls that block (name look-up, connection, TLS, reads). The caller's thread waits on a
queue, within its context and the API's own limits. A socket's timeout does not stop a server that sends one byte now
and then, and nothing interrupts a name look-up; with the queue the caller always goes on in time, and a shutdown of the
connection ends the thread.
"""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import requests
import urllib3

from mirrorchat.chat.chunks import Reader
from mirrorchat.chat.connection import Connection, post
from mirrorchat.chat.stream import AnswerFailed, events
from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ChatFault, DeadlineExceeded
from mirrorchat.settings import ChatApi

_MAX_STREAM_BYTES = 64_000_000  # 20,000 one-character events of 3 kB each; comments count too
_MAX_RETRY_AFTER_S = 300.0
_READ_BYTES = 16_384
_GRACE_S = 1.0  # to wait for [DONE] after a finish_reason: the answer is whole, but some servers send usage after it
_MARGIN_S = 0.05  # past the deadline, so that the caller notices it before the API seems to be at fault
_JOIN_S = 1.0
# A reason names these types only: a header can echo the key, as a body can.
_KNOWN_TYPES = ("text/html", "text/plain", "text/xml", "application/xml", "application/octet-stream")

Piece = TypeVar("Piece")  # of an answer: text, or a chunk as OpenAI's API streams it


class _Finished:
    """Tells that the API has sent a finish_reason; the stream may go on."""


class Attempt(Generic[Piece]):
    """One request to one API. As a context manager it closes the connection and ends the thread at exit.

    with Attempt(api, {"messages": messages}, TextReader()) as attempt:
        for text in attempt.pieces(context): ...
    """

    def __init__(self, api: ChatApi, request: Mapping[str, Any], reader: Reader[Piece]) -> None:
        self._api = api
        self._request = request
        self._reader = reader
        self._connection = Connection()
        # It never blocks the reading thread; MAX_ANSWER_CHARS bounds it. None is the end.
        self._events: queue.Queue[Piece | _Finished | BaseException | None] = queue.Queue()
        self._finished_at: float | None = None
        self._started_at = time.monotonic()
        self._connect_timeout_s = api.timeout_s
        # A daemon: nothing can end a name look-up that hangs, and it must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"chat-{api.host}", daemon=True)

    def __enter__(self) -> "Attempt[Piece]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        # A connected thread ends at once. Before, it is in the name look-up or in connect(), which end by themselves,
        # and it will send nothing.
        if self._connection.connected and self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def pieces(self, context: Context) -> Iterator[Piece]:
        """Yield the pieces of the answer, once. Raises AnswerFailed, and the reason if `context` ends."""
        context.check()
        self._connect_timeout_s = min(self._api.timeout_s, context.remaining_s() + _MARGIN_S)
        self._thread.start()
        begun = False
        while True:
            try:
                event = context.wait(self._events, timeout_s=max(0.0, self._limit(begun)[0] - time.monotonic()))
            except (TimeoutError, DeadlineExceeded) as error:
                limit_at, failure = self._limit(begun)
                if time.monotonic() >= limit_at:
                    if failure is None:
                        return
                    raise failure from None
                if isinstance(error, DeadlineExceeded):  # last: an API that used up its own time is at fault
                    raise
                continue
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            if not isinstance(event, _Finished):
                begun = True
                yield event
            context.check()

    def _limit(self, begun: bool) -> tuple[float, AnswerFailed | None]:
        """Return until when (monotonic) the queue may stay empty, and the failure then; None if the answer is whole.

        It counts only while the queue is empty, so that a slow reader never makes a fast API look slow.
        """
        api = self._api
        limits: list[tuple[float, str]] = []
        if not self._connection.connected:
            limits.append((api.timeout_s, "no connection"))
        if not begun:
            limits.append((api.first_token_timeout_s, "no answer"))
        limits.append((api.total_timeout_s, "no whole answer"))
        limit_s, missing = min(limits, key=lambda limit: limit[0])
        if begun and self._finished_at is not None and self._finished_at + _GRACE_S <= self._started_at + limit_s:
            return self._finished_at + _GRACE_S, None
        return self._started_at + limit_s, AnswerFailed(f"{missing} within {limit_s:g} s", ChatFault.TIMEOUT)

    def _run(self) -> None:
        """Ask, and queue the pieces and then None or an error. Runs in the attempt's own thread."""
        try:
            # A new session: requests does not promise that threads can share one, and the server may have closed a
            # connection that an earlier call left open.
            with (
                requests.Session() as session,
                post(session, self._connection, self._api, self._request, self._connect_timeout_s) as response,
            ):
                for piece in self._reader.passed_on(self._pieces(response)):
                    self._events.put(piece)
                self._events.put(None)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._events.put(_as_failed(error, self._api))
        except BaseException as error:  # AnswerFailed, or our own defect: the caller's thread raises it
            self._events.put(error)
        finally:
            self._connection.close()

    def _pieces(self, response: requests.Response) -> Iterator[Piece]:
        """Yield the pieces of an answer in either format. Raises AnswerFailed for another response."""
        _check_status(response)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            yield from self._streamed(_chunks(response))
        elif kind == "application/json":
            yield from self._reader.whole(_chunks(response))
        else:
            raise AnswerFailed(f"not an event stream ({kind if kind in _KNOWN_TYPES else 'unknown type'})")

    def _streamed(self, chunks: Iterator[bytes]) -> Iterator[Piece]:
        """Yield the pieces of a stream up to [DONE]. Raises AnswerFailed when it ends before it is finished."""
        empty = True
        try:
            for name, data in events(chunks):
                empty = False
                if data.strip() == "[DONE]":
                    return
                piece, finished = self._reader.event(name, data)
                if piece is not None:
                    yield piece
                if finished and self._finished_at is None:
                    self._finished_at = time.monotonic()
                    self._events.put(_Finished())
        except (urllib3.exceptions.HTTPError, OSError):
            if self._finished_at is None:  # after a finish_reason the answer is whole
                raise
        if self._finished_at is None:
            raise AnswerFailed("an empty stream" if empty else "the stream broke off")


def _check_status(response: requests.Response) -> None:
    """Raise AnswerFailed for any status but 200. The body stays unread: it can be endless, and can echo the key."""
    status = response.status_code
    if 300 <= status < 400:
        reason = f"HTTP {status}, a redirect, which is not followed: a key goes to no other host"
        raise AnswerFailed(reason, ChatFault.STATUS, status=status)
    if status != 200:
        retry_after_s = _retry_after_s(response) if status in (429, 503) else 0.0
        raise AnswerFailed(f"HTTP {status}", ChatFault.STATUS, status=status, retry_after_s=retry_after_s)


def _retry_after_s(response: requests.Response) -> float:
    """Return the seconds of Retry-After, at most _MAX_RETRY_AFTER_S; 0.0 when it is missing or a date."""
    text = response.headers.get("Retry-After", "").strip()
    # Ten digits or more are no sensible number of seconds.
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdecimal() and len(text) < 10 else 0.0


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives: read1 returns the available bytes, other reads wait for a full buffer."""
    size = 0
    while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
        size += len(chunk)
        if size > _MAX_STREAM_BYTES:
            raise AnswerFailed("the stream is too long")
        yield chunk


def _as_failed(error: BaseException, api: ChatApi) -> AnswerFailed:
    """Map an error of requests, urllib3 or the socket. This is the only place that maps foreign errors.

    The types along the chain of causes decide; the texts are neither read nor passed on, since they hold URLs and
    headers.
    """
    chain: list[BaseException] = []
    while error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__ or error
    # All of requests' errors about a URL, a header or a proxy's address are ValueErrors; deeper in the chain one can
    # mean anything.
    if isinstance(chain[0], ValueError):
        return AnswerFailed("the request cannot be sent: check the url, the headers and the proxy", ChatFault.REQUEST)
    for kinds, fault, reason in _REASONS:
        if any(isinstance(link, kinds) for link in chain):
            return AnswerFailed(reason.format(timeout_s=f"{api.timeout_s:g}"), fault)
    return AnswerFailed("the connection broke off", ChatFault.CONNECTION)


_REASONS: tuple[tuple[tuple[type[BaseException], ...], ChatFault, str], ...] = (
    (
        (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), ChatFault.PROXY, "the proxy could not be used",
    ),
    ((urllib3.exceptions.NameResolutionError, socket.gaierror), ChatFault.NAME, "its name cannot be resolved"),
    ((ConnectionRefusedError,), ChatFault.REFUSED, "refused the connection"),
    ((urllib3.exceptions.ReadTimeoutError,), ChatFault.TIMEOUT, "silent for {timeout_s} s"),
    (
        (urllib3.exceptions.ConnectTimeoutError, TimeoutError), ChatFault.TIMEOUT, "no connection within {timeout_s} s",
    ),
    ((ssl.SSLError, urllib3.exceptions.SSLError), ChatFault.TLS, "no secure connection (TLS error)"),
    ((urllib3.exceptions.NewConnectionError,), ChatFault.CONNECTION, "cannot be reached"),
    (
        (urllib3.exceptions.DecodeError, requests.exceptions.ContentDecodingError), ChatFault.ANSWER,
        "a body that cannot be decoded",
    ),
)  # fmt: skip
