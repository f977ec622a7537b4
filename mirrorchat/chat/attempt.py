"""One request to one chat API: a thread reads the answer, and the caller's thread waits for its pieces.

The reading thread makes the calls that block (name look-up, connection, TLS, reads). The caller's thread waits on a
queue, within its context and the API's own limits. A socket's timeout does not stop a server that sends one byte now
and then, and nothing interrupts a name look-up; with the queue the caller always goes on in time, and a shutdown of the
connection ends the thread.
"""

import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import requests
import urllib3

from mirrorchat.chat.answer_stream import answer_chunks
from mirrorchat.chat.chunks import ChatChunk
from mirrorchat.chat.complaints import complaint, masked, secrets_of
from mirrorchat.chat.connection import Connection, post
from mirrorchat.chat.reasoning import ReasoningFilter
from mirrorchat.chat.stream import AnswerFailed, json_value, server_sent_events
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import EngineInfo
from mirrorchat.errors import ChatFault, DeadlineExceeded
from mirrorchat.settings import ChatApi

_MAX_STREAM_BYTES = 64_000_000  # 20,000 one-character events of 3 kB each; comments count too
_MAX_REFUSAL_BYTES = 16_384
_MAX_RETRY_AFTER_S = 300.0
_READ_BYTES = 16_384
# To wait for what may follow: the usage after a finish_reason, which makes the answer whole, and the body of a refusal.
_GRACE_S = 1.0
_MARGIN_S = 0.05  # past the deadline, so that the caller notices it before the API seems to be at fault
_JOIN_S = 1.0

Piece = TypeVar("Piece")  # of an answer: an event of a turn, or a chunk as OpenAI's API streams it


class _Woken:
    """Tells the caller's thread that its limits have changed."""


