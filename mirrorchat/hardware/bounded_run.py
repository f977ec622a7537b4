"""External programs, run with limits on their time and on the size of their output."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """The end of a program. `status` is its exit status, negative for a signal, None if it was killed at a limit."""

    status: int | None
    output: bytes


def run_bounded(
    command: Sequence[str], *, limit_s: float, limit_bytes: int, environ: Mapping[str, str] | None = None
) -> Ended:
    """Run `command` and return its standard output; its standard error is discarded.

    After `limit_s` seconds, or about `limit_bytes` of output, the program is killed with its process group.

    Raises OSError if it cannot be started.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    limit_at = time.monotonic() + limit_s
    with process.stdout:
        whole, output = _read(process.stdout.fileno(), limit_at, limit_bytes)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if whole:
            return Ended(process.wait(max(1.0, limit_at - time.monotonic())), output)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that hangs in a driver survives SIGKILL
        process.wait(1.0)
    return Ended(None, output)


def _read(file: int, limit_at: float, limit_bytes: int) -> tuple[bool, bytes]:
    """Return whether `file` ended before `limit_at` and within `limit_bytes`, and its content so far."""
    output = bytearray()
    while len(output) < limit_bytes:
        ready, _, _ = select.select([file], [], [], max(0.0, limit_at - time.monotonic()))
        part = os.read(file, 4096) if ready else b""
        if not part:
            return bool(ready), bytes(output)
        output += part
    return False, bytes(output)
