"""A server on 127.0.0.1 that answers each request, whatever it is, with the bytes that a test chooses."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

LIMIT_S = 20.0


@dataclass(frozen=True)
class Got:
    """A request as it arrived; `headers` has lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Got], Iterator[bytes]]


def reply(body: bytes, status: str = "200 OK", kind: str = "application/json", *headers: str) -> bytes:
    """Return a whole response."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def reply_json(value: object, status: str = "200 OK", *headers: str) -> bytes:
    return reply(json.dumps(value).encode(), status, "application/json", *headers)


def events_head() -> bytes:
    """Return the head of an event stream that ends when the connection does."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class AnsweringServer:
    """Calls `answer` for each request and sends what it yields, until the client has gone. `got` holds the requests."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.got: list[Got] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="answering-server")

    def __enter__(self) -> "AnsweringServer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            client.settimeout(LIMIT_S)
            with client, suppress(OSError):
                got = _request(client)
                self.got.append(got)
                for data in self._answer(got):
                    client.sendall(data)


def _request(client: socket.socket) -> Got:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(client)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += _more(client)
    method, path, _ = first.split(" ")
    return Got(method, path, headers, body)


def _more(client: socket.socket) -> bytes:
    data = client.recv(65_536)
    if not data:
        raise ConnectionResetError
    return data
