"""How far a download is: lines now and then, a bar at a terminal."""

import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress

import pytest
from support.places import ROOT

from mirrorchat.models import progress as model_progress
from mirrorchat.models.progress import progress, progress_line, size_text


def test_a_line_has_share_rate_and_time_left() -> None:
    line = progress_line("model.pth", 450_000_000, 1_800_000_000, 5_000_000.0)
    assert line == "model.pth: 450 MB of 1.80 GB (25 %), 5.0 MB/s, 4 min 30 s left"
    assert progress_line("list", 5000, None, 0.0) == "list: 5 kB, 0.0 MB/s"


@pytest.mark.parametrize(("size", "text"), [(5, "5 bytes"), (4368, "4 kB"), (499_000_000, "499 MB"), (0, "0 bytes")])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("model.pth", 1000) as advance:
        advance(500)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(model_progress, "LINE_EVERY_S", 0.0)
    with progress("model.pth", 1000, 250) as advance:
        advance(500)
        advance(-250)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("model.pth: 750 bytes of 1 kB (75 %)") and "(50 %)" in second


def all_of(screen: int) -> bytes:
    """Read what a terminal shows, until nobody writes to it any more."""
    shown = b""
    with suppress(OSError):  # Linux reports the end as an error
        while piece := os.read(screen, 10_000):
            shown += piece
    return shown


def test_a_terminal_shows_a_bar() -> None:
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(screen, (24, 100))
    code = (
        "from mirrorchat.models.progress import progress\n"
        "with progress('model.pth', 2_000_000, 500_000) as advance:\n    advance(500_000); advance(1_000_000)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=terminal, check=True)
    os.close(terminal)
    shown = all_of(screen).decode()
    os.close(screen)
    first, last = shown.strip().split("\r")
    assert first.startswith("[##########..........] model.pth: 1 MB of 2 MB (50 %), ")
    assert last.startswith("[####################] model.pth: 2 MB of 2 MB (100 %), ") and "MB/s" in last
    assert all(len(line) < 100 for line in (first, last)) and shown.endswith("\r\n")
