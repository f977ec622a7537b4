"""gunicorn's threaded worker, in which callers who are slow, silent or hostile occupy no thread.

gunicorn gives a thread to each connection, and lets it wait there for the head of a request, for the caller to take the
answer, and for the caller to close; a few dozen slow callers would block all others. Here the one loop that accepts
connections does all this, each with a deadline, and a thread begins with a whole head. What one address may hold is
bounded:

    accept -> HEAD -> [a thread: the body, the turn, the answer] -> TAKEN -> HEAD of the next request, or CLOSED
                                 if it rejects the body: -> BODY -> TAKEN -> CLOSED

`incoming_body` limits the time of bodies. Only streams wait for their callers in a thread (`timed_socket`).
"""

import logging
import os
import resource
import selectors
import signal
import socket
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from mirrorchat.access.address_limits import PerAddress
from mirrorchat.access.trusted_proxies import caller_network, is_trusted, networks_of
from mirrorchat.errors import HeadTooLarge, MirrorChatError, TooManyConnections, TooManyPartialRequests, UploadTimeout
from mirrorchat.server.connection import HEAD_LIMIT_BYTES, Connection, Wait
from mirrorchat.server.incoming_body import LINGER_BYTES, UPLOAD_DEADLINE_S, IncomingBody
from mirrorchat.server.thread_queue import ThreadQueue
from mirrorchat.server.timed_socket import SEND_DEADLINE_S

HEAD_DEADLINE_S = 9.0  # of a head from its first byte, and of a new connection's first byte
LINGER_S = 5.0  # for the caller to close the connection after the last response
BODY_S = 5.0  # of the wait for the rest of a rejected body
BODY_STALL_S = 0.5  # of it without any data
STOP_S = 2.0  # of a wait for callers while the worker stops
CHECK_S = 0.25  # between two looks at the deadlines
OPEN_FILES = 65_536  # requested; a system's soft limit may be 1,024
RESERVED_FILES = 128  # for the engines, chat APIs and voices
FEWEST_CONNECTIONS = 16
ACCEPT_PAUSE_S = 0.5

_READ_BYTES = 65_536

_log = logging.getLogger(__name__)


