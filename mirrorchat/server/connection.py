"""One caller's connection while no thread works for it: it waits for a head, for the caller to take an answer, ..."""

import enum
import json
import time
from typing import Any

from gunicorn import http
from gunicorn.workers.gthread import TConn

from mirrorchat.errors import MirrorChatError
from mirrorchat.server.timed_socket import SEND_DEADLINE_S, WRITE_BYTES, TimedSocket

HEAD_LIMIT_BYTES = 65_536

_END = b"\r\n\r\n"
_REASONS = {408: "Request Timeout", 429: "Too Many Requests", 431: "Request Header Fields Too Large"}


class Wait(enum.Enum):
    """What a connection waits for."""

    HEAD = "the head of the next request"
    BODY = "the rest of a rejected body, which nobody reads"
    TAKEN = "the caller takes the rest of an answer"
    CLOSED = "the caller closes, too"


class Connection(TConn):  # type: ignore[misc]
    """The connection of a caller at `address`, None for a trusted proxy.

    `deadline` is the end of the present wait, by time.monotonic(). `partial` tells whether a head has begun to arrive;
    `kept` whether another request may follow the present answer.
    """

    def __init__(self, cfg: Any, accepted: Any, client: Any, server: Any, address: str | None) -> None:
        super().__init__(cfg, TimedSocket(accepted), client, server)
        self.address = address
        self.wait = Wait.HEAD
        self.deadline = 0.0
        self.head = bytearray()
        self.partial = False
        self.kept = True
        self.body_by = 0.0  # the end of the wait for a rejected body, by time.monotonic()
        self.discarded = 0  # bytes that came and were not read
        self._taken = 0
        self.parser = http.get_parser(self.cfg, self.sock, self.client)
        self.initialized = self.data_ready = True  # gunicorn then neither waits for the head nor replaces the parser

    def wait_for(self, wait: Wait, seconds: float) -> None:
        """Begin a wait."""
        self.wait, self.deadline = wait, time.monotonic() + seconds
        self.sock.setblocking(False)

    def add_to_head(self, data: bytes) -> bool:
        """Add what has arrived; return whether gunicorn can read the head, or reject it, without waiting for more.

        It rejects a head with a line that ends with LF alone.
        """
        searched = max(0, len(self.head) - len(_END) + 1)
        self.head += data
        fresh = self.head[searched:]
        return _END in fresh or fresh.count(b"\n", 1) != fresh.count(b"\r\n")

    def pass_head_on(self) -> None:
        """Give the head, and what has arrived behind it, to gunicorn's parser."""
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()

    def discard(self, size: int) -> bool:
        """Receive up to `size` bytes for nobody; return whether any came."""
        came = len(self.sock.recv(size))
        self.discarded += came
        self.sock.held = max(0, self.sock.held - came)
        return came > 0

    def push(self) -> None:
        """Send what the caller takes of the rest of an answer. The deadline is that of the next WRITE_BYTES."""
        self._taken += self.sock.push()
        if self._taken >= WRITE_BYTES:
            self._taken = 0
            self.deadline = time.monotonic() + SEND_DEADLINE_S

    def refuse(self, error: MirrorChatError) -> None:
        """Answer with `error`, outside of a request."""
        body = json.dumps(error.body()).encode()
        lines = [
            f"HTTP/1.1 {error.status} {_REASONS[error.status]}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if error.retry_after_s is not None:
            lines.append(f"Retry-After: {error.retry_after_s}")
        self.sock.sendall("\r\n".join(lines).encode() + _END + body)
