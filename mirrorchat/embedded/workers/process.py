"""Warm child processes: native libraries that crash, stall or hold Python's lock are kept out of the server's process.

`WorkerProcesses` is the worker's side; `serve` is the child's. They speak length-prefixed frames over one socket
pair that is the child's standard input and output, so a child ends when its worker does, whatever ended it. (Linux's
PR_SET_PDEATHSIG is of no use here: it fires when the *thread* that started the child ends, and engines are loaded in a
thread that does.)
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from mirrorchat.embedded.workers.serve import ANSWER, MAX_FRAME_BYTES, REQUEST
from mirrorchat.engines import Cancel, Deadline

_POLL_S = 0.05  # how soon a cancelled caller is let go
_START_LIMIT_S = 30.0
RETRY_S = 5.0  # for so long after a failed start there is no use in asking again


class ChildFailed(Exception):
    """A child gave no answer: it ended, took too long, sent nonsense or could not do it. The next request is safe."""


class WorkerProcesses:
    """Up to `count` children that run `python -m module`, each answering one request at a time. Thread-safe.

    A child is started by the first request that needs it (or by `warm_up`), and after a failure by the next request.
    """

    def __init__(self, module: str, count: int = 1) -> None:
        self._children = [_Child(module) for _ in range(count)]
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()  # last in, first out: the warm one first
        for child in reversed(self._children):
            self._idle.put(child)

    def warm_up(self) -> None:
        """Start one child and wait until it is loaded. Raises ChildFailed with the reason when it cannot load."""
        with self._borrow(None, Cancel()) as child:
            child.ensure_started(_watch(_START_LIMIT_S, None, Cancel()))

    def request(self, body: bytes, *, limit_s: float, deadline: Deadline | None, cancel: Cancel) -> bytes:
        """Return the child's answer to `body` (at most 32 MiB).

        Raises ChildFailed when none came within `limit_s` seconds of a child being free, DeadlineExceeded at
        `deadline`, and the reason of `cancel` within 0.1 s of its being set, also while waiting for a free child.
        """
        if len(body) > MAX_FRAME_BYTES:
            raise ChildFailed("the request is too large")
        with self._borrow(deadline, cancel) as child:
            return child.request(body, limit_s, deadline, cancel)

    def check_start(self) -> None:
        """Raise ChildFailed with the reason when a child has failed to start within the last RETRY_S seconds."""
        for child in self._children:
            if child.failed_start is not None and time.monotonic() - child.failed_at < RETRY_S:
                raise ChildFailed(*child.failed_start.args)  # a kept one would gather the frames of all who ask

    def pids(self) -> list[int]:
        """Return the process ids of the children that are running."""
        return [pid for child in self._children if (pid := child.pid()) is not None]

    def close(self) -> None:
        """End all children. A request that is under way fails."""
        for child in self._children:
            child.end()

    @contextlib.contextmanager
    def _borrow(self, deadline: Deadline | None, cancel: Cancel) -> Iterator["_Child"]:
        child = None
        while child is None:
            cancel.check()
            if deadline is not None:
                deadline.check()
            with contextlib.suppress(queue.Empty):
                child = self._idle.get(timeout=_POLL_S)
        try:
            yield child
        finally:
            self._idle.put(child)


class _Child:
    """One child process, used by one thread at a time."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._owner = 0
        self.failed_start: ChildFailed | None = None  # of the last start, at `failed_at`
        self.failed_at = 0.0
        self._end: Callable[[], object] = lambda: None

    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def request(self, body: bytes, limit_s: float, deadline: Deadline | None, cancel: Cancel) -> bytes:
        self.ensure_started(_watch(_START_LIMIT_S, deadline, cancel))
        watch = _watch(limit_s, deadline, cancel)
        try:
            self._send(REQUEST.pack(len(body), int(limit_s * 1000)) + body, watch)
            done, answer = self._receive(watch)
        except BaseException:  # the answer may still come, and nobody waits for it: no later request may read it
            self.end()
            raise
        if not done:
            raise ChildFailed(f"it failed with {answer.decode(errors='replace')[:200]}")
        return answer

    def ensure_started(self, watch: Callable[[], None]) -> None:
        if self.pid() is not None and self._owner == os.getpid():
            return
        self.end()
        try:
            self._start()
            done, answer = self._receive(watch)
            if not done:
                raise ChildFailed(answer.decode(errors="replace"))
            self.failed_start = None
        except BaseException as error:
            self.end()
            if isinstance(error, ChildFailed):
                self.failed_start, self.failed_at = ChildFailed(*error.args), time.monotonic()
            raise

    def end(self) -> None:
        self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", self._module],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,  # a pipe that nobody reads would fill and block the child
                    start_new_session=True,  # so that its fork is ended with it
                    env={**os.environ, "PYTHONPATH": path},
                )
        except OSError as error:
            ours.close()
            raise ChildFailed(f"it cannot be started: {error.strerror}") from error
        ours.settimeout(_POLL_S)
        self._process, self._socket, self._owner = process, ours, os.getpid()
        self._end = weakref.finalize(self, _end, process, ours, self._owner)

    def _send(self, data: bytes, watch: Callable[[], None]) -> None:
        assert self._socket is not None
        view = memoryview(data)
        while view:
            watch()
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                continue
            except OSError:
                raise ChildFailed("it ended") from None

    def _receive(self, watch: Callable[[], None]) -> tuple[bool, bytes]:
        done, length = ANSWER.unpack(self._read(ANSWER.size, watch))
        if done not in (0, 1) or length > MAX_FRAME_BYTES:
            raise ChildFailed("its answer is malformed")
        return bool(done), self._read(length, watch)

    def _read(self, length: int, watch: Callable[[], None]) -> bytes:
        assert self._socket is not None
        parts = bytearray()
        while len(parts) < length:
            watch()
            try:
                part = self._socket.recv(min(length - len(parts), 1 << 20))
            except TimeoutError:
                continue
            except OSError:
                part = b""
            if not part:
                raise ChildFailed("it ended")
            parts += part
        return bytes(parts)


def _watch(limit_s: float, deadline: Deadline | None, cancel: Cancel) -> Callable[[], None]:
    """Return a function that raises when there is no more reason to wait."""
    limit_at = time.monotonic() + limit_s

    def check() -> None:
        cancel.check()
        if deadline is not None:
            deadline.check()
        if time.monotonic() >= limit_at:
            raise ChildFailed(f"it gave no answer within {limit_s:g} s")

    return check


def _end(process: subprocess.Popen[bytes], ours: socket.socket, owner: int) -> None:
    ours.close()
    if os.getpid() != owner:  # a fork of the worker: the child is not its own to end or to wait for
        process.returncode = 0
        return
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
