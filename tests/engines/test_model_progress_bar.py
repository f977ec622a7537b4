"""A model's download at a terminal is shown as a bar, where tqdm is installed."""

import os
import pty
import subprocess
import sys
import termios

import pytest
from support.places import ROOT

pytest.importorskip("tqdm", reason="tqdm, of the extra `full`, is not installed")


def test_a_terminal_shows_a_bar() -> None:
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(screen, (24, 100))
    code = (
        "from mirrorchat.models.progress import progress\n"
        "with progress('model.pth', 2_000_000, 500_000) as advance:\n    advance(1_500_000)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(screen, 10_000).decode()
    os.close(screen)
    assert "model.pth: 100%" in shown and "2.00M/2.00M" in shown and "B/s" in shown
