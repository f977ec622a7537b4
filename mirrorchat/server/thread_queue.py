"""Whole requests that wait for a thread: what one address gets of the threads is bounded.

A flood of requests would otherwise take the interpreter from the turns of others. The worker's loop calls everything.
"""

import time
from collections import Counter, deque
from collections.abc import Callable

from mirrorchat.access.address_limits import PerAddress
from mirrorchat.server.connection import Connection

ADDRESS_THREADS = 0.75  # of all threads: so many may one address occupy
STARTS_AT_ONCE = 32  # of requests of one address: the page needs about 20
STARTS_PER_CHECK = 16  # of further ones
THREAD_DEADLINE_S = 9.0  # of the wait for a thread


class ThreadQueue:
    """Calls `start` with each connection whose request may have one of the `threads`."""

    def __init__(self, threads: int, start: Callable[[Connection], None]) -> None:
        self._occupied = PerAddress(max(1, int(ADDRESS_THREADS * threads)))
        self._start = start
        self._started: Counter[str] = Counter()  # requests of each address, less STARTS_PER_CHECK at every check
        self._queued: deque[Connection] = deque()

    def add(self, conn: Connection) -> None:
        """Start a request, as soon as its address may have one more. New connections come first."""
        if self._may_start(conn):
            self._start(conn)
            return
        conn.deadline = time.monotonic() + THREAD_DEADLINE_S
        if conn.parser.req_count:
            self._queued.append(conn)
        else:
            self._queued.appendleft(conn)

    def thread_ended(self, conn: Connection) -> None:
        """Note that the thread of `conn` is free."""
        self._occupied.release(conn.address)
        self._start_queued()

    def check(self, now: float) -> list[Connection]:
        """Let each address start STARTS_PER_CHECK requests more; return the connections that have waited too long."""
        self._started -= Counter(dict.fromkeys(self._started, STARTS_PER_CHECK))  # without those that reach 0
        self._start_queued()
        overdue = [conn for conn in self._queued if conn.deadline <= now]
        for conn in overdue:
            self._queued.remove(conn)
        return overdue

    def _start_queued(self) -> None:
        for conn in list(self._queued):
            if self._may_start(conn):
                self._queued.remove(conn)
                self._start(conn)

    def _may_start(self, conn: Connection) -> bool:
        if conn.address is not None and self._started[conn.address] >= STARTS_AT_ONCE:
            return False
        if not self._occupied.take(conn.address):
            return False
        if conn.address is not None:
            self._started[conn.address] += 1
        return True
