"""A caller of streamed answers, and chat servers that speak when a test tells them to."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import requests

from support.chat_server import DONE, Behaviour, Exchange, delta
from support.speech import say_wav


class Received(NamedTuple):
    """One server-sent event."""

    name: str
    data: dict[str, Any]


_responses: list[requests.Response] = []


def ask_streamed(url: str, audio: bytes | None = None, *, accept: str = "*/*", **fields: str) -> requests.Response:
    """Post a question with stream=true; the response's body is still to be read. `close_streams` closes it."""
    response = requests.post(
        f"{url}/process_audio",
        files={"audio": ("question.wav", audio or say_wav("hello there"))},
        data={"language": "english", "text": "Hi", "stream": "true"} | fields,
        headers={"Accept": accept},
        stream=True,
        timeout=60,
    )
    _responses.append(response)
    return response


def close_streams() -> None:
    """Close the connections of all streams, whether or not they were read to their ends."""
    while _responses:
        _responses.pop().close()


def events_of(response: requests.Response) -> Iterator[Received | str]:
    """Yield the events of a stream as they come, and its comments as texts. Raises ValueError for anything else."""
    assert response.status_code == 200, response.text
    name = ""
    for line in _lines(response):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield Received(name, json.loads(value))
        elif field == "" and value:
            yield value
        elif line:
            raise ValueError(f"not an event stream: {line!r}")


def _lines(response: requests.Response) -> Iterator[str]:
    """Yield lines as soon as they are there."""
    rest = b""
    for piece in response.iter_content(None):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode() for line in lines)


def named(events: Iterator[Received | str]) -> list[Received]:
    """Return the events without the comments."""
    return [event for event in events if isinstance(event, Received)]


class Gate:
    """A chat that says `before`, then nothing until `opened`, then `after`; `ended` is set once all is sent."""

    def __init__(self, before: str, after: str) -> None:
        self.opened = threading.Event()
        self.ended = threading.Event()
        self._before, self._after = before, after

    @contextmanager
    def open_at_the_end(self) -> Iterator[None]:
        """Open the gate at the end of the block, also when a test fails in it: nobody then waits for an answer."""
        try:
            yield
        finally:
            self.opened.set()

    def behave(self, exchange: Exchange) -> None:
        exchange.head()
        exchange.chunk(delta(self._before))
        while not self.opened.is_set():
            exchange.wait(0.02)
        exchange.chunk(delta(self._after) + delta(None, "stop") + DONE)
        self.ended.set()  # first: the client may close as soon as it has [DONE]
        exchange.end()


def broken_when_open(gate: Gate, before: str) -> Behaviour:
    """Say `before`, wait for the gate, and break off."""

    def behave(exchange: Exchange) -> None:
        exchange.head()
        exchange.chunk(delta(before))
        while not gate.opened.is_set():
            exchange.wait(0.02)

    return behave


def post_raw(port: int, audio: bytes, *, receive_buffer: int | None = None, **fields: str) -> socket.socket:
    """Send a whole question over a socket of one's own, and return it with nothing read."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    client.sendall(raw_question(audio, **fields))
    return client


def raw_question(audio: bytes, **fields: str) -> bytes:
    """Return a whole question as it goes over the wire."""
    request = requests.Request(
        "POST", "http://h/process_audio", files={"audio": ("question.wav", audio)}, data=fields
    ).prepare()
    assert isinstance(request.body, bytes)
    head = f"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['Content-Type']}\r\n"
    return f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body


def read_until(client: socket.socket, mark: bytes) -> bytes:
    """Read a response up to and with `mark`."""
    data = b""
    while mark not in data:
        piece = client.recv(65_536)
        assert piece, data[-2000:]
        data += piece
    return data
