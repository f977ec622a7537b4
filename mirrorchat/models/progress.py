"""Shows the progress of a download: a bar at a terminal, otherwise a line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_S = 10.0

Advance = Callable[[int], None]


@contextmanager
def progress(title: str, total_bytes: int | None, done_bytes: int = 0) -> Iterator[Advance]:
    """Show the progress of `title` while the block runs. Yields a function to call with each number of new bytes.

    A negative number takes bytes back when a file starts again.
    """
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:  # huggingface_hub, of the extra `full`, installs it
            pass
        else:
            with tqdm(desc=title, total=total_bytes, initial=done_bytes, unit="B", unit_scale=True) as bar:
                yield lambda count: _advance(bar, count)
            return
    yield Lines(title, total_bytes, done_bytes).advance


def _advance(bar: object, count: int) -> None:
    bar.update(count)  # type: ignore[attr-defined]  # tqdm has no types


class Lines:
    """Prints a line to stderr every LINE_EVERY_S seconds: percentage, rate, remaining time."""

    def __init__(self, title: str, total_bytes: int | None, done_bytes: int) -> None:
        self._title = title
        self._total = total_bytes
        self._begun_at = self._done = done_bytes
        self._begun_s = self._shown_s = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now
            rate = max(0.0, (self._done - self._begun_at) / (now - self._begun_s))
            print(progress_line(self._title, self._done, self._total, rate), file=sys.stderr, flush=True)


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