class DeadlineWorker(ThreadWorker):  # type: ignore[misc]
    """Serves connections as the module's text says. Everything but `handle` and `handle_request` runs in the loop."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse gunicorn's own HTTPS, whose heads the loop cannot read."""
        if cfg.is_ssl:
            raise SystemExit("mirrorchat: gunicorn serves no HTTPS here; put nginx or Caddy in front")
        super().check_config(cfg, log)

    def run(self) -> None:
        """Serve until the worker is stopped."""
        settings = self.app.callable.extensions["mirrorchat"].settings
        self._proxies = networks_of(settings.trusted_proxies)
        self._connections = PerAddress(settings.connections_per_address)
        self._partial = PerAddress(settings.partial_requests_per_address)
        self._queue = ThreadQueue(self.cfg.threads, self.enqueue_req)
        self._bounded: set[Connection] = set()  # the connections with an address
        self._waiting: dict[Connection, None] = {}  # in the order in which the waits began
        self._next_check = self._accept_again = 0.0
        self.worker_connections: int = min(self.cfg.worker_connections, _most_connections())
        super().run()

    def is_parent_alive(self) -> bool:
        """Return whether gunicorn's master runs. Without it this worker ends as on SIGTERM: it tells its callers."""
        alive: bool = super().is_parent_alive()
        if not alive:
            os.kill(os.getpid(), signal.SIGTERM)
        return alive

    # Accepting

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection. Without file descriptors the worker closes a waiting connection, or pauses."""
        try:
            accepted, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not self._close_one_of_the_busiest():
                _log.warning("no connection can be accepted for a moment: %s", error.strerror)
                self._accept_again = time.monotonic() + ACCEPT_PAUSE_S
                self.set_accept_enabled(False)
            return
        self._admit(Connection(self.cfg, accepted, client, listener.getsockname(), self._address(client)))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Let the loop accept connections or not; not during a pause.

        A worker that stops goes on accepting while it has connections: new callers are told, where they would wait in
        the listener's queue for its end.
        """
        enabled = enabled or not self.alive
        super().set_accept_enabled(enabled and time.monotonic() >= self._accept_again)

    def _address(self, client: Any) -> str | None:
        """Return the name of the caller's address; None if it has no limits: a trusted proxy, or a Unix socket."""
        if not isinstance(client, tuple) or is_trusted(client[0], self._proxies):
            return None
        return caller_network(client[0])

    def _admit(self, conn: Connection) -> None:
        """Wait for the first head of `conn`. An address with too many connections loses one that waits, or this one."""
        if not self._connections.take(conn.address):
            if not self._close_one_of(conn.address):
                with suppress(OSError):
                    conn.refuse(TooManyConnections("this address has too many connections", retry_after_s=1))
                conn.close()
                return
            self._connections.take(conn.address)
        if conn.address is not None:
            self._bounded.add(conn)
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._close_one_of_the_busiest()
        self._wait_for(conn, Wait.HEAD, HEAD_DEADLINE_S)

    def _close_one_of_the_busiest(self) -> bool:
        busiest = Counter(conn.address for conn in self._waiting).most_common(1)
        return bool(busiest) and self._close_one_of(busiest[0][0])

    def _close_one_of(self, address: str | None) -> bool:
        """Close the connection of `address` that has waited longest, if any waits; one without an answer first."""
        waiting = [conn for conn in self._waiting if conn.address == address]
        if waiting:
            self._close(min(waiting, key=lambda conn: conn.wait in (Wait.TAKEN, Wait.BODY)))
        return bool(waiting)

    # Waiting

    def _wait_for(self, conn: Connection, wait: Wait, seconds: float) -> None:
        conn.wait_for(wait, seconds)
        self._waiting[conn] = None
        event = selectors.EVENT_WRITE if wait is Wait.TAKEN else selectors.EVENT_READ
        self.poller.register(conn.sock, event, partial(self._go_on, conn))

    def _stop_waiting(self, conn: Connection) -> None:
        if conn in self._waiting:
            del self._waiting[conn]
            self.poller.unregister(conn.sock)

    def _go_on(self, conn: Connection, _: Any) -> None:
        """Act on an event of a connection that waits."""
        if conn not in self._waiting:  # another event of the same poll has ended the wait
            return
        act = {
            Wait.HEAD: self._read_head,
            Wait.BODY: self._discard_body,
            Wait.TAKEN: self._send_rest,
            Wait.CLOSED: self._discard,
        }
        try:
            act[conn.wait](conn)
        except BlockingIOError:
            pass
        except OSError:
            self._close(conn)

    def _read_head(self, conn: Connection) -> None:
        data = conn.sock.recv(_READ_BYTES)
        if data:
            self._take_head(conn, data)
        else:
            self._close(conn)

    def _take_head(self, conn: Connection, data: bytes) -> None:
        """Add `data` to the head. A whole one goes to a thread; the others of one address are bounded."""
        if conn.add_to_head(data):
            self._stop_waiting(conn)
            self._end_partial(conn)
            conn.pass_head_on()
            self._queue.add(conn)
        elif len(conn.head) > HEAD_LIMIT_BYTES:
            self._refuse(conn, HeadTooLarge(f"the head of the request is larger than {HEAD_LIMIT_BYTES} bytes"))
        elif not conn.partial:
            if not self._partial.take(conn.address):
                message = "too many requests of this address are still arriving"
                self._refuse(conn, TooManyPartialRequests(message, retry_after_s=1))
                return
            conn.partial = True
            conn.wait_for(Wait.HEAD, HEAD_DEADLINE_S)

    def _end_partial(self, conn: Connection) -> None:
        if conn.partial:
            conn.partial = False
            self._partial.release(conn.address)

    def _discard_body(self, conn: Connection) -> None:
        left_s = conn.body_by - time.monotonic()
        if conn.discard(_READ_BYTES) and conn.sock.held and left_s > 0:
            conn.deadline = time.monotonic() + min(BODY_STALL_S, left_s)
        else:
            self._answer_held(conn)

    def _answer_held(self, conn: Connection) -> None:
        """Send an answer that has waited for a rejected body."""
        self._stop_waiting(conn)
        self._end_partial(conn)
        conn.sock.held = 0
        try:
            conn.push()
            self._after_answer(conn)
        except OSError:
            self._close(conn)

    def _send_rest(self, conn: Connection) -> None:
        conn.push()
        if not conn.sock.unsent:
            self._stop_waiting(conn)
            self._after_answer(conn)

    def _discard(self, conn: Connection) -> None:
        now = time.monotonic()
        if not conn.discard(_READ_BYTES) or conn.discarded > LINGER_BYTES:
            self._close(conn)
        else:  # who still sends has not read the answer
            conn.deadline = min(now + LINGER_S, conn.body_by)

    # Threads

    def handle(self, conn: Connection) -> Any:
        """Read a request from `conn` and answer it, in a thread; return whether the connection is kept."""
        conn.sock.paced = False
        conn.sock.read_by = time.monotonic() + HEAD_DEADLINE_S  # it is whole: this is for gunicorn's surprises
        try:
            return super().handle(conn)
        finally:
            conn.sock.read_by = None

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """Answer a request, in a thread."""
        req.body = body = IncomingBody(req, conn.sock, self._partial, conn.address)
        try:
            return super().handle_request(req, conn)
        finally:
            body.release()

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Return whether another request may follow on `conn`; not behind a body that has not arrived."""
        return keepalive and conn.parser.mesg.body.is_here() and bool(super()._keepalive_after(conn, keepalive))

    def finish_request(self, conn: Connection, future: "Future[bool]") -> None:
        """Go on with a connection whose thread has ended."""
        self._queue.thread_ended(conn)
        conn.kept = not future.cancelled() and future.exception() is None and bool(future.result())
        try:
            self._after_answer(conn)
        except OSError:
            self._close(conn)

    def _after_answer(self, conn: Connection) -> None:
        """Send the answer or the rest of it; then wait for the next head, or until the caller closes."""
        if conn.sock.expired:
            self._close(conn)
        elif conn.sock.held and self._partial.take(conn.address):
            conn.partial = True
            conn.body_by = time.monotonic() + BODY_S
            self._wait_for(conn, Wait.BODY, BODY_STALL_S)
        elif conn.sock.held:
            self._answer_held(conn)
        elif conn.sock.unsent:
            self._wait_for(conn, Wait.TAKEN, SEND_DEADLINE_S)
        elif conn.kept:
            following = conn.parser.unreader.take_buffered()
            self._wait_for(conn, Wait.HEAD, self.cfg.keepalive)
            if following:
                self._take_head(conn, following)
        else:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.body_by = time.monotonic() + UPLOAD_DEADLINE_S
            self._wait_for(conn, Wait.CLOSED, LINGER_S)

    # Ends

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events for a short time: `murder_pending` then looks at the deadlines."""
        super().wait_for_and_dispatch_events(min(timeout, CHECK_S) if self.nr_conns else timeout)

    def murder_pending(self) -> None:
        """End the waits whose time is over. A worker that stops waits for STOP_S, except for the rest of an answer."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_S
        for conn in list(self._waiting):
            if not self.alive and conn.wait is not Wait.TAKEN:
                conn.deadline = min(conn.deadline, now + STOP_S)
            if conn.deadline <= now:
                self._expire(conn)
        self._cut_who_take_nothing()
        for conn in self._queue.check(now):
            self._refuse(conn, TooManyConnections("this address asks too much at the same time", retry_after_s=1))

    def _cut_who_take_nothing(self) -> None:
        for conn in [each for each in self._bounded if each.sock.takes_nothing()]:
            conn.sock.cut()
            if conn in self._waiting:  # else its thread finds the end
                self._close(conn)

    def _expire(self, conn: Connection) -> None:
        if conn.wait is Wait.BODY:
            self._answer_held(conn)
        elif conn.partial:
            self._refuse(conn, UploadTimeout(f"the head of the request took longer than {HEAD_DEADLINE_S:g} s"))
        elif conn.wait is Wait.CLOSED and conn in self._bounded and conn.sock.untaken():
            conn.wait_for(Wait.CLOSED, LINGER_S)  # it takes the rest slowly, or is cut
        else:
            if conn.wait is Wait.TAKEN:
                conn.sock.cut()
            self._close(conn)

    def _refuse(self, conn: Connection, error: MirrorChatError) -> None:
        self._stop_waiting(conn)
        self._end_partial(conn)
        conn.kept = False
        try:
            conn.refuse(error)
            self._after_answer(conn)
        except OSError:
            self._close(conn)

    def _close(self, conn: Connection) -> None:
        self._stop_waiting(conn)
        self._end_partial(conn)
        self._bounded.discard(conn)
        self._connections.release(conn.address)
        self.nr_conns -= 1
        conn.close()


def _most_connections() -> int:
    """Raise the limit of open files as far as the system allows; return how many may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
    return OPEN_FILES if soft == resource.RLIM_INFINITY else max(FEWEST_CONNECTIONS, soft - RESERVED_FILES)
