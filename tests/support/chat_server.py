"""A real chat-completions server on 127.0.0.1 that answers, or fails, in a way that a test chooses.

    with ChatServer(answer("Blue, mostly.")) as server:
        settings = Settings(chatgpt_apis=(ChatApi(**server.api(key="...")),))
        ...
    server.requests[0].question  # what reached the API

A behaviour is a function of the `Exchange`: it writes raw bytes of HTTP, and waits in ways that notice when the client
closes the connection (`request.closed_early`) or the server stops, so that no test leaves a thread behind.
"""

import json
import select
import socket
import socketserver
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, cast

PATIENCE_S = 60.0
JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream"

# A key pair made for this file alone, for localhost and 127.0.0.1; it is no secret and protects nothing.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUMb1HMUgPBvaykmLtrZ1sHI3+mkswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjE3NTk1M1oYDzIxMjYxMDI5
MTc1OTUzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQ5DHaldfi5pAZW+HSzSu35aJSzLOBwi2EVc5AeAhARWMQcZob7NZ0/
DBdweTBxGOJor1Q98B0qPUd2hC1T4t6ro28wbTAdBgNVHQ4EFgQUxh0rVysiM/kI
m9+co53W0yikgMUwHwYDVR0jBBgwFoAUxh0rVysiM/kIm9+co53W0yikgMUwGgYD
VR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZI
zj0EAwIDRwAwRAIgAcg0ERjqp1KPM+MiBsJKbhF9C8PAmBs0hPeLOkmVz1UCICkO
y9YBRoh3BVjz6r4DmuXJlSwuacua9U4+kb6G7xND
-----END CERTIFICATE-----
"""
_PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqKb/9DfyM8K881Mf
Di2whzHa+pVOLtOUKvBKRlr/2PShRANCAAQ5DHaldfi5pAZW+HSzSu35aJSzLOBw
i2EVc5AeAhARWMQcZob7NZ0/DBdweTBxGOJor1Q98B0qPUd2hC1T4t6r
-----END PRIVATE KEY-----
"""


class ClientClosed(Exception):
    """The client closed the connection before the behaviour was through."""


