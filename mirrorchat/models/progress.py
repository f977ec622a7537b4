"""Shows the progress of a download: a bar at a terminal, otherwise a line every ten seconds."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.2
BAR_CELLS = 20

Advance = Callable[[int], None]


@contextmanager
def progress(title: str, total_bytes: int | None, done_bytes: int = 0) -> Iterator[Advance]:
    """Show the progress of `title` while the block runs. Yields a function to call with each number of new bytes.

    A negative number takes bytes back when a file starts again.
    """
    shown = (Bar if sys.stderr.isatty() else Lines)(title, total_bytes, done_bytes)
    try:
        yield shown.advance
    finally:
        shown.end()


class Lines:
    """Prints a line to stderr every LINE_EVERY_S seconds: percentage, rate, remaining time."""

    def __init__(self, title: str, total_bytes: int | None, done_bytes: int) -> None:
        self._title = title
        self._total = total_bytes
        self._begun_at = self._done = done_bytes
        self._begun_s = self._shown_s = time.monotonic()

    def advance(self, count: int) -> None:
        """Count `count` more bytes."""
        self._done += count
        now = time.monotonic()
        if now - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now
            print(self._line(), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Say nothing more."""

    def _line(self) -> str:
        took_s = time.monotonic() - self._begun_s
        rate = max(0.0, (self._done - self._begun_at) / took_s) if took_s > 0 else 0.0
        return progress_line(self._title, self._done, self._total, rate)


class Bar(Lines):
    """Draws a bar in one line of a terminal, with what `Lines` says, and redraws it every BAR_EVERY_S seconds."""

    _is_shown = False

    def advance(self, count: int) -> None:
        """Count `count` more bytes."""
        self._done += count
        now = time.monotonic()
        if not self._is_shown or now - self._shown_s >= BAR_EVERY_S:
            self._shown_s = now
            self._show()

    def end(self) -> None:
        """Draw the last state, and leave the line."""
        if self._is_shown:
            self._show()
            print(file=sys.stderr, flush=True)

    def _show(self) -> None:
        self._is_shown = True
        full = BAR_CELLS * min(self._done, self._total) // self._total if self._total else 0
        bar = "#" * full + "." * (BAR_CELLS - full)
        columns = shutil.get_terminal_size().columns
        line = f"[{bar}] {self._line()}"[: columns - 1]
        print(f"\r{line.ljust(columns - 1)}", end="", file=sys.stderr, flush=True)


def progress_line(title: str, done_bytes: int, total_bytes: int | None, rate: float) -> str:
    """Return the progress of `title` as one line. `rate` is in bytes per second."""
    line = f"{title}: {size_text(done_bytes)}"
    if total_bytes:
        line += f" of {size_text(total_bytes)} ({100 * done_bytes // total_bytes} %)"
    line += f", {rate / 1e6:.1f} MB/s"
    if total_bytes and rate > 0:
        left_s = round(max(0, total_bytes - done_bytes) / rate)
        line += f", {left_s // 60} min {left_s % 60} s left"
    return line


def size_text(size_bytes: int) -> str:
    """Return a size with a unit: 1.87 GB, 499 MB, 4 kB."""
    for unit, digits, factor in (("GB", 2, 1_000_000_000), ("MB", 0, 1_000_000), ("kB", 0, 1000)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.{digits}f} {unit}"
    return f"{size_bytes} bytes"
