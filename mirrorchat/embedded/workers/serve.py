"""The worker process's side: it reads a request, answers it, and ends when its standard input ends.

Frames: a request is `REQUEST` (length in bytes, limit in milliseconds) and its body; an answer is `ANSWER` (1 = done or
0 = failed, length in bytes) and its body. The worker sends a first answer without a request as soon as its library is
loaded. This module imports the standard library only, so that a worker starts fast and holds only its own library.
"""

import os
import signal
import struct
from collections.abc import Callable

REQUEST = struct.Struct(">II")
ANSWER = struct.Struct(">BI")
MAX_FRAME_BYTES = 32 * 1024 * 1024


def serve(load: Callable[[], Callable[[bytes], bytes]]) -> None:
    """Call `load` once, then answer every request of standard input with the function that it returned.

    A fork of the freshly loaded process computes each answer. So no utterance can affect the next one (eSpeak NG and
    pocketsphinx both keep state that none of their calls resets), and no caller's data stays in memory.
    """
    _outlive_group_signals()
    source, sink = _claim_standard_streams()
    try:
        answer = load()
    except Exception as error:
        _write(sink, 0, f"{type(error).__name__}: {error}".encode()[:1000])
        return
    _write(sink, 1, b"")
    while header := _read(source, REQUEST.size):
        length, limit_ms = REQUEST.unpack(header)
        if length > MAX_FRAME_BYTES:
            return
        body = _read(source, length) if length else b""
        if body is None or not _answer_in_fork(answer, body, limit_ms, sink):
            return  # the server sees the end of the stream and starts a new worker


def _outlive_group_signals() -> None:
    """Let the server decide when to end: Ctrl-C and systemd's stop signal every process of the service at once."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)


def _claim_standard_streams() -> tuple[int, int]:
    """Return private copies of standard input and output, so that a library's prints go nowhere, not into frames."""
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return source, sink


def _answer_in_fork(answer: Callable[[bytes], bytes], body: bytes, limit_ms: int, sink: int) -> bool:
    """Return whether the fork answered. A crash ends the fork, and a signal ends one that hangs."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == 0
    status = 1
    try:
        # The kernel ends a native call that hangs, even after the server has ended.
        signal.setitimer(signal.ITIMER_REAL, limit_ms / 1000 + 1)
        try:
            done, result = 1, answer(body)
        except Exception as error:
            done, result = 0, type(error).__name__.encode()  # its message may hold the caller's words
        _write(sink, done, result)
        status = 0
    finally:
        os._exit(status)


def _read(source: int, length: int) -> bytes | None:
    """Return exactly `length` bytes, or None when the stream ends first."""
    parts = bytearray()
    while len(parts) < length:
        try:
            part = os.read(source, min(length - len(parts), 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


def _write(sink: int, done: int, body: bytes) -> None:
    view = memoryview(ANSWER.pack(done, len(body)) + body)
    while view:
        view = view[os.write(sink, view) :]
