"""Rate limits: a token bucket for each caller, in bounded memory."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """The answer of a bucket to one request: whether it is `granted`.

    `remaining` requests are left of `limit` a minute; the bucket is full again in `reset_s` seconds. The next request
    is granted after `retry_after_s` seconds.
    """

    granted: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float

    def headers(self) -> dict[str, str]:
        """Return the allowance as the headers of OpenAI's API."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration_text(self.reset_s),
        }


class RateLimiter:
    """A token bucket for each caller: it holds `per_minute` tokens and gets as many back in a minute. Thread-safe.

    It remembers at most `max_callers`; beyond that it forgets the one with the oldest request, whose bucket is then
    full. Example:

        limiter = RateLimiter(per_minute=60, max_callers=10_000)
        if not limiter.take("192.0.2.1").granted: ...
    """

    def __init__(self, per_minute: int, max_callers: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._max_callers = max_callers
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # the tokens, and their time
        self._lock = threading.Lock()

    def take(self, caller: str) -> Allowance:
        """Take a token from the bucket of `caller` for one request, if it has one."""
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
