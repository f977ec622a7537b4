"""The caller's own socket, watched below WSGI: has it hung up, does its upload come to an end, does it read?"""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mirrorchat.errors import UploadTimeout

DISCARD_LIMIT_BYTES = 256 * 1024 * 1024
DISCARD_DEADLINE_S = 5.0
UPLOAD_DEADLINE_S = 30.0  # for a whole body; nginx, which buffers bodies, is stricter with silence
SEND_DEADLINE_S = 10.0  # for one write of a streamed answer; a listener plays as much in a second or two
SEND_POLL_S = 0.03
SOCKET_KEY = "gunicorn.socket"  # other servers do not hand their socket on: then nothing is watched


def hung_up(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """Return a function that tells whether the caller has closed its connection."""
    connection = environ.get(SOCKET_KEY)
    if connection is None:
        return lambda: False
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return lambda: bool(poller.poll(0))


@contextmanager
def upload_deadline(environ: Mapping[str, Any], *, seconds: float = UPLOAD_DEADLINE_S) -> Iterator[None]:
    """Raise UploadTimeout when reading the body takes longer than `seconds`, however slowly it trickles in.

    A timeout of the socket cannot do this: each byte would start it anew.
    """
    connection = environ.get(SOCKET_KEY)
    expired = threading.Event()
    timer = threading.Timer(seconds, stop_reading, (connection, expired))
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if expired.is_set():
            raise UploadTimeout(f"the upload took longer than {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


class SendWatch:
    """Shuts the caller's socket when one write takes longer than SEND_DEADLINE_S, or the caller hangs up during it.

    A write would otherwise block for ever: the server sets no timeout, and one of the socket's own would begin anew
    with every byte. `expired` tells that a write took too long. One thread, which `close` ends.
    """

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._connection: socket.socket | None = environ.get(SOCKET_KEY)
        self._hung_up = hung_up(environ)
        self._limit_s = SEND_DEADLINE_S
        self._lock = threading.Lock()
        self._writing_since: float | None = None
        self._closed = threading.Event()
        self.expired = False
        if self._connection is not None:
            threading.Thread(target=self._watch, name="send-watch", daemon=True).start()

    def begin(self) -> None:
        """Say that a write begins."""
        with self._lock:
            self._writing_since = time.monotonic()

    def end(self) -> None:
        """Say that it is through."""
        with self._lock:
            self._writing_since = None

    def close(self) -> None:
        """Touch the socket no more, which its server may close or use for another request from now on."""
        with self._lock:
            self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(SEND_POLL_S):
            with self._lock:
                if not self._closed.is_set() and self._is_stuck():
                    self._shut()
                    return

    def _is_stuck(self) -> bool:
        if self._writing_since is None:
            return False
        self.expired = time.monotonic() - self._writing_since > self._limit_s
        return self.expired or self._hung_up()

    def _shut(self) -> None:
        assert self._connection is not None
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def discard_body(environ: Mapping[str, Any]) -> None:
    """Read what is left of a refused request's body, within bounds.

    Closing a connection with unread bytes resets it, and the caller would see that instead of the error.
    """
    if not environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in environ:
        return
    with suppress(Exception), upload_deadline(environ, seconds=DISCARD_DEADLINE_S):
        for _ in range(DISCARD_LIMIT_BYTES // 65536):
            if not environ["wsgi.input"].read(65536):
                break


def stop_reading(connection: socket.socket | None, expired: threading.Event) -> None:
    """Set `expired`, and let whoever reads from `connection` find its end."""
    if connection is not None:
        expired.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
