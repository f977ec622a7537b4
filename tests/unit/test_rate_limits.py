"""The token bucket, compared with one that remembers every grant, and its bounds."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mirrorchat.access.rate_limits import RateLimiter, duration_text


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 90), st.lists(st.floats(0.0, 40.0), max_size=200))
def test_never_more_than_a_full_bucket_and_what_has_come_back(per_minute: int, pauses_s: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute, 10, clock=clock)
    grants: list[float] = []
    for pause_s in pauses_s:
        clock.now += pause_s
        allowance = limiter.take("a")
        # The rule itself: between any earlier moment and now, at most a full bucket and what has come back since.
        would_be_too_many = any(
            len(grants) - first + 1 > per_minute + (clock.now - since) * per_minute / 60 + 1e-6
            for first, since in enumerate(grants)
        )
        if allowance.granted:
            assert not would_be_too_many
            grants.append(clock.now)
        else:
            assert allowance.retry_after_s > 0 and allowance.remaining == 0
            clock.now += allowance.retry_after_s + 1e-6
            assert limiter.take("a").granted
            grants.append(clock.now)
        assert 0 <= allowance.remaining <= per_minute and 0 <= allowance.reset_s <= 60.0 + 1e-6


def test_a_full_bucket_is_granted_at_once_and_then_one_at_a_time() -> None:
    clock = Clock()
    limiter = RateLimiter(6, 10, clock=clock)
    assert [limiter.take("a").remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    refused = limiter.take("a")
    assert (refused.granted, refused.retry_after_s, refused.reset_s) == (False, 10.0, 60.0)
    assert limiter.take("b").granted  # another's bucket
    clock.now += 10.0
    assert limiter.take("a").granted and not limiter.take("a").granted
    clock.now += 3600.0
    assert limiter.take("a").headers() == {
        "x-ratelimit-limit-requests": "6", "x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "10s",
    }  # fmt: skip


def test_the_number_of_remembered_callers_is_bounded() -> None:
    clock = Clock()
    limiter = RateLimiter(1, 3, clock=clock)
    limiter.take("regular")
    for number in range(1000):
        limiter.take(f"passer-by {number}")
        assert not limiter.take("regular").granted
    assert len(limiter) == 3


def test_durations_are_written_as_openais_are() -> None:
    texts = {0.0: "0ms", 0.12: "120ms", 0.9991: "1s", 1.0: "1s", 8.64: "8.64s", 60.0: "1m0s", 360.0: "6m0s"}
    assert {seconds: duration_text(seconds) for seconds in texts} == texts


@given(st.floats(0.0, 3600.0))
def test_a_written_duration_is_the_same_rounded_up(seconds: float) -> None:
    text = duration_text(seconds)
    found = re.fullmatch(r"(?:(\d+)m(?!s))?(?:([\d.]+)s)?|(\d+)ms", text)
    assert found, text
    minutes, rest, milliseconds = (float(group or 0) for group in found.groups())
    assert -1e-6 <= minutes * 60 + rest + milliseconds / 1000 - seconds <= 0.001 + 1e-6
