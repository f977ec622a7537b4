"""A caller's connection: deadlines of writes and reads, and answers that no thread waits for."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.checks import wait_for

from mirrorchat.server import timed_socket
from mirrorchat.server.timed_socket import TimedSocket

LARGE = bytes(32 * 1024 * 1024)  # more than the kernel takes for a caller who does not read


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        yield client


@pytest.fixture
def server(client: socket.socket) -> Iterator[TimedSocket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect(listener.getsockname())
        with TimedSocket(listener.accept()[0]) as server:
            yield server


def test_no_thread_waits_for_the_caller_to_take_an_answer(server: TimedSocket, client: socket.socket) -> None:
    server.sendall(b"begin " + LARGE)
    server.sendall(b" end")
    assert server.unsent and not server.expired
    received = bytearray()
    while not received.endswith(b" end"):
        received += client.recv(1 << 20)
        server.push()
    assert bytes(received) == b"begin " + LARGE + b" end" and not server.unsent


def test_a_stream_that_nobody_takes_is_cut_off(
    server: TimedSocket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_socket, "SEND_DEADLINE_S", 0.3)
    server.paced = True
    started = time.monotonic()
    with pytest.raises(ConnectionResetError):
        server.sendall(LARGE)
    assert time.monotonic() - started > 0.25 and server.expired
    server.close()
    with pytest.raises(ConnectionResetError):  # the caller learns it, although it has not read
        while client.recv(1 << 20):
            pass


def test_a_stream_that_is_taken_too_slowly_is_cut_off(
    server: TimedSocket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_socket, "SEND_DEADLINE_S", 1.0)
    server.paced, over = True, threading.Event()

    def read_a_little() -> None:
        while not over.wait(0.02):
            client.recv(100)

    reader = threading.Thread(target=read_a_little)
    reader.start()
    try:
        with pytest.raises(ConnectionResetError):
            server.sendall(LARGE)
    finally:
        over.set()
        reader.join()
    assert server.expired


def test_a_steady_reader_is_not_cut_off(
    server: TimedSocket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_socket, "SEND_DEADLINE_S", 2.0)
    server.paced = True

    def read_all() -> None:
        left = len(LARGE)
        while left:
            left -= len(client.recv(1 << 20))

    reader = threading.Thread(target=read_all)
    reader.start()
    server.sendall(LARGE)
    reader.join(20)
    assert not reader.is_alive() and not server.expired


def test_what_only_the_kernel_took_is_not_taken(
    server: TimedSocket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_socket, "SEND_DEADLINE_S", 0.3)
    assert not server.takes_nothing()
    time.sleep(0.4)
    assert not server.takes_nothing()  # there was nothing to take
    server.sendall(bytes(100_000))
    assert not server.unsent and not server.takes_nothing()
    wait_for(server.takes_nothing)
    while server.takes_nothing():
        client.recv(65_536)
    server.cut()
    assert server.expired


def test_a_body_has_deadlines(server: TimedSocket, client: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    client.sendall(b"one")
    server.read_by = time.monotonic() + 0.2
    assert server.recv(100) == b"one"
    with pytest.raises(TimeoutError):
        server.recv(100)
    with pytest.raises(TimeoutError):  # at once: the time of all reads is over
        server.recv(100)
    monkeypatch.setattr(timed_socket, "STALL_S", 0.2)
    server.read_by = time.monotonic() + 60.0
    with pytest.raises(TimeoutError):
        server.recv(100)


def test_a_lost_connection_is_one_error(server: TimedSocket, client: socket.socket) -> None:
    client.close()
    with pytest.raises(ConnectionResetError):
        for _ in range(100):
            server.sendall(bytes(65_536))
            time.sleep(0.01)
