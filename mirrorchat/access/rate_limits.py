"""How many requests a minute a caller may send: a token bucket for each, in bounded memory."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """What a bucket says to one request: `granted` or not, of `limit` a minute `remaining`, full again in `reset_s`.

    `retry_after_s` is how many seconds pass until a request is granted again; 0 when the next one is.
    """

    granted: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float

    def headers(self) -> dict[str, str]:
        """Return the headers by which OpenAI's API tells its callers the same."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration_text(self.reset_s),
        }


class RateLimiter:
    """A token bucket for each caller: `per_minute` tokens, as many of them come back in a minute. Thread-safe.

    At most `max_callers` are remembered; beyond that the one seen longest ago is forgotten, whose bucket is then full.
    """

    def __init__(self, per_minute: int, max_callers: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._max_callers = max_callers
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # the tokens, and when they were so many
        self._lock = threading.Lock()

    def take(self, caller: str) -> Allowance:
        """Take a token of `caller`'s for one request, if there is one."""
        with self._lock:
            now = self._clock()
            tokens = self._tokens(caller, now)
            granted = tokens >= 1.0
            tokens -= granted
            self._buckets[caller] = (tokens, now)
            self._buckets.move_to_end(caller)
            if len(self._buckets) > self._max_callers:
                self._buckets.popitem(last=False)
        return self._allowance(granted, tokens)

    def look(self, caller: str) -> Allowance:
        """Say what `take` would, and take nothing."""
        with self._lock:
            tokens = self._tokens(caller, self._clock())
        return self._allowance(tokens >= 1.0, tokens)

    def __len__(self) -> int:
        return len(self._buckets)

    def _tokens(self, caller: str, now: float) -> float:
        tokens, since = self._buckets.get(caller, (float(self.per_minute), now))
        return min(float(self.per_minute), tokens + max(0.0, now - since) * self.per_minute / 60)

    def _allowance(self, granted: bool, tokens: float) -> Allowance:
        token_s = 60 / self.per_minute
        return Allowance(
            granted=granted,
            limit=self.per_minute,
            remaining=math.floor(tokens),
            reset_s=(self.per_minute - tokens) * token_s,
            retry_after_s=max(0.0, 1.0 - tokens) * token_s,
        )


def duration_text(seconds: float) -> str:
    """Return a duration as OpenAI's headers write it: `120ms`, `8.64s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
