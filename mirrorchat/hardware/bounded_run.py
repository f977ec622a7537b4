"""Programs run within bounds: of time, and of what they may write."""

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
    """How a program ended. `status` is its exit status, negative for a signal; None when it was stopped at a limit."""

    status: int | None
    output: bytes


def run_bounded(
    command: Sequence[str], *, limit_s: float, limit_bytes: int, environ: Mapping[str, str] | None = None
) -> Ended:
    """Run `command` and return what it wrote to its standard output, at most about `limit_bytes`; stderr is dropped.

    After `limit_s` seconds, or that many bytes, it is killed with its children. Raises OSError when it cannot be run.
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that hangs in a driver outlives this
        process.wait(1.0)
    return Ended(None, output)


def _read(file: int, limit_at: float, limit_bytes: int) -> tuple[bool, bytes]:
    """Return whether the file ended before `limit_at`, within its bytes, and what was in it."""
    output = bytearray()
    while len(output) < limit_bytes:
        ready, _, _ = select.select([file], [], [], max(0.0, limit_at - time.monotonic()))
        part = os.read(file, 4096) if ready else b""
        if not part:
            return bool(ready), bytes(output)
        output += part
    return False, bytes(output)