class Attempt(Generic[Piece]):
    """One request to one API. As a context manager it closes the connection and ends the thread at exit.

    Arguments:
        api: the API.
        request: the fields of the request.
        reasoning: takes the reasoning out of the answer.
        shape: makes the pieces that the caller gets of the answer's chunks, within limits.

    Example:

        with Attempt(api, {"messages": messages}, ReasoningFilter(), as_events) as attempt:
            for event in attempt.pieces(context): ...
    """

    def __init__(
        self,
        api: ChatApi,
        request: Mapping[str, Any],
        reasoning: ReasoningFilter,
        shape: Callable[[Iterable[ChatChunk]], Iterator[Piece]],
    ) -> None:
        self._api = api
        self._request = request
        self._reasoning = reasoning
        self._shape = shape
        self._info = EngineInfo(name="chat", model=f"{api.model}@{api.host}", device="remote")
        self._connection = Connection()
        # It never blocks the reading thread; MAX_ANSWER_CHARS bounds it. None is the end.
        self._events: queue.Queue[Piece | _Woken | BaseException | None] = queue.Queue()
        self._started_at = time.monotonic()
        # Written by the reading thread:
        self._first_token_at: float | None = None
        self._heard_at = 0.0  # when the last bytes came
        self._finished_at: float | None = None
        self._refused: tuple[float, AnswerFailed] | None = None
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
        """Yield the pieces of the answer, once. Raises AnswerFailed, OpeningMissing, and the reason of `context`."""
        context.check()
        self._connect_timeout_s = min(self._api.timeout_s, context.remaining_s() + _MARGIN_S)
        self._thread.start()
        while True:
            try:
                event = context.wait(self._events, timeout_s=max(0.0, self._limit()[0] - time.monotonic()))
            except (TimeoutError, DeadlineExceeded) as error:
                limit_at, failure = self._limit()
                if time.monotonic() >= limit_at and failure is not None:
                    raise failure from None
                if isinstance(error, DeadlineExceeded):  # last: an API that used up its own time is at fault
                    raise
                if time.monotonic() >= limit_at:
                    self._stop_reading()
                continue
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            if not isinstance(event, _Woken):
                yield event
            context.check()

    def _limit(self) -> tuple[float, AnswerFailed | None]:
        """Return until when (monotonic) the queue may stay empty, and the failure then; None if the answer is whole.

        It counts only while the queue is empty, so that a slow reader never makes a fast API look slow.
        """
        if self._refused is not None:
            return self._refused[0] + _GRACE_S, self._refused[1]
        api, start = self._api, self._started_at
        limits = [(start + api.total_timeout_s, f"no whole answer within {api.total_timeout_s:g} s")]
        if self._finished_at is not None:
            return min(self._finished_at + _GRACE_S, limits[0][0]), None
        if not self._connection.connected:
            limits.append((start + api.timeout_s, f"no connection within {api.timeout_s:g} s"))
        if self._first_token_at is None:
            limits.append((start + api.first_token_timeout_s, f"no answer within {api.first_token_timeout_s:g} s"))
        else:
            limits.append((self._heard_at + api.timeout_s, f"silent for {api.timeout_s:g} s"))
        limit_at, reason = min(limits, key=lambda limit: limit[0])
        return limit_at, AnswerFailed(reason, ChatFault.TIMEOUT)

    def _stop_reading(self) -> None:
        """End the reading of a whole answer: its thread then queues what is left, and the end."""
        self._connection.close()
        self._thread.join(_JOIN_S)
        self._finished_at = float("inf")

    def _run(self) -> None:
        """Ask, and queue the pieces and then None or an error. Runs in the attempt's own thread."""
        try:
            # A new session: requests does not promise that threads can share one, and the server may have closed a
            # connection that an earlier call left open.
            with (
                requests.Session() as session,
                post(session, self._connection, self._api, self._request, self._connect_timeout_s) as response,
            ):
                self._check_status(response)
                for piece in self._shape(self._chunks(response)):
                    self._events.put(piece)
                self._events.put(None)
        except AnswerFailed as failure:
            self._events.put(self._told(failure))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._events.put(_as_failed(error, self._api))
        except BaseException as error:  # OpeningMissing, or our own defect: the caller's thread raises it
            self._events.put(error)
        finally:
            self._connection.close()

    def _told(self, failure: AnswerFailed) -> AnswerFailed:
        """Return `failure` with the server's own message in its reason."""
        if message := masked(failure.message, secrets_of(self._api, self._request)):
            failure.reason = f"{failure.reason}: {message}"
        return failure

    def _chunks(self, response: requests.Response) -> Iterator[ChatChunk]:
        """Yield the chunks of the answer, and note the times that the limits need."""
        for chunk in answer_chunks(self._body(response), self._reasoning):
            if chunk.is_token and self._first_token_at is None:
                self._first_token_at = time.monotonic()
                self._events.put(_Woken())
            yield replace(chunk, answered_by=self._info)
            if chunk.finish_reason and self._finished_at is None:
                self._finished_at = time.monotonic()
                self._events.put(_Woken())

    def _body(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the body as it arrives: read1 returns the available bytes, other reads wait for a full buffer."""
        size = 0
        while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
            self._heard_at = time.monotonic()
            size += len(chunk)
            if size > _MAX_STREAM_BYTES:
                raise AnswerFailed("the stream is too long")
            yield chunk

    def _check_status(self, response: requests.Response) -> None:
        """Raise AnswerFailed for any status but success, with the beginning of the body if that comes soon."""
        status = response.status_code
        if 200 <= status < 300:  # some servers answer each POST with 201
            return
        reason = f"HTTP {status}"
        if 300 <= status < 400:
            reason += ", a redirect, which is not followed: a key goes to no other host"
        retry_after_s = _retry_after_s(response) if status in (429, 503) else None
        failure = AnswerFailed(reason, ChatFault.STATUS, status=status, retry_after_s=retry_after_s)
        if status >= 400:
            self._refused = time.monotonic(), failure
            self._events.put(_Woken())
            failure.message = _refusal(self._body(response))
        raise failure


def _refusal(body: Iterable[bytes]) -> str:
    """Return the message in the body of a refusal, "" for a web page."""
    data = b""
    with suppress(urllib3.exceptions.HTTPError, OSError):
        for chunk in body:
            data += chunk
            if len(data) >= _MAX_REFUSAL_BYTES:
                break
    text = data.decode("utf-8-sig", "replace").strip()
    with suppress(AnswerFailed):
        text = next((event.data for event in server_sent_events([data])), text)
    try:
        parsed = json_value(text)
    except (ValueError, RecursionError):
        return "" if text.startswith(("<", "{", "[")) else text
    parsed = parsed[0] if isinstance(parsed, list) and parsed else parsed
    return (complaint(parsed) or "") if isinstance(parsed, dict) else str(parsed)


def _retry_after_s(response: requests.Response) -> float | None:
    """Return the seconds of Retry-After, at most _MAX_RETRY_AFTER_S; None when it is missing or cannot be read."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, OSError):
            return None
    return min(max(0.0, seconds), _MAX_RETRY_AFTER_S)


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
