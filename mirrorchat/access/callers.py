"""Authentication and rate limits of the present request: its API key, its limits, and addresses that guess keys."""

from collections.abc import Sequence
from typing import cast

from flask import current_app, g, request

from mirrorchat.access.api_keys import known_owner
from mirrorchat.access.rate_limits import Allowance, RateLimiter
from mirrorchat.access.trusted_proxies import caller_network
from mirrorchat.errors import InvalidKey, RateLimited, TooManyFailedKeys

FAILED_KEYS_PER_MINUTE = 20  # from one address
MAX_ADDRESSES = 10_000  # remembered, about 2 MB
EXTENSION = "mirrorchat.access"  # where the app keeps its Access


class Access:
    """The keys and limits of one server. It remembers its callers in memory only, within bounds."""

    def __init__(self, key_hashes: Sequence[str], per_minute: int) -> None:
        self._hashes = tuple(key_hashes)
        self._rate = RateLimiter(per_minute, len(self._hashes) or MAX_ADDRESSES) if per_minute else None
        self._failed = RateLimiter(FAILED_KEYS_PER_MINUTE, MAX_ADDRESSES)

    def owner(self, authorization: str, address: str) -> str:
        """Return the digest of the key in an Authorization header; "" where no keys are set.

        A right key passes however many wrong ones came from its address: others may share the address, and keys are too
        long to be guessed. Raises InvalidKey, and TooManyFailedKeys for a wrong key after too many.
        """
        if not self._hashes:
            return ""
        scheme, _, given = authorization.partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        owner = known_owner(given, self._hashes)
        if owner is not None:
            return owner
        if authorization:  # a request without a key is no guess
            self._count_failure(address)
        raise InvalidKey("this server needs one of its api_keys as 'Authorization: Bearer KEY'")

    def _count_failure(self, address: str) -> None:
        failures = self._failed.take(address)
        if not failures.granted:
            raise TooManyFailedKeys(
                "too many wrong keys came from this address; wait before trying again",
                retry_after_s=int(failures.retry_after_s) + 1,
            )

    def take_request(self, owner: str, address: str) -> Allowance | None:
        """Count one request of a key, or of an address where there are no keys. None means that there is no limit."""
        return self._rate.take(owner or address) if self._rate is not None else None


def check_caller() -> None:
    """Authenticate the caller of the present request and count the request.

    Sets in `g` the `owner` (of sessions and voices: the digest of the key), the `tenant` (of fair scheduling: a key and
    an address), the rate-limit `subject` (a key, or an address where there are no keys), and the `allowance`.

    Raises InvalidKey, TooManyFailedKeys or RateLimited.
    """
    access = cast(Access, current_app.extensions[EXTENSION])
    address = caller_network(request.remote_addr or "")
    g.owner = access.owner(request.headers.get("Authorization", ""), address)
    g.tenant = f"{g.owner} {address}"
    g.subject = g.owner or address
    g.allowance = access.take_request(g.owner, address)
    if g.allowance is not None and not g.allowance.granted:
        raise RateLimited(
            f"more than {g.allowance.limit} requests a minute; wait before asking again",
            retry_after_s=int(g.allowance.retry_after_s) + 1,
        )


def allowance_headers() -> dict[str, str]:
    """Return the rate-limit headers of the present request's response; none without a limit."""
    allowance: Allowance | None = g.get("allowance")
    return allowance.headers() if allowance else {}
