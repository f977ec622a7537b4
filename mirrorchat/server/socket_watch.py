"""Watches the callers' sockets, below WSGI: a hang-up cancels the turn, and a write that blocks is ended.

One thread watches the sockets of all requests; it sleeps until a caller hangs up or a write takes too long. Example:

    sockets = SocketWatch()
    caller = sockets.watch(request.environ, context)  # a hang-up cancels context from now on
    caller.close()  # at the end of the response
"""

import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone, UploadTimeout, log_unexpected

DISCARD_LIMIT_BYTES = 256 * 1024 * 1024
DISCARD_DEADLINE_S = 5.0
UPLOAD_DEADLINE_S = 30.0  # of a whole body; nginx, which buffers bodies, has a stricter limit between two reads
SEND_DEADLINE_S = 10.0  # of one write of a streamed answer; a listener plays as much in a second or two
SOCKET_KEY = "gunicorn.socket"  # other servers do not pass on their socket, which then cannot be watched

_HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLONESHOT


class CallerSocket:
    """The socket of one request, watched until `close`. `expired` tells whether a write took too long."""

    def __init__(self, watch: "SocketWatch", connection: socket.socket | None, context: Context) -> None:
        self.connection = connection
        self.context = context
        self.expired = False
        self._watch = watch
        self._lock = threading.Lock()
        self._writing_since: float | None = None
        self._open = connection is not None
        self._gone = False

    def begin_write(self) -> None:
        """Note the start of a write, which must end within SEND_DEADLINE_S.

        Otherwise it could block forever: the server sets no timeout, and the socket's own timeout would restart with
        every byte.
        """
        with self._lock:
            self._writing_since = time.monotonic()
            if self._gone:
                self._shut()

    def end_write(self) -> None:
        """Note the end of the write."""
        with self._lock:
            self._writing_since = None

    def close(self) -> None:
        """Stop watching the socket: from now on the server may close it, or use it for another request."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._watch.forget(self)

    # The watch's thread calls the methods below.

    def hang_up(self) -> None:
        """Cancel the turn of a caller who has closed the connection, and end a write in progress."""
        with self._lock:
            if not self._has_hung_up():  # the descriptor belongs to another connection now
                return
            self._gone = True
            if self._writing_since is not None:
                self._shut()
        self.context.cancel(ClientGone("the caller hung up"))

    def expires_in_s(self) -> float:
        """Return the seconds until the present write, or one that starts now, has taken too long."""
        since = self._writing_since
        return SEND_DEADLINE_S if since is None else since + SEND_DEADLINE_S - time.monotonic()

    def end_stuck_write(self) -> None:
        """Shut the socket down if a write has taken too long."""
        with self._lock:
            if self._writing_since is not None and self.expires_in_s() <= 0:
                self.expired = True
                self._shut()

    def _has_hung_up(self) -> bool:
        poll = select.poll()
        if not self._open or self.connection is None:
            return False
        poll.register(self.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    def _shut(self) -> None:
        self._writing_since = None
        if self._open and self.connection is not None:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class SocketWatch:
    """Watches the sockets of all requests of a server. Thread-safe; its thread starts with the first socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[int, CallerSocket] = {}  # by file descriptor
        self._epoll: select.epoll | None = None
        self._wake = -1  # an eventfd
        self._closed = False

    def watch(self, environ: Mapping[str, Any], context: Context) -> CallerSocket:
        """Watch the socket of the request with `environ`: its hang-up cancels `context` with ClientGone."""
        with self._lock:
            caller = CallerSocket(self, None if self._closed else environ.get(SOCKET_KEY), context)
            if caller.connection is not None:
                epoll = self._started()
                descriptor = caller.connection.fileno()
                self._sockets[descriptor] = caller
                with suppress(FileNotFoundError):  # an earlier request may have left it
                    epoll.unregister(descriptor)
                epoll.register(descriptor, _HANG_UP)
                os.eventfd_write(self._wake, 1)  # the thread may be sleeping for longer than SEND_DEADLINE_S
        return caller

    def forget(self, caller: CallerSocket) -> None:
        """Stop watching a socket."""
        with self._lock:
            for descriptor in [each for each, watched in self._sockets.items() if watched is caller]:
                del self._sockets[descriptor]
                if self._epoll is not None:
                    with suppress(OSError):  # it is closed already
                        self._epoll.unregister(descriptor)
            self._wake_if_closed()

    def close(self) -> None:
        """Watch no further socket, and end the thread once the requests that it watches are over."""
        with self._lock:
            self._closed = True
            self._wake_if_closed()

    def _wake_if_closed(self) -> None:
        if self._closed and self._epoll is not None:
            os.eventfd_write(self._wake, 1)

    def _started(self) -> select.epoll:
        if self._epoll is None:
            self._epoll, self._wake = select.epoll(), os.eventfd(0)
            self._epoll.register(self._wake, select.EPOLLIN)
            threading.Thread(target=self._run, args=(self._epoll,), name="socket-watch", daemon=True).start()
        return self._epoll

    def _run(self, epoll: select.epoll) -> None:
        while self._sockets or not self._closed:
            ready = {descriptor for descriptor, _ in epoll.poll(self._timeout_s())}
            if self._wake in ready:
                os.eventfd_read(self._wake)
            with self._lock:
                sockets = dict(self._sockets)
            for descriptor, caller in sockets.items():
                try:
                    if descriptor in ready:
                        caller.hang_up()
                    caller.end_stuck_write()
                except Exception as error:  # an error in one turn's cancellation must not end the watch
                    log_unexpected(error)
        with self._lock:
            self._epoll = None
            epoll.close()
            os.close(self._wake)

    def _timeout_s(self) -> float | None:
        with self._lock:
            return max(0.0, min(caller.expires_in_s() for caller in self._sockets.values())) if self._sockets else None


@contextmanager
def upload_deadline(environ: Mapping[str, Any], *, seconds: float = UPLOAD_DEADLINE_S) -> Iterator[None]:
    """Raise UploadTimeout when the block takes longer than `seconds` to read the body.

    The socket's own timeout would restart with each byte.
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


def discard_body(environ: Mapping[str, Any]) -> None:
    """Read the rest of a rejected request's body, within limits.

    Closing a connection with unread bytes resets it, and the caller would not get the error.
    """
    if not environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in environ:
        return
    with suppress(Exception), upload_deadline(environ, seconds=DISCARD_DEADLINE_S):
        for _ in range(DISCARD_LIMIT_BYTES // 65536):
            if not environ["wsgi.input"].read(65536):
                break


def stop_reading(connection: socket.socket | None, expired: threading.Event) -> None:
    """Set `expired`, and end the reads from `connection`."""
    if connection is not None:
        expired.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