@dataclass
class Request:
    """One request as it arrived. `headers` has lower-case names; `closed_early` is set when the client hung up."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed_early: threading.Event = field(default_factory=threading.Event)

    @property
    def messages(self) -> list[dict[str, str]]:
        return cast(list[dict[str, str]], self.body["messages"])

    @property
    def question(self) -> str:
        """Return the text of the last user message."""
        return next(message["content"] for message in reversed(self.messages) if message["role"] == "user")


class Exchange:
    """One request and the open connection to answer it on."""

    def __init__(self, request: Request, connection: socket.socket, stopping: threading.Event) -> None:
        self.request = request
        self._connection = connection
        self._stopping = stopping

    def send(self, data: bytes) -> None:
        """Send raw bytes; raise ClientClosed when nobody reads them."""
        self.wait(0.0)
        try:
            self._connection.sendall(data)
        except OSError:
            raise ClientClosed from None

    def head(self, status: str = "200 OK", kind: str = STREAM_TYPE, *headers: str, chunked: bool = True) -> None:
        """Send the status line and the headers; `headers` are whole lines."""
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def chunk(self, data: bytes) -> None:
        """Send one chunk of chunked transfer coding."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        """Send the chunk that ends the body."""
        self.send(b"0\r\n\r\n")

    def wait(self, seconds: float) -> None:
        """Wait; raise ClientClosed as soon as the client closes the connection or the server stops."""
        end = time.monotonic() + seconds
        while True:
            if self._stopping.is_set():
                raise ClientClosed
            # nothing more is due from the client: what makes its side readable is its end
            readable, _, _ = select.select([self._connection], [], [], max(0.0, min(0.02, end - time.monotonic())))
            if readable:
                self._expect_end()
            if time.monotonic() >= end:
                return

    def _expect_end(self) -> None:
        try:
            rest = self._connection.recv(1)
        except ssl.SSLWantReadError:
            return
        except OSError:
            rest = b""
        if not rest:
            raise ClientClosed


Behaviour = Callable[[Exchange], None]
Answer = str | Callable[[list[dict[str, str]]], str]


class ChatServer:
    """A running server. `behaviour` may be set anew between requests; `requests` holds what arrived, in order.

    `port` is that of a server that has ended, which this one takes over; 0 takes a free one.
    """

    def __init__(self, behaviour: Behaviour | None = None, *, tls: bool = False, port: int = 0) -> None:
        self.behaviour = behaviour or answer("All is well.")
        self.requests: list[Request] = []
        self._stopping = threading.Event()
        self._server = _Server(self._handle, _tls_context() if tls else None, port)
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="chat-server")

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()  # joins the handlers
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def base_url(self) -> str:
        """Return the URL that ends in `/v1`, which the client completes."""
        return f"{self._scheme}://127.0.0.1:{self.port}/v1"

    @property
    def url(self) -> str:
        """Return the full chat-completions URL."""
        return f"{self.base_url}/chat/completions"

    def api(self, key: str = "", **settings: Any) -> dict[str, Any]:
        """Return this server as an entry of `chatgpt_apis`, which a busy machine does not take for a silent one."""
        return {"url": self.url, "key": key, "timeout_s": PATIENCE_S, "first_token_timeout_s": PATIENCE_S, **settings}

    def _handle(self, request: Request, connection: socket.socket) -> None:
        self.requests.append(request)
        try:
            self.behaviour(Exchange(request, connection, self._stopping))
        except ClientClosed:
            if not self._stopping.is_set():
                request.closed_early.set()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False  # server_close() waits for them
    request_queue_size = 64
    allow_reuse_address = True  # connections of the server before may still wait for their ends

    def __init__(self, handle: Callable[[Request, socket.socket], None], tls: ssl.SSLContext | None, port: int) -> None:
        self.handle = handle
        super().__init__(("127.0.0.1", port), _Handler)
        if tls:
            # the handshake is left to the handler's first read: a client that hangs in it must not stop the others
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hung up in the handshake or in its request."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 20.0
    disable_nagle_algorithm = True  # it would hold every second piece back for 40 ms

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        cast(_Server, self.server).handle(request, self.connection)
        self.close_connection = True

    def do_GET(self) -> None:
        """Answer what a client that follows a redirect would ask; recorded, so that a test can see that none did."""
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, {})
        cast(_Server, self.server).handle(request, self.connection)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""


def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(_PRIVATE_KEY + CERTIFICATE)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def delta(text: str | None, finish_reason: str | None = None) -> bytes:
    """Return one event as OpenAI's API sends it."""
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish_reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def reasoning(text: str) -> bytes:
    """Return an event with a part of the model's reasoning, in the field that most APIs use."""
    choice = {"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def pieces_of(text: str) -> list[str]:
    """Cut a text as a model's tokens do: words with the space before them, Chinese by the character."""
    pieces: list[str] = []
    for letter in text:
        if pieces and letter != " " and letter.isascii() and pieces[-1].isascii():
            pieces[-1] += letter
        else:
            pieces.append(letter)
    return pieces


def answer(text: Answer, *, pieces: Sequence[str] | None = None, delay_s: float = 0.0) -> Behaviour:
    """Stream `text` (or what it returns for the messages), or exactly `pieces`; wait `delay_s` before each."""

    def behave(exchange: Exchange) -> None:
        whole = text(exchange.request.messages) if callable(text) else text
        exchange.head()
        exchange.chunk(delta(""))  # OpenAI's first event holds the role alone
        for piece in pieces_of(whole) if pieces is None else pieces:
            exchange.wait(delay_s)
            exchange.chunk(delta(piece))
        exchange.chunk(delta(None, "stop") + DONE)
        exchange.end()

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Behave once as each of `behaviours`, then for ever as the last."""
    left = list(behaviours)
    lock = threading.Lock()

    def behave(exchange: Exchange) -> None:
        with lock:
            now = left.pop(0) if len(left) > 1 else left[0]
        now(exchange)

    return behave


def raw_stream(*packets: bytes, kind: str = STREAM_TYPE, pause_s: float = 0.02) -> Behaviour:
    """Send the body in exactly these packets, with no chunks around them, and end it by closing the connection."""

    def behave(exchange: Exchange) -> None:
        exchange.head("200 OK", kind, chunked=False)
        for packet in packets:
            exchange.send(packet)
            exchange.wait(pause_s)

    return behave


def chunked_stream(*events: bytes, whole: bool = True) -> Behaviour:
    """Send `events` as chunks; with `whole` false, close without the chunk that ends the body."""

    def behave(exchange: Exchange) -> None:
        exchange.head()
        for event in events:
            exchange.chunk(event)
        if whole:
            exchange.end()

    return behave


def truncated(*pieces: str) -> Behaviour:
    """Stream `pieces`, then close: no finish_reason, no [DONE], and the chunked body is cut."""
    return chunked_stream(*map(delta, pieces), whole=False)


def body(data: bytes, kind: str = JSON_TYPE, status: str = "200 OK", headers: Iterable[str] = ()) -> Behaviour:
    """Send a whole body."""

    def behave(exchange: Exchange) -> None:
        exchange.head(status, kind, f"Content-Length: {len(data)}", *headers, chunked=False)
        exchange.send(data)

    return behave


def not_streamed(text: str) -> Behaviour:
    """Answer as an API that ignores `stream`: one JSON body."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return body(json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def status(code: int, *headers: str) -> Behaviour:
    """Answer with an HTTP error whose body repeats the request's key, as some APIs do; `headers` are whole lines."""

    def behave(exchange: Exchange) -> None:
        echo = {"error": {"message": f"cannot use {exchange.request.headers.get('authorization')}"}}
        body(json.dumps(echo).encode(), JSON_TYPE, f"{code} Failed", headers)(exchange)

    return behave


def html(exchange: Exchange) -> None:
    """Answer 200 with a page that never ends, as a captive portal might."""
    exchange.head("200 OK", "text/html; charset=utf-8")
    while True:
        exchange.chunk(b"<p>Please sign in</p>" * 1000)


def hang_before_headers(exchange: Exchange) -> None:
    hang(exchange)


def hang_after_headers(exchange: Exchange) -> None:
    exchange.head()
    hang(exchange)


def hang_after(*pieces: str) -> Behaviour:
    """Stream `pieces`, then say nothing more."""

    def behave(exchange: Exchange) -> None:
        exchange.head()
        for piece in pieces:
            exchange.chunk(delta(piece))
        hang(exchange)

    return behave


def hang(exchange: Exchange) -> None:
    """Say nothing until the client closes (or, should it never, the server stops)."""
    exchange.wait(30.0)


def trickle_headers(exchange: Exchange) -> None:
    """Send a header that never ends, a letter at a time."""
    exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        exchange.send(b"x")
        exchange.wait(0.05)


def trickle_comments(*pieces: str) -> Behaviour:
    """Stream `pieces`, then keep the line busy with comments for ever."""

    def behave(exchange: Exchange) -> None:
        exchange.head()
        for piece in pieces:
            exchange.chunk(delta(piece))
        while True:
            exchange.chunk(b": keep-alive\n\n")
            exchange.wait(0.05)

    return behave


def huge_line(exchange: Exchange) -> None:
    """Stream a line that never ends."""
    exchange.head()
    exchange.chunk(b"data: ")
    while True:
        exchange.chunk(b"x" * 65_536)


class RefusingPort:
    """A port of 127.0.0.1 that refuses connections, and that nobody else can take meanwhile."""

    def __enter__(self) -> "RefusingPort":
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # bound and not listening
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1/chat/completions"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def api(self, key: str = "", **settings: Any) -> dict[str, Any]:
        """Return this port as an entry of `chatgpt_apis`."""
        return {"url": self.url, "key": key, **settings}


class SilentPort(RefusingPort):
    """A port where connections are neither made nor refused: its queue is full (Linux drops what comes then)."""

    def __enter__(self) -> "SilentPort":
        super().__enter__()
        self._socket.listen(0)
        self._queued = [socket.socket() for _ in range(4)]
        for queued in self._queued:
            queued.setblocking(False)
            queued.connect_ex(self._socket.getsockname())
        time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for queued in self._queued:
            queued.close()
        super().__exit__(kind, error, at)
