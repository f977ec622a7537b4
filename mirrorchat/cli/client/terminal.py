"""What a command shows at a terminal beside its result: how long it has waited; text without control characters."""

import sys
import threading
import time
import unicodedata
from types import TracebackType

SHOWN_AFTER_S = 1.0  # what takes less is not worth a line
EVERY_S = 0.5


def printable(text: str) -> str:
    """Return `text` in one line, its control characters replaced: nothing that a server sends moves the cursor."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Zl", "Zp") else each for each in text)


class Waiting:
    """Shows what is waited for and for how long, on stderr if that is a terminal, until `stop` or the block's end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, name="waiting", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take the line away; a second time does nothing."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _show(self) -> None:
        begun = time.monotonic()
        shown = False
        if self._over.wait(SHOWN_AFTER_S):
            return
        while not self._over.is_set():
            shown = True
            print(f"\r{self._title} ({time.monotonic() - begun:.0f} s) ", end="", file=sys.stderr, flush=True)
            self._over.wait(EVERY_S)
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
