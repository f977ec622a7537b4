"""What nginx itself rejects with the project's configuration: our JSON, whatever is wrong with the request."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.nginx import Nginx, needs_nginx
from support.running_server import RunningServer

LONG = "a" * 40_000
CLOSE = "Host: localhost\r\nConnection: close\r\n"
REJECTED = {
    "400 invalid_request": [
        "GARBAGE\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        f"GET /../.. HTTP/1.1\r\n{CLOSE}\r\n",
        f"GET /%00 HTTP/1.1\r\n{CLOSE}\r\n",
        f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: x\r\n\r\n",
        f"POST / HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        f"POST / HTTP/1.1\r\n{CLOSE}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "\x16\x03\x01\x00\xa5\x01\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    "405 method_not_allowed": [f"TRACE / HTTP/1.1\r\n{CLOSE}\r\n"],
    "413 upload_too_large": [f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: 99000000\r\n\r\n"],
    "414 url_too_long": [f"GET /{LONG} HTTP/1.1\r\n{CLOSE}\r\n"],
    "431 head_too_large": [
        f"GET / HTTP/1.1\r\n{CLOSE}X-Long: {LONG}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{CLOSE}" + "".join(f"X-{number}: {LONG[:1000]}\r\n" for number in range(60)) + "\r\n",
    ],
    "501 not_implemented": [f"POST / HTTP/1.1\r\n{CLOSE}Transfer-Encoding: gzip\r\n\r\n"],
    "505 http_version": [f"GET / HTTP/3.0\r\n{CLOSE}\r\n"],
}


@pytest.fixture(scope="module")
def nginx(embedded_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), embedded_server.port) as proxy:
        yield proxy


def told(port: int, request: str) -> tuple[str, bytes]:
    """Return the head and the body of the response to `request`, after which the connection must be closed."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as caller:
        caller.sendall(request.encode("latin-1"))
        head, _, body = b"".join(iter(lambda: caller.recv(65_536), b"")).partition(b"\r\n\r\n")
    return head.decode(), body


@needs_nginx
@pytest.mark.parametrize(
    "expected, request_text", [(expected, text) for expected, texts in REJECTED.items() for text in texts]
)
def test_what_nginx_rejects_is_our_json(nginx: Nginx, expected: str, request_text: str) -> None:
    head, body = told(nginx.port, request_text)
    status, code = expected.split(" ")
    assert head.startswith(f"HTTP/1.1 {status} ") and "\r\nContent-Type: application/json" in head
    assert "nginx/" not in head  # its version
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == code


@needs_nginx
def test_without_a_host_the_server_itself_rejects(nginx: Nginx) -> None:
    head, body = told(nginx.port, "GET /healthz HTTP/1.0\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 ") and json.loads(body)["error"]["code"] == "invalid_host"


@needs_nginx
def test_the_place_of_the_errors_is_none_for_callers(nginx: Nginx) -> None:
    head, body = told(nginx.port, f"GET /nginx-error HTTP/1.1\r\n{CLOSE}\r\n")
    assert head.startswith("HTTP/1.1 404 ") and json.loads(body)["error"]["code"] == "not_found"


@needs_nginx
def test_too_many_connections_are_told_in_json(embedded_server: RunningServer, tmp_path: Path) -> None:
    with (
        Nginx(tmp_path, embedded_server.port, **{"mirrorchat_callers 32;": "mirrorchat_callers 1;"}) as proxy,
        closing(socket.create_connection(("127.0.0.1", proxy.port))) as slow,
    ):
        slow.sendall(b"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc")
        time.sleep(0.5)  # nginx has read the head, and waits for the body
        head, body = told(proxy.port, f"GET /healthz HTTP/1.1\r\n{CLOSE}\r\n")
    assert head.startswith("HTTP/1.1 429 ") and json.loads(body)["error"]["code"] == "too_many_connections"
