"""What one hostile address does to a server, in a process of its own.

    with Hostile(port, "slow heads", 12.0) as hostile:
        ...  # ask the server from another address
    hostile.report  # what became of its connections

A connection counts as cut when the server has closed it, or its sending side.
"""

import json
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from requests.adapters import HTTPAdapter

ADDRESS = "127.0.0.2"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_POST = b"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


@dataclass(frozen=True)
class Attack:
    """Each connection sends `first`, then `again` every `pause_s`, and reads `read_bytes` every time.

    `half_closed` connections close their sending side after `first`. With `reopened` a new connection follows each one
    that has ended.
    """

    connections: int
    first: bytes = b""
    again: bytes = b""
    pause_s: float = 0.1
    read_bytes: int = 0
    half_closed: bool = False
    reopened: bool = False


ATTACKS = {
    "pipelined requests, read by nobody": Attack(40, 400 * GET),
    "the same, half-closed": Attack(40, 400 * GET, half_closed=True),
    "the same, read byte by byte": Attack(40, 400 * GET, read_bytes=1),
    "slow heads": Attack(40, GET[:-2] + b"X-Letters: ", b"a"),
    "slow bodies": Attack(40, _POST + b"Content-Length: 100000\r\n\r\n", b"-"),
    "slow bodies in chunks": Attack(40, _POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n-\r\n"),
    "stalled bodies that nobody waits for": Attack(40, GET[:-2] + b"Content-Length: 100000\r\n\r\n"),
    "200 silent connections": Attack(200),
    "1,100 silent connections": Attack(1100),
    "bytes that are no request": Attack(40, bytes(range(128, 256)), bytes(range(128, 256))),
    "a TLS handshake": Attack(40, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)),
    "a flood of requests": Attack(40, b"", GET, pause_s=0.0, read_bytes=1 << 20),
    "a flood of connections": Attack(40, GET[:-2] + b"Connection: close\r\n\r\n", read_bytes=1 << 20, reopened=True),
}


class Hostile:
    """The attack `name` on the server at `port`, for `seconds` or until the end of the block."""

    def __init__(self, port: int, name: str, seconds: float) -> None:
        self._command = [sys.executable, str(Path(__file__).resolve()), str(port), name, str(seconds)]
        self.report: dict[str, Any] = {}

    def __enter__(self) -> "Hostile":
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stdout.readline() == "begun\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        output, _ = self._process.communicate()
        self.report = json.loads(output) if output.strip() else {}


class _From(HTTPAdapter):
    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **kwargs)


def session_from(address: str) -> requests.Session:
    """Return a session whose connections come from `address`, one of the loopback network."""
    session = requests.Session()
    session.mount("http://", _From(address))
    return session


class _Connection:
    def __init__(self, port: int, attack: Attack) -> None:
        self.attack = attack
        self.began = time.monotonic()
        self.cut_s: float | None = None
        self.taken = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.bind((ADDRESS, 0))
        try:
            self._socket.settimeout(5.0)
            self._socket.connect(("127.0.0.1", port))
            self._socket.setblocking(False)
            self._socket.send(attack.first)
            if attack.half_closed:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.end()

    def go_on(self) -> None:
        """Do what the attack does every time, and note whether the server has cut the connection."""
        if self.cut_s is not None:
            return
        if self.attack.again:
            with suppress(OSError):
                self._socket.send(self.attack.again)
        try:
            if self.attack.read_bytes:
                data = self._socket.recv(self.attack.read_bytes)
                self.taken += len(data)
                if not data:
                    self.end()
                    return
        except BlockingIOError:
            pass
        except OSError:
            self.end()
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        if poll.poll(0):
            self.end()

    def end(self) -> None:
        self.cut_s = time.monotonic() - self.began
        self._socket.close()


def _run(port: int, attack: Attack, seconds: float) -> dict[str, Any]:
    connections = [_Connection(port, attack) for _ in range(attack.connections)]
    print("begun", flush=True)
    ended: list[_Connection] = []
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for at, connection in enumerate(connections):
            connection.go_on()
            if attack.reopened and connection.cut_s is not None:
                ended.append(connection)
                connections[at] = _Connection(port, attack)
        time.sleep(attack.pause_s)
    ended += [connection for connection in connections if connection.cut_s is not None]
    cuts = [connection.cut_s for connection in ended if connection.cut_s is not None]
    return {
        "connections": attack.connections,
        "cut": len(cuts),
        "last_cut_s": round(max(cuts), 2) if cuts else None,
        "taken_mb": round(sum(connection.taken for connection in [*connections, *ended]) / 1e6, 2),
    }


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]), ATTACKS[sys.argv[2]], float(sys.argv[3]))))
