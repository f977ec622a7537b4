"""The chat client: one question to the first API of an ordered list that answers, streamed as OpenAI's API streams.

Each API that is tried gets an `_Attempt`: a thread that does the blocking work (name look-up, connection, TLS, reads),
while the caller's thread waits on a queue and watches the clock and the cancel switch. A socket's own timeout cannot
hold a limit against a server that sends one byte now and then, and nothing interrupts a name look-up; here the caller
goes on in time whatever the socket does, and shutting the connection down ends the thread.
"""

import contextlib
import functools
import ipaddress
import logging
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import get_auth_from_url
from urllib3.connection import HTTPConnection, HTTPSConnection

from mirrorchat import __version__
from mirrorchat.chat.chunks import ChatChunk, ChunkReader, Reader, TextReader
from mirrorchat.chat.stream import AnswerFailed, events
from mirrorchat.engines import Cancel, Deadline, EngineInfo, Language, Message
from mirrorchat.errors import ChatFailure, ChatFault, ChatInterrupted, NoChatApi
from mirrorchat.settings import ChatApi

_MAX_STREAM_BYTES = 64_000_000  # 20,000 one-character events of 3 kB each; comments count too
_MAX_RETRY_AFTER_S = 300.0
_REQUEST_STATUSES = (400, 413, 422)  # what an API says of a request, not of itself
_READ_BYTES = 16_384
_POLL_S = 0.02  # how late a cancel or a deadline is noticed at most
_GRACE_S = 1.0  # wait for [DONE] after a finish_reason: everything has been said, but some servers say more after it
_JOIN_S = 1.0
# Shown in a reason; any other type is only called unknown, because a header can echo the key like a body can.
_KNOWN_TYPES = ("text/html", "text/plain", "text/xml", "application/xml", "application/octet-stream")

Said = TypeVar("Said")  # a piece of an answer: text, or a chunk as OpenAI's API streams it

_log = logging.getLogger(__name__)


def build_messages(
    system_prompt: str, language: Language, question: str, history: Sequence[Message] = ()
) -> list[Message]:
    """Return the messages that ask `question` after `history`, the session's earlier turns, oldest first.

    `{language}` in `system_prompt` becomes `Chinese` or `English`.
    """
    prompt = system_prompt.format(language=language.value.capitalize())
    return [Message("system", prompt), *history, Message("user", question)]


