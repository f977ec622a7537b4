"""Contexts that end at a known point of the work."""

from typing import Any

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone


class HungUpAtWait(Context):
    """A context that is cancelled just before its wait number `at` begins, counted from 1; 0 cancels it at once."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.waits, self._at = 0, at
        if at == 0:
            self.cancel(ClientGone("gone"))

    def wait(self, *args: Any, **options: Any) -> Any:
        self.waits += 1
        if self.waits == self._at:
            self.cancel(ClientGone("gone"))
        return super().wait(*args, **options)
