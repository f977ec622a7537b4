"""Whatever one address does to a gunicorn without nginx, others are served, and it is cut when it takes nothing."""

import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from support.checks import wait_for
from support.hostile_callers import ADDRESS, ATTACKS, GET, Hostile, session_from
from support.running_server import RunningServer, changed_conf
from support.speech import say_wav

OTHER = "127.0.0.3"
DEADLINE_S = 2.0  # of heads and of answers, instead of 9 s and 7 s
ATTACK_S = 8.0
ALWAYS_CUT = set(ATTACKS) - {"slow bodies", "slow bodies in chunks", "a flood of requests", "a flood of connections"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("one-address")
    change = f"""\
import mirrorchat.server.timed_socket

mirrorchat.server.timed_socket.SEND_DEADLINE_S = {DEADLINE_S}
import mirrorchat.server.worker

mirrorchat.server.worker.HEAD_DEADLINE_S = {DEADLINE_S}
bind = """
    conf = changed_conf(folder, "bind = ", change)
    with RunningServer(folder, gunicorn_conf=conf, trusted_proxies=[]) as running:
        yield running
        assert "Traceback" not in running.log


def connected(server: RunningServer, address: str = ADDRESS) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30, source_address=(address, 0))


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def health_s(server: RunningServer, address: str) -> float:
    """Return how long it takes to get `/healthz`; the attacker's address, which may be over its rate, asks again."""
    started = time.monotonic()
    with session_from(address) as session:
        while (status := session.get(f"{server.url}/healthz", timeout=30).status_code) == 429 and address == ADDRESS:
            time.sleep(0.02)
            assert time.monotonic() - started < 1.0
        assert status == 200
    return time.monotonic() - started


def question_s(server: RunningServer) -> float:
    started = time.monotonic()
    with session_from(OTHER) as session:
        files, fields = {"audio": ("q.wav", say_wav("yes"))}, {"language": "english", "text": "Hello there."}
        assert session.post(f"{server.url}/process_audio", files=files, data=fields, timeout=60).status_code == 200
    return time.monotonic() - started


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served_meanwhile(server: RunningServer, name: str) -> None:
    idle_s = max(question_s(server) for _ in range(2))
    with Hostile(server.port, name, ATTACK_S) as hostile:
        time.sleep(0.5)
        assert min(health_s(server, OTHER) for _ in range(3)) < 1.0
        assert min(health_s(server, ADDRESS) for _ in range(3)) < 1.0
        assert min(question_s(server) for _ in range(2)) < idle_s + 1.0
    if name in ALWAYS_CUT:
        assert hostile.report["cut"] == ATTACKS[name].connections
        assert hostile.report["last_cut_s"] < DEADLINE_S + 4.0  # 40 connections are served before one takes nothing
    elif name.startswith("slow bodies"):
        assert hostile.report["cut"] == ATTACKS[name].connections - 8
        assert hostile.report["last_cut_s"] < 5.0


def test_its_oldest_connection_makes_room_for_a_new_one(server: RunningServer) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(server, "127.0.0.4")) for _ in range(66)]
        for closed in connections[:2]:
            assert closed.recv(1) == b""
        for kept in (connections[2], connections[65]):
            kept.sendall(GET)
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_its_unfinished_requests_are_bounded(server: RunningServer) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(server, "127.0.0.5")) for _ in range(9)]
        for connection in connections:
            connection.sendall(GET[:20])
            time.sleep(0.01)
        head, _, body = all_of(connections[8]).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ") and b"Retry-After: 1" in head
        assert json.loads(body)["error"]["code"] == "too_many_partial_requests"
        with connected(server, OTHER) as other:
            other.sendall(GET[:20])
            time.sleep(0.1)
            other.sendall(GET[20:])
            assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
        connections[0].sendall(GET[20:])
        assert connections[0].recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_trusted_proxy_is_not_bounded(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as running, ExitStack() as stack:
        connections = [stack.enter_context(connected(running)) for _ in range(80)]
        for connection in connections:
            connection.sendall(GET[:20])
        time.sleep(0.5)
        for connection in connections:
            connection.sendall(GET[20:])
        for connection in connections:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_is_taken_late_is_whole(server: RunningServer) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = requests.get(f"{server.url}/openapi.json", timeout=30).content
    times = 12_000_000 // len(body)
    with connected(server) as late:
        late.sendall(request * times)
        received = late.recv(65536)
        while received.count(b"\r\n\r\n") < times or not received.endswith(body[-100:]):
            data = late.recv(1 << 20)
            assert data
            received += data
    assert received.count(b"HTTP/1.1 200 ") == times and received.count(body) == times


def test_a_body_that_nobody_reads_is_no_request(server: RunningServer) -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with connected(server) as whole:  # it has arrived: the next request may follow
        whole.sendall(head % len(inner) + inner + GET[:-2] + b"Connection: close\r\n\r\n")
        answers = all_of(whole)
        assert answers.count(b"HTTP/1.1 ") == 2 and b"HTTP/1.1 405 " in answers and b"HTTP/1.1 200 " in answers
    with connected(server) as part:
        part.sendall(head % (2 * len(inner)) + inner)
        answers = all_of(part)
        assert answers.count(b"HTTP/1.1 ") == 1 and b"Connection: close" in answers


def test_a_head_without_an_end_is_too_large(server: RunningServer) -> None:
    with connected(server) as endless:
        endless.sendall(GET[:-2] + b"X-Letters: " + b"a" * 70_000)
        head, _, body = all_of(endless).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ") and json.loads(body)["error"]["code"] == "head_too_large"


def first_free_file(server: RunningServer) -> int:
    """Return the lowest number that no open file of the worker has."""
    taken = {int(number) for number in os.listdir(f"/proc/{server.worker_pid}/fd")}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def test_the_worker_goes_on_without_file_descriptors(server: RunningServer) -> None:
    worker = server.worker_pid
    wait_for(lambda: health_s(server, OTHER) < 1.0)
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    assert limits[0] == limits[1] or limits[0] >= 65_536  # the soft limit has been raised
    try:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (first_free_file(server) + 10, limits[1]))
        with ExitStack() as stack:  # each new connection takes the place of one that waits
            for _ in range(40):
                stack.enter_context(connected(server))
            assert health_s(server, OTHER) < 1.0
        time.sleep(1.0)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (first_free_file(server), limits[1]))
        with connected(server, OTHER) as waiting:
            waiting.sendall(GET)
            wait_for(lambda: "no connection can be accepted for a moment" in server.log)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
            assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert server.worker_pid == worker


def test_what_waits_for_its_threads_too_long_is_told(tmp_path: Path) -> None:
    change = """\
import mirrorchat.server.thread_queue

mirrorchat.server.thread_queue.ADDRESS_THREADS = 0.0  # that is one thread
mirrorchat.server.thread_queue.THREAD_DEADLINE_S = 2.0
bind = """
    conf = changed_conf(tmp_path, "bind = ", change)
    with (
        RunningServer(tmp_path, gunicorn_conf=conf, trusted_proxies=[], connections_per_address=2) as running,
        connected(running) as slow,
        connected(running) as queued,
    ):
        slow.sendall(ATTACKS["slow bodies"].first)
        time.sleep(0.5)
        queued.sendall(GET)
        time.sleep(0.5)
        with connected(running) as third:  # no connection of the address waits for its caller
            head, _, body = all_of(third).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ") and json.loads(body)["error"]["code"] == "too_many_connections"
        assert health_s(running, OTHER) < 5.0
        head, _, body = all_of(queued).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ") and b"Retry-After: 1" in head
        assert "asks too much" in json.loads(body)["error"]["message"]
