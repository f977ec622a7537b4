"""Watches the callers' sockets, below WSGI: a hang-up cancels the turn.

One thread watches the sockets of all requests; it sleeps until a caller hangs up. Example:

    sockets = SocketWatch()
    caller = sockets.watch(request.environ, context)  # a hang-up cancels context from now on
    caller.close()  # at the end of the response
"""

import os
import select
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone, log_unexpected
from mirrorchat.server.timed_socket import TimedSocket

SOCKET_KEY = "gunicorn.socket"  # other servers do not pass on their socket, which then cannot be watched

_HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLONESHOT


class CallerSocket:
    """The socket of one request, watched until `close`."""

    def __init__(self, watch: "SocketWatch", connection: socket.socket | None, context: Context) -> None:
        self.connection = connection
        self.context = context
        self._watch = watch
        self._lock = threading.Lock()
        self._open = connection is not None

    @property
    def expired(self) -> bool:
        """Whether the caller did not read in time."""
        return isinstance(self.connection, TimedSocket) and self.connection.expired

    def pace(self) -> None:
        """Let the writes of the present answer wait until the caller has read them."""
        if isinstance(self.connection, TimedSocket):
            self.connection.paced = True

    def close(self) -> None:
        """Stop watching the socket: from now on the server may close it, or use it for another request."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._watch.forget(self)

    def hang_up(self) -> None:
        """Cancel the turn of a caller who has closed the connection, and end a write in progress.

        The watch's thread calls it.
        """
        with self._lock:
            if not self._has_hung_up():  # the descriptor belongs to another connection now
                return
            assert self.connection is not None
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self.context.cancel(ClientGone("the caller hung up"))

    def _has_hung_up(self) -> bool:
        poll = select.poll()
        if not self._open or self.connection is None:
            return False
        poll.register(self.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))


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
            for descriptor, _ in epoll.poll():
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    continue
                with self._lock:
                    caller = self._sockets.get(descriptor)
                try:
                    if caller is not None:
                        caller.hang_up()
                except Exception as error:  # an error in one turn's cancellation must not end the watch
                    log_unexpected(error)
        with self._lock:
            self._epoll = None
            epoll.close()
            os.close(self._wake)
