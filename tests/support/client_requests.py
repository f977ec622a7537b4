"""Requests byte for byte as a client sends them: its headers in its order, and bodies as its library encodes them."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

BOUNDARY = "--------------------------735323031399963166993862"  # of the form that Node's form-data encodes
HOST, LENGTH = "<host>", "<length>"


@dataclass(frozen=True)
class Answer:
    """A response. The names of its `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(url: str, method: str, headers: Sequence[tuple[str, str]], body: bytes | None = None) -> Answer:
    """Send a request with exactly these headers in this order. HOST and LENGTH stand for their values.

    The body goes in chunks where the headers say so.
    """
    parts = urlsplit(url)
    values = {HOST: parts.netloc, LENGTH: str(len(body or b""))}
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.putrequest(method, parts.path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, values.get(value, value))
    chunked = ("Transfer-Encoding", "chunked") in headers
    connection.endheaders(pieces(body) if body and chunked else body, encode_chunked=chunked)
    try:
        response = connection.getresponse()
        received = response.read()
    finally:
        connection.close()
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, received)


def pieces(body: bytes, size: int = 65_536) -> Iterator[bytes]:
    yield from (body[start : start + size] for start in range(0, len(body), size))


def python_json(fields: Mapping[str, object]) -> bytes:
    """Return `fields` as Python's clients encode them."""
    return json.dumps(fields).encode()


def node_json(fields: Mapping[str, object]) -> bytes:
    """Return `fields` as JSON.stringify does."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def node_form(file: bytes, filename: str, kind: str, fields: Mapping[str, str]) -> bytes:
    """Return a form as Node's form-data encodes it: the file first."""
    disposition = 'Content-Disposition: form-data; name="{}"'
    parts = [f'{disposition.format("file")}; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'.encode() + file]
    parts += [f"{disposition.format(name)}\r\n\r\n{value}".encode() for name, value in fields.items()]
    return b"".join(b"--%s\r\n%s\r\n" % (BOUNDARY.encode(), part) for part in parts) + f"--{BOUNDARY}--\r\n".encode()
