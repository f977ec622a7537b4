"""`mirrorchat` as its users run it: a process, on pipes or at a terminal, with programs that play and record."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from support.places import ROOT

LIMIT_S = 60.0

PLAYER = """\
#!{python}
import os, pathlib, sys
folder = pathlib.Path({folder!r})
folder.joinpath("pid").write_text(str(os.getpid()))
folder.joinpath("arguments").write_text("\\n".join(sys.argv[1:]))
source = open(sys.argv[-1], "rb") if sys.argv[-1].endswith(".wav") else sys.stdin.buffer
with folder.joinpath("played").open("wb") as file:
    while data := source.read1(65536):
        file.write(data)
        file.flush()
{then}
"""
RECORDER = """\
#!{python}
import pathlib, sys, time
folder = pathlib.Path({folder!r})
folder.joinpath("arguments").write_text("\\n".join(sys.argv[1:]))
pieces = {pieces}
written = 0
for piece in pieces:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    written += len(piece)
    folder.joinpath("recorded").write_text(str(written))
{then}
"""


def program(folder: Path, name: str, text: str) -> None:
    """Put a program into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def player(folder: Path, name: str = "aplay", then: str = "") -> None:
    """Put a player into `folder` that writes its arguments and what it is to play into files beside it."""
    program(folder, name, PLAYER.format(python=sys.executable, folder=str(folder), then=then))


def recorder(folder: Path, pieces: str, name: str = "arecord", then: str = "") -> None:
    """Put a recorder into `folder` that gives `pieces`, an expression in Python."""
    program(folder, name, RECORDER.format(python=sys.executable, folder=str(folder), pieces=pieces, then=then))


def environment(programs: Path, **more: str) -> dict[str, str]:
    """Return an environment in which `programs` has all the programs that there are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIRRORCHAT_", "LC_", "LANG"))}
    return kept | {"PATH": str(programs), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)} | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mirrorchat", *arguments]


def run(
    *arguments: str, env: dict[str, str], stdin: bytes = b"", cwd: Path = ROOT
) -> "subprocess.CompletedProcess[bytes]":
    """Run `mirrorchat` on pipes, to its end."""
    return subprocess.run(command(*arguments), cwd=cwd, env=env, input=stdin, capture_output=True, timeout=LIMIT_S)


class Terminal:
    """`mirrorchat` at a terminal of its own, 200 columns wide; what it shows is in `shown`."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]) -> None:
        self.shown = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.process = subprocess.Popen(
            command(*arguments), cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def read_until(self, pattern: str) -> str:
        """Return what is shown, once it matches `pattern`. Raises AssertionError when it never does."""
        limit = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.shown):
            assert time.monotonic() < limit and self._read(), f"no {pattern!r} in {self.shown!r}"
        return self.shown

    def end(self) -> int:
        """Read to the end, and return the exit status."""
        limit = time.monotonic() + LIMIT_S
        while self._read():
            assert time.monotonic() < limit, self.shown
        return self.process.wait(LIMIT_S)

    def _read(self) -> bool:
        """Read what comes; return whether more may."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # nobody has the other side any more
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)