class ChatClient:
    """A ChatModel over an ordered list of chat-completions APIs. Thread-safe.

    All that is kept between calls is which APIs failed lately: those are tried last for `cooldown_s` seconds, or for
    longer, up to 5 minutes, when the API said so itself with Retry-After.
    """

    def __init__(self, apis: Sequence[ChatApi], *, cooldown_s: float) -> None:
        self._apis = tuple(apis)
        self._cooldowns = _Cooldowns(len(self._apis), cooldown_s)
        self._failures = [0] * len(self._apis)
        self._lock = threading.Lock()
        models = ", ".join(f"{api.model}@{api.host}" for api in self._apis)
        self.info = EngineInfo(name="chat", model=models, device="remote", reason="chatgpt_apis is set")

    def stream(
        self, messages: Sequence[Message], *, deadline: Deadline, cancel: Cancel, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[str]:
        """Yield the answer in pieces as they come, without leading whitespace, at most MAX_ANSWER_CHARS characters.

        APIs named in `failed` (from an earlier ChatInterrupted of the same turn) are not tried again. Raises
        NoChatApi when none answered, ChatInterrupted when a stream broke after its first piece was yielded (both list
        every failure of the turn), DeadlineExceeded, or the reason of `cancel`. Closing the generator ends the
        request; the connection is closed however it ends.
        """
        asked = [{"role": message.role, "content": message.content} for message in messages]
        everyone = range(len(self._apis))
        return self._first_answer(TextReader, {"messages": asked}, everyone, deadline, cancel, failed)

    def relay(
        self,
        request: Mapping[str, Any],
        *,
        model: str | None = None,
        deadline: Deadline,
        cancel: Cancel,
        failed: Sequence[ChatFailure] = (),
    ) -> Iterator[ChatChunk]:
        """Yield the answer to a request in OpenAI's form as OpenAI's API streams it; its fields are passed on.

        `model`: ask those APIs only that are set to it; each API gets its own model's name. All else is as with
        `stream`.
        """
        chosen = [index for index, api in enumerate(self._apis) if model in (None, api.model)]
        return self._first_answer(ChunkReader, request, chosen, deadline, cancel, failed, callers=True)

    def _first_answer(
        self,
        reader: Callable[[], Reader[Said]],
        request: Mapping[str, Any],
        chosen: Collection[int],
        deadline: Deadline,
        cancel: Cancel,
        failed: Sequence[ChatFailure],
        *,
        callers: bool = False,  # the request is of a caller's making, and may be at fault
    ) -> Iterator[Said]:
        failures = list(failed)
        skipped = set(range(len(self._apis))).difference(chosen) | {failure.index for failure in failed}
        for index in self._cooldowns.order(skip=skipped):
            begun = False
            try:
                with _Attempt(self._apis[index], request, reader()) as attempt:
                    for piece in attempt.pieces(deadline, cancel):
                        begun = True
                        yield piece
            except AnswerFailed as failure:
                failures.append(self._note(index, failure, blame=not (callers and failure.status in _REQUEST_STATUSES)))
                if begun:
                    raise ChatInterrupted(f"the answer broke off: {failures[-1]}", failures) from None
            else:
                self._cooldowns.succeeded(index)
                return
        cancel.check()
        deadline.check()
        raise NoChatApi(f"no chat API answered: {'; '.join(map(str, failures)) or 'none is set'}", failures)

    def close(self) -> None:
        """Do nothing: connections live as long as a call, and a turn that still runs is ended by its `cancel`."""

    def failures(self) -> Sequence[int]:
        """Return how often each API has failed since the start, in list order."""
        with self._lock:
            return tuple(self._failures)

    def _note(self, index: int, failed: AnswerFailed, *, blame: bool) -> ChatFailure:
        if blame:
            with self._lock:
                self._failures[index] += 1
            self._cooldowns.failed(index, failed.retry_after_s)
        name = f"API {index + 1} ({self._apis[index].host})"
        failure = ChatFailure(index, name, failed.reason, failed.fault, failed.status)
        _log.warning("chat: %s", failure)
        return failure


class _Cooldowns:
    """Which APIs failed lately, on the monotonic clock."""

    def __init__(self, count: int, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self._until = [float("-inf")] * count
        self._lock = threading.Lock()

    def order(self, *, skip: Collection[int]) -> list[int]:
        """Return the APIs to try: the healthy in list order, then the cooling, those first that are ready soonest."""
        with self._lock:
            now = time.monotonic()
            ends = [until if until > now else float("-inf") for until in self._until]
        return sorted(
            (index for index in range(len(ends)) if index not in skip), key=lambda index: (ends[index], index)
        )

    def failed(self, index: int, retry_after_s: float) -> None:
        with self._lock:
            self._until[index] = time.monotonic() + max(self._cooldown_s, retry_after_s)

    def succeeded(self, index: int) -> None:
        with self._lock:
            self._until[index] = float("-inf")


class _Attempt(Generic[Said]):
    """One request to one API. A context manager: leaving it closes the connection and ends the thread."""

    def __init__(self, api: ChatApi, request: Mapping[str, Any], reader: Reader[Said]) -> None:
        self._api = api
        self._request = request
        self._reader = reader
        self._line = _Line()
        # Never blocks the reading thread; what it can hold is bounded by MAX_ANSWER_CHARS. None is the end.
        self._events: queue.SimpleQueue[Said | BaseException | None] = queue.SimpleQueue()
        self._finished_at: float | None = None
        self._started_at = time.monotonic()
        self._connect_timeout_s = api.timeout_s
        # a daemon, because a name look-up that hangs cannot be ended and must not keep the process alive
        self._thread = threading.Thread(target=self._run, name=f"chat-{api.host}", daemon=True)

    def __enter__(self) -> "_Attempt[Said]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._line.close()
        # Once connected the thread ends at once. Before that it is in the name look-up or in connect(), which end by
        # themselves, and sends nothing any more.
        if self._line.connected and self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def pieces(self, deadline: Deadline, cancel: Cancel) -> Iterator[Said]:
        """Yield the answer; called once. Raises AnswerFailed, DeadlineExceeded, or the reason of `cancel`."""
        cancel.check()
        deadline.check()
        # a little past the deadline, so that it is noticed here and not mistaken for the API's fault
        self._connect_timeout_s = min(self._api.timeout_s, deadline.remaining_s() + 2 * _POLL_S)
        self._thread.start()
        begun = False
        while True:
            try:
                event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                cancel.check()
                if self._is_over(begun):
                    return
            else:
                cancel.check()
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                begun = True
                yield event
            # last, so that an API which used up its own time is blamed for it even if the turn's ended with it
            deadline.check()

    def _is_over(self, begun: bool) -> bool:
        """Return whether the answer is whole although the server keeps the line; raise AnswerFailed when time is up.

        Called only when nothing is queued, so that a slow reader never makes a fast API look slow.
        """
        now, api = time.monotonic(), self._api
        spent_s = now - self._started_at
        if self._finished_at is not None and now - self._finished_at > _GRACE_S and begun:
            return True
        if not self._line.connected and spent_s > api.timeout_s:
            raise AnswerFailed(f"no connection within {api.timeout_s:g} s", ChatFault.TIMEOUT)
        if not begun and spent_s > api.first_token_timeout_s:
            raise AnswerFailed(f"no answer within {api.first_token_timeout_s:g} s", ChatFault.TIMEOUT)
        if spent_s > api.total_timeout_s:
            raise AnswerFailed(f"no whole answer within {api.total_timeout_s:g} s", ChatFault.TIMEOUT)
        return False

    def _run(self) -> None:
        """Ask, and queue the pieces and how it ended. Runs in the attempt's own thread."""
        try:
            # A session of its own: requests does not promise that one can be shared between threads, and a connection
            # kept from an earlier call could not be told from one that the server has closed meanwhile.
            with requests.Session() as session, self._post(session) as response:
                for piece in self._reader.passed_on(self._pieces(response)):
                    self._events.put(piece)
                self._events.put(None)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._events.put(_as_failed(error, self._api))
        except BaseException as error:  # AnswerFailed, or a mistake of ours: the caller's thread raises it
            self._events.put(error)
        finally:
            self._line.close()

    def _post(self, session: requests.Session) -> requests.Response:
        api = self._api
        adapter = _Adapter(self._line)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        if _is_loopback(api.endpoint):  # a proxy is for the world outside; it would not find this machine's server
            session.trust_env = False
            session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        return session.post(
            api.endpoint,
            json=_payload(api, self._request),
            headers=_headers(api),
            auth=_authorization(api),
            timeout=(self._connect_timeout_s, api.timeout_s),
            stream=True,
            allow_redirects=False,  # the key must reach no other host
        )

    def _pieces(self, response: requests.Response) -> Iterator[Said]:
        """Yield the pieces of an answer of either form; raise AnswerFailed for any other response, unread."""
        _check_status(response)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            yield from self._streamed(_chunks(response))
        elif kind == "application/json":
            yield from self._reader.whole(_chunks(response))
        else:
            raise AnswerFailed(f"not an event stream ({kind if kind in _KNOWN_TYPES else 'unknown type'})")

    def _streamed(self, chunks: Iterator[bytes]) -> Iterator[Said]:
        """Yield the pieces of a stream up to [DONE]; raise AnswerFailed when it ends before it is finished."""
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
        except (urllib3.exceptions.HTTPError, OSError):
            if self._finished_at is None:  # what breaks after a finish_reason breaks nothing of the answer
                raise
        if self._finished_at is None:
            raise AnswerFailed("an empty stream" if empty else "the stream broke off")


class _Line:
    """The connection of one attempt, which another thread can shut down at any moment, before it exists too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False
        self.connected = False

    def attach(self, connection: socket.socket) -> socket.socket:
        """Watch a new connection and return it; when the line is closed already, close it and raise OSError."""
        with self._lock:
            if self._closed:
                connection.close()
                raise ConnectionAbortedError("nobody waits for this answer any more")
            # A duplicate of our own: the reading thread may close its socket, or hand it to TLS, whenever it likes,
            # and we never shut down a descriptor that has come to mean something else.
            self._socket = connection.dup()
            self.connected = True
        return connection

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the server was first
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._socket.close()
                self._socket = None


class _Adapter(HTTPAdapter):
    """Connects through `line`, and shows urllib3, which logs URLs, no path or query: they can hold a key."""

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.target = "/"
        super().__init__(max_retries=0)

    def request_url(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        self.target = super().request_url(request, cast(Any, proxies))
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.netloc}/" if parts.netloc else "/"

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if pool.ConnectionCls not in (HTTPConnection, HTTPSConnection):  # with PySocks; never go past it unasked
            raise AnswerFailed("a SOCKS proxy cannot be used", ChatFault.PROXY)
        pool.ConnectionCls = functools.partial(_TlsConnection if pool.scheme == "https" else _Connection, self)
        return pool


class _Connection(HTTPConnection):
    def __init__(self, adapter: _Adapter, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._adapter = adapter

    def _new_conn(self) -> socket.socket:
        return self._adapter.line.attach(super()._new_conn())

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        super().putrequest(method, self._adapter.target, skip_host, skip_accept_encoding)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS; the handshake too is done on a connection that can be shut down."""


def _payload(api: ChatApi, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is sent: `request` stands above what the settings give this API, but for the model."""
    own = {"temperature": api.temperature, "max_tokens": api.max_tokens}
    if "max_completion_tokens" in request:
        del own["max_tokens"]  # an older name of the same
    return {name: value for name, value in own.items() if value is not None} | {
        **request,
        "model": api.model,
        "stream": True,
    }


def _headers(api: ChatApi) -> CaseInsensitiveDict[str]:
    """Return the request's headers; those of the settings win, `Authorization` included."""
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    headers["Accept"] = "text/event-stream, application/json"
    headers["Accept-Encoding"] = "identity"  # a compressor holds pieces back
    headers["User-Agent"] = f"mirrorchat/{__version__}"
    if api.key:
        headers["Authorization"] = f"Bearer {api.key}"
    headers.update(api.headers)
    return headers


def _authorization(api: ChatApi) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return requests' `auth`: always something, because without one requests puts ~/.netrc over our header."""
    user, password = get_auth_from_url(api.endpoint)
    if user and not api.key:
        return HTTPBasicAuth(user, password)
    return lambda request: request


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_status(response: requests.Response) -> None:
    """Raise AnswerFailed for anything but 200. The body stays unread: it can be endless, and can echo the key."""
    status = response.status_code
    if 300 <= status < 400:
        reason = f"HTTP {status}, a redirect, which is not followed: a key goes to no other host"
        raise AnswerFailed(reason, ChatFault.STATUS, status=status)
    if status != 200:
        retry_after_s = _retry_after_s(response) if status in (429, 503) else 0.0
        raise AnswerFailed(f"HTTP {status}", ChatFault.STATUS, status=status, retry_after_s=retry_after_s)


def _retry_after_s(response: requests.Response) -> float:
    """Return the seconds of Retry-After, at most _MAX_RETRY_AFTER_S; 0.0 when there is none, or a date."""
    text = response.headers.get("Retry-After", "").strip()
    # at most nine digits: more would only ever mean the limit, or nonsense
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdecimal() and len(text) < 10 else 0.0


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it comes: read1 waits for something, the other ways to read wait for a full buffer."""
    size = 0
    while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
        size += len(chunk)
        if size > _MAX_STREAM_BYTES:
            raise AnswerFailed("the stream is too long")
        yield chunk


def _as_failed(error: BaseException, api: ChatApi) -> AnswerFailed:
    """Say for people what an error of requests, urllib3 or the socket means. Foreign errors are told apart only here.

    By their types along the chain of causes; never by their texts, and never with them: they hold URLs and headers.
    """
    chain: list[BaseException] = []
    while error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__ or error
    # requests' errors about a URL, a header or a proxy's address are all ValueErrors; deeper down one can mean anything
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
