"""What one address may hold at the same time: connections, threads, requests that have not wholly arrived. Example:

limit = PerAddress(64)
if limit.take("192.0.2.1"):
    limit.release("192.0.2.1")
"""

import threading
from collections import Counter


class PerAddress:
    """Counts what each address holds, at most `limit` each. The address None, a trusted proxy's, has no limit.

    Thread-safe. It remembers only addresses that hold something.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._released = threading.Condition()

    def take(self, address: str | None, *, wait_s: float = 0.0) -> bool:
        """Count one more for `address`, after at most `wait_s` seconds; return whether the limit allows it."""
        if address is None:
            return True
        with self._released:
            if not self._released.wait_for(lambda: self._held[address] < self._limit, wait_s):
                return False
            self._held[address] += 1
        return True

    def release(self, address: str | None) -> None:
        """Count one less for `address`."""
        if address is None:
            return
        with self._released:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]
            self._released.notify_all()
