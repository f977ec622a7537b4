"""The caller's own socket, watched below WSGI: has it hung up, and does its upload come to an end?"""

import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mirrorchat.errors import UploadTimeout

DISCARD_LIMIT_BYTES = 256 * 1024 * 1024
DISCARD_DEADLINE_S = 5.0
UPLOAD_DEADLINE_S = 30.0  # for a whole body; nginx, which buffers bodies, is stricter with silence
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
    timer = threading.Timer(seconds, _stop_reading, (connection, expired))
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


def _stop_reading(connection: socket.socket | None, expired: threading.Event) -> None:
    if connection is not None:
        expired.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
