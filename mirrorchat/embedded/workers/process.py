"""Worker processes keep native libraries that crash, hang or hold the GIL out of the server's process.

`WorkerProcesses` is the server's side; serve.py is the worker's. They exchange length-prefixed frames over one socket
pair, which is the worker's standard input and output, so a worker ends whenever the server ends. (Linux's
PR_SET_PDEATHSIG does not help: it fires when the *thread* that started the worker ends, and the thread that loads the
engines does end.) Example:

    workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")
    answer = workers.request(b"en-us\0hello", limit_s=15.0, context=Context())
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.serve import ANSWER, MAX_FRAME_BYTES, REQUEST

RETRY_S = 5.0  # an engine whose process failed to start is not ready for so long

_ROOT = Path(__file__).resolve().parents[3]
_START_LIMIT_S = 30.0


class WorkerFailed(Exception):
    """A worker gave no answer: it ended, took too long, broke the protocol or failed. The next request is safe."""


class WorkerLost(WorkerFailed):
    """A worker ended or hung before its answer: something killed or stopped it, or the request did."""


class WorkerProcesses:
    """Up to `count` processes that run `python -m module`, each answering one request at a time. Thread-safe.

    `warm_up` or the first request starts a process; after a failure the next request starts another one. A request
    whose process ends or hangs is tried once more in another one, so that only requests that do that themselves fail.
    """

    def __init__(self, module: str, count: int = 1) -> None:
        self._closed = False
        self._workers = [_Worker(module) for _ in range(count)]
        self._idle: queue.Queue[_Worker] = queue.LifoQueue()  # last in, first out: running ones first
        for worker in reversed(self._workers):
            self._idle.put(worker)

    def warm_up(self) -> None:
        """Start one process and wait until it is loaded. Raises WorkerFailed with the reason when it cannot load."""
        with self._borrow(Context()) as worker:
            worker.ensure_started(Context())

    def request(self, body: bytes, *, limit_s: float, context: Context) -> bytes:
        """Return the answer to `body` (at most 32 MiB).

        Raises WorkerFailed if none arrived within `limit_s` seconds after a process was free, twice. If `context` ends,
        its reason is raised at once, even while no process is free.
        """
        if len(body) > MAX_FRAME_BYTES:
            raise WorkerFailed("the request is too large")
        with self._borrow(context) as worker:
            try:
                return worker.request(body, limit_s, context)
            except WorkerLost:
                if self._closed:
                    raise
                return worker.request(body, limit_s, context)

    def check_start(self) -> None:
        """Raise WorkerFailed with the reason when a process has failed to start within the last RETRY_S seconds."""
        for worker in self._workers:
            if worker.failed_start is not None and time.monotonic() - worker.failed_at < RETRY_S:
                raise WorkerFailed(*worker.failed_start.args)  # an exception that is kept would collect frames

    def pids(self) -> list[int]:
        """Return the ids of the running processes."""
        return [pid for worker in self._workers if (pid := worker.pid()) is not None]

    def close(self) -> None:
        """End all processes. A request in progress fails."""
        self._closed = True
        for worker in self._workers:
            worker.end()

    @contextlib.contextmanager
    def _borrow(self, context: Context) -> Iterator["_Worker"]:
        context.check()  # past the deadline an idle process is not worth starting
        worker = context.wait(self._idle)
        try:
            yield worker
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._owner = 0
        self.failed_start: WorkerFailed | None = None  # of the last start, at `failed_at`
        self.failed_at = 0.0
        self._end: Callable[[], object] = lambda: None

    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def request(self, body: bytes, limit_s: float, context: Context) -> bytes:
        self.ensure_started(context)
        try:
            with _Exchange(self._connected(), limit_s, context) as exchange:
                exchange.send(REQUEST.pack(len(body), int(limit_s * 1000)) + body)
                done, answer = exchange.receive()
            if exchange.cut:  # after the answer: the next request needs another process
                self.end()
        except BaseException:  # the answer may still come, and a later request must not read it
            self.end()
            raise
        if not done:
            raise WorkerFailed(f"it failed with {answer.decode(errors='replace')[:200]}")
        return answer

    def ensure_started(self, context: Context) -> None:
        if self.pid() is not None and self._owner == os.getpid():
            return
        self.end()
        try:
            self._start()
            with _Exchange(self._connected(), _START_LIMIT_S, context) as exchange:
                done, answer = exchange.receive()
            if not done:
                raise WorkerFailed(answer.decode(errors="replace"))
            self.failed_start = None
        except BaseException as error:
            self.end()
            if isinstance(error, WorkerFailed):
                self.failed_start, self.failed_at = WorkerFailed(*error.args), time.monotonic()
            raise

    def end(self) -> None:
        self._end()

    def _connected(self) -> socket.socket:
        assert self._socket is not None, "a worker is started first"
        return self._socket

    def _start(self) -> None:
        server_end, worker_end = socket.socketpair()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            with worker_end:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", self._module],
                    stdin=worker_end.fileno(),
                    stdout=worker_end.fileno(),
                    stderr=subprocess.DEVNULL,  # an unread pipe would fill and block the worker
                    start_new_session=True,  # one signal ends the worker and its fork
                    env={**os.environ, "PYTHONPATH": path},
                )
        except OSError as error:
            server_end.close()
            raise WorkerFailed(f"it cannot be started: {error.strerror}") from error
        self._process, self._socket, self._owner = process, server_end, os.getpid()
        self._end = weakref.finalize(self, _end, process, server_end, self._owner)


class _Exchange:
    """One request and its answer over a worker's socket, within `limit_s` seconds. A context manager.

    The cancellation of `context` shuts the socket down, which wakes the thread that reads or writes.
    """

    def __init__(self, connection: socket.socket, limit_s: float, context: Context) -> None:
        self._socket = connection
        self._limit_s = limit_s
        self._give_up_at = min(time.monotonic() + limit_s, context.deadline)
        self._context = context
        self._undo: Callable[[], None] = lambda: None
        self._lock = threading.Lock()  # a cancellation that comes late must not touch the next caller's exchange
        self._over = False
        self.cut = False  # the socket was shut down: the worker is of no use any more

    def __enter__(self) -> "_Exchange":
        self._undo = self._context.on_cancel(lambda _: self._shut_down())
        return self

    def __exit__(self, *_: object) -> None:
        self._undo()
        with self._lock:
            self._over = True

    def send(self, data: bytes) -> None:
        with self._failures():
            self._socket.sendall(data)

    def receive(self) -> tuple[bool, bytes]:
        done, length = ANSWER.unpack(self._read(ANSWER.size))
        if done not in (0, 1) or length > MAX_FRAME_BYTES:
            raise WorkerFailed("its answer is malformed")
        return bool(done), self._read(length)

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            with self._failures():
                part = self._socket.recv(min(length - len(parts), 1 << 20))
            if not part:
                self._context.check()
                raise WorkerLost("it ended")
            parts += part
        return bytes(parts)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Let one call use the socket in time. Raises WorkerFailed, or the reason if the context ends."""
        self._context.check()
        self._socket.settimeout(max(self._give_up_at - time.monotonic(), 1e-3))
        try:
            yield
        except TimeoutError:
            self._context.check()
            raise WorkerLost(f"it gave no answer within {self._limit_s:g} s") from None
        except OSError:
            self._context.check()
            raise WorkerLost("it ended") from None

    def _shut_down(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if not self._over:
                self.cut = True
                self._socket.shutdown(socket.SHUT_RDWR)


def _end(process: subprocess.Popen[bytes], server_end: socket.socket, owner: int) -> None:
    server_end.close()
    if os.getpid() != owner:  # in a fork of the server, which must neither end the worker nor wait for it
        process.returncode = 0
        return
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
