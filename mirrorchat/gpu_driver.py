"""The GPUs that NVIDIA's driver shows, whatever torch makes of them."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROC = Path("/proc/driver/nvidia/gpus")
_QUERY = ("--query-gpu=name", "--format=csv,noheader")
_LIMIT_S = 5.0  # it takes up to 2 s where the driver must wake the GPUs
_LIMIT_BYTES = 64 * 1024
_WSL = "/usr/lib/wsl/lib"  # where Windows puts nvidia-smi, which not every shell of WSL has in its PATH


def driver_gpus(proc: Path = PROC) -> list[str]:
    """Return the names of the GPUs that NVIDIA's driver shows, in its order; none where there is no driver.

    `nvidia-smi` is asked, for 5 s at most; where it does not work, the driver's files in `proc` are read.
    """
    return _asked_for() or _listed_in(proc)


def _asked_for() -> list[str]:
    program = shutil.which("nvidia-smi", path=os.pathsep.join((os.environ.get("PATH", os.defpath), _WSL)))
    if program is None:
        return []
    done, output = _run([program, *_QUERY])
    names = [_printable(line) for line in output.decode(errors="replace").splitlines() if line.strip()]
    return names if done else []


def _run(command: list[str]) -> tuple[bool, bytes]:
    """Return whether `command` ended well and in time, and the first 64 KiB that it wrote."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return False, b""
    assert process.stdout is not None
    with process.stdout:
        ended, output = _read(process.stdout.fileno(), time.monotonic() + _LIMIT_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if ended:
            return process.wait(1.0) == 0, output
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that hangs in the driver outlives this
        process.wait(1.0)
    return False, output


def _read(file: int, limit_at: float) -> tuple[bool, bytes]:
    """Return whether the file ended before `limit_at`, within 64 KiB, and what was in it."""
    output = b""
    while len(output) < _LIMIT_BYTES:
        ready, _, _ = select.select([file], [], [], max(0.0, limit_at - time.monotonic()))
        part = os.read(file, 4096) if ready else b""
        if not part:
            return bool(ready), output
        output += part
    return False, output


def _listed_in(proc: Path) -> list[str]:
    """Return the models that the driver's files name; a GPU whose file cannot be read has its place on the bus."""
    names = []
    for folder in sorted(proc.glob("*")):
        try:
            text = (folder / "information").read_bytes()[:_LIMIT_BYTES].decode(errors="replace")
        except OSError:
            text = ""
        model = re.search(r"^Model:\s*(\S.*)$", text, re.MULTILINE)
        names.append(_printable(model[1]) if model else f"GPU at {folder.name}")
    return names


def _printable(text: str) -> str:
    return "".join(letter for letter in text.strip() if letter.isprintable())[:100]
