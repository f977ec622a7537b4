"""Output at a terminal beside a command's result: a progress line, and text without control characters."""

import sys
import threading
import time
import unicodedata

SHOWN_AFTER_S = 1.0  # shorter waits show no line
EVERY_S = 0.5


def printable(text: str) -> str:
    """Return `text` in one line, with spaces for control characters: text of a server cannot move the cursor."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Zl", "Zp") else each for each in text)


class Waiting:
    """Shows a title and the seconds it has taken at a terminal's stderr, until `stop` or the end of the block."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, name="waiting", daemon=True)
            self._thread.start()

    def show(self, title: str) -> None:
        """Replace the title."""
        self._title = title

    def stop(self) -> None:
        """Clear the line. A second call does nothing."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _show(self) -> None:
        begun = time.monotonic()
        shown = False
        if self._over.wait(SHOWN_AFTER_S):
            return
        while not self._over.is_set():
            shown = True
            print(f"\r\x1b[K{self._title} ({time.monotonic() - begun:.0f} s) ", end="", file=sys.stderr, flush=True)
            self._over.wait(EVERY_S)
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
