"""Callers who do not send on, or do not close, keep nobody from being answered; nothing of them is logged."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from support.checks import wait_for
from support.running_server import RunningServer, changed_conf

from mirrorchat.server.worker import BODY_S, LINGER_S

DEADLINE_S = 2.0
HALVES = (b"POST /process_audio HTTP/1.1\r\nHost: mirr", b"G")
CALLERS = 40  # more than the server's threads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("slow-heads")
    change = f"import mirrorchat.server.worker\n\nmirrorchat.server.worker.HEAD_DEADLINE_S = {DEADLINE_S}\nbind = "
    with RunningServer(folder, gunicorn_conf=changed_conf(folder, "bind = ", change)) as running:
        yield running


def connected(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("half", HALVES)
def test_they_hold_a_thread_for_a_while_only(server: RunningServer, half: bytes) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server)) for _ in range(CALLERS)]
        for caller in slow:
            caller.sendall(half)
        assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200
        for caller in slow:
            head, _, body = all_of(caller).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ") and b"Connection: close" in head
            assert json.loads(body)["error"]["code"] == "upload_timeout"


def test_a_head_that_trickles_in_is_late_too(server: RunningServer) -> None:
    with connected(server) as slow:
        answered, started = 0, time.monotonic()
        for letter in b"GET /healthz HTTP/1.1\r\nX-Letters: " + b"a" * 100:  # no byte is late by itself
            slow.sendall(bytes([letter]))
            time.sleep(DEADLINE_S / 20)
            answered += 1
            slow.setblocking(False)
            try:
                if slow.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                pass
            finally:
                slow.setblocking(True)
        assert time.monotonic() - started > 0.9 * DEADLINE_S  # not before its time, however slow the machine is
        assert 3 <= answered < 100 and all_of(slow).startswith(b"HTTP/1.1 408 ")


def test_a_second_request_has_the_same_time(server: RunningServer) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server) as caller:
        for _ in range(2):  # as long apart as the deadline: between requests nothing is late
            caller.sendall(whole)
            answer = b""
            while b'"alive"' not in answer:
                answer += caller.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            time.sleep(1.5 * DEADLINE_S)
        caller.sendall(whole[:20])
        assert all_of(caller).startswith(b"HTTP/1.1 408 ")


def test_a_caller_who_does_not_close_blocks_no_other(server: RunningServer) -> None:
    with ExitStack() as stack:
        for _ in range(CALLERS // 2):
            caller = stack.enter_context(connected(server))
            caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        # gunicorn's own worker would wait 2 s for each of them, one after the other
        assert requests.get(f"{server.url}/healthz", timeout=LINGER_S * CALLERS / 4).status_code == 200


def test_a_head_that_cannot_be_read_is_not_logged(server: RunningServer) -> None:
    with connected(server) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nAuthorization Bearer zebra\r\n\r\n")
        assert all_of(caller).startswith(b"HTTP/1.1 400 ")
    wait_for(lambda: "a request could not be read" in server.log)
    assert "zebra" not in server.log


def rejected_head(size: int) -> bytes:
    kind = "multipart/form-data; boundary=b"
    return (
        f"POST /process_audio HTTP/1.1\r\nHost: x.y\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode()
    )


def test_a_rejected_body_arrives_before_the_answer(server: RunningServer) -> None:
    """Caddy, and curl behind it, would lose some of the answers that come while they send."""
    size, piece = 13 << 20, bytes(1 << 20)
    with connected(server) as caller:
        caller.sendall(rejected_head(size))
        for _ in range(12):
            caller.sendall(piece)
            time.sleep(0.1)
            assert not select.select([caller], [], [], 0.0)[0]
        caller.sendall(piece)
        assert all_of(caller).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(("size", "sent"), [(13 << 20, 0), (13 << 20, 100_000), (1 << 40, 100_000)])
def test_a_rejected_body_that_does_not_come_is_not_waited_for(server: RunningServer, size: int, sent: int) -> None:
    with connected(server) as caller:
        started = time.monotonic()
        caller.sendall(rejected_head(size) + bytes(sent))
        assert caller.recv(65536).startswith(b"HTTP/1.1 421 ")
        assert time.monotonic() - started < BODY_S - 1.0


def test_a_body_may_take_longer(server: RunningServer) -> None:
    """The deadline is the head's alone."""
    body = json.dumps({"input": "Late is not never.", "voice": "default", "response_format": "pcm"}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    with connected(server) as caller:
        caller.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:9])
        time.sleep(2 * DEADLINE_S)
        caller.sendall(body[9:])
        assert all_of(caller).startswith(b"HTTP/1.1 200 ")


def test_with_its_own_deadline(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as running:
        with connected(running) as silent:
            time.sleep(7)  # gunicorn waits 5 s for the first byte with a thread
            silent.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert all_of(silent).startswith(b"HTTP/1.1 200 ")
        with connected(running) as slow:  # does not keep it from stopping
            slow.sendall(HALVES[0])
            time.sleep(0.5)
            running.process.terminate()
            wait_for(lambda: running.process.poll() is not None, 20)


CHUNKED = (
    b"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n", b"-1\r\n", b"2\r\nabXX", b"0\r\nbad trailer\r\n\r\n", b"1\r\na\r\n" * 30_000]
)
def test_malformed_and_tiny_chunks_are_a_bad_request(server: RunningServer, chunks: bytes) -> None:
    with connected(server) as caller:
        caller.sendall(CHUNKED + chunks)
        head, _, body = all_of(caller).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["error"]["type"] == "invalid_request_error"
    assert "Traceback" not in server.log
