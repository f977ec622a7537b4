"""gunicorn's threaded worker, with a deadline for the head of a request, and a log without callers' data.

After the first byte of a head gunicorn waits for the rest without a limit, and each such caller occupies a thread: a
few dozen slow or hostile callers would block all others. gunicorn waits for closing connections in its single accept
thread. `socket_watch.upload_deadline` limits the time of bodies.
"""

import json
import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from mirrorchat.errors import UploadTimeout
from mirrorchat.server.socket_watch import stop_reading

HEAD_DEADLINE_S = 10.0  # gunicorn waits 5 s of them for the first byte, and longer without a thread
LINGER_S = 2.0  # for the caller to close the connection after the last response
LINGER_READS = 1000


class DeadlineWorker(ThreadWorker):  # type: ignore[misc]
    """Answers 408 when the head of a request is not whole within HEAD_DEADLINE_S; ends connections in their thread."""

    def handle(self, conn: Any) -> Any:
        """Read a request from `conn` and answer it, in a thread of the pool; return whether the connection is kept."""
        late = threading.Event()
        conn.head_timer = threading.Timer(HEAD_DEADLINE_S, stop_reading, (conn.sock, late))
        conn.head_timer.daemon = True
        conn.head_timer.start()
        try:
            kept = super().handle(conn)
        finally:
            waited = conn.head_timer is not None  # the head has not arrived
            self._stop_timer(conn)
        if waited and late.is_set():
            _refuse(conn.sock)
        if not kept:
            _end(conn.sock)
        return kept

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head has arrived."""
        self._stop_timer(conn)
        return super().handle_request(req, conn)

    @staticmethod
    def _stop_timer(conn: Any) -> None:
        if conn.head_timer is not None:
            conn.head_timer.cancel()
            conn.head_timer = None


class NothingOfCallers(logging.Filter):
    """Removes callers' data from gunicorn's messages: malformed heads hold keys, addresses hold names."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, some with another message."""
        if str(record.msg).startswith("Invalid request from"):
            record.msg, record.args = "a request could not be read", ()
        elif str(record.msg).startswith("Error handling request"):
            kind = record.exc_info[0] if record.exc_info else None
            record.msg, record.args = f"a request could not be handled: {kind.__name__ if kind else 'unknown'}", ()
            record.exc_info = record.exc_text = None
        return True


def _refuse(connection: socket.socket) -> None:
    error = UploadTimeout(f"the head of the request took longer than {HEAD_DEADLINE_S:g} s")
    body = json.dumps(error.body()).encode()
    head = f"HTTP/1.1 {error.status} Request Timeout\r\nContent-Type: application/json\r\n"
    with suppress(OSError):
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)


def _end(connection: socket.socket) -> None:
    """Shut down the sending side and wait here until the caller closes; gunicorn then finds the end at once.

    Closing a connection with unread bytes would reset it, and a slow caller would lose the response.
    """
    limit = time.monotonic() + LINGER_S
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        for _ in range(LINGER_READS):
            connection.settimeout(max(0.001, limit - time.monotonic()))
            if time.monotonic() > limit or not connection.recv(65536):
                break
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
