"""gunicorn's threaded worker, with a deadline for the head of a request.

gunicorn waits without end for the rest of a head once its first byte has come, and each such caller keeps a thread: a
few dozen of them, slow or hostile, and nobody else is answered. For bodies see `socket_watch.upload_deadline`.
"""

import json
import socket
import threading
from contextlib import suppress
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from mirrorchat.errors import UploadTimeout
from mirrorchat.server.socket_watch import stop_reading

HEAD_DEADLINE_S = 10.0  # gunicorn gives 5 of them to the first byte, and then waits for it without a thread


class HeadDeadlineWorker(ThreadWorker):  # type: ignore[misc]
    """Answers 408 when the head of a request is not whole within HEAD_DEADLINE_S."""

    def handle(self, conn: Any) -> Any:
        """Read a request from `conn` and answer it, in a thread of the pool."""
        late = threading.Event()
        conn.head_timer = threading.Timer(HEAD_DEADLINE_S, stop_reading, (conn.sock, late))
        conn.head_timer.daemon = True
        conn.head_timer.start()
        try:
            return super().handle(conn)
        finally:
            waited = conn.head_timer is not None  # no request came of it
            self._stop_timer(conn)
            if waited and late.is_set():
                _refuse(conn.sock)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer a request whose head is there."""
        self._stop_timer(conn)
        return super().handle_request(req, conn)

    @staticmethod
    def _stop_timer(conn: Any) -> None:
        if conn.head_timer is not None:
            conn.head_timer.cancel()
            conn.head_timer = None


def _refuse(connection: socket.socket) -> None:
    error = UploadTimeout(f"the head of the request took longer than {HEAD_DEADLINE_S:g} s")
    body = json.dumps(error.body()).encode()
    head = f"HTTP/1.1 {error.status} Request Timeout\r\nContent-Type: application/json\r\n"
    with suppress(OSError):
        connection.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
