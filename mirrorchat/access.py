"""Who asks: the API key, and the address that a connection or a proxy on this machine gives."""

import hmac

from flask import g, request

from mirrorchat.errors import InvalidKey
from mirrorchat.runtime import runtime
from mirrorchat.sessions import owner_of


def check_key(authorization: str) -> None:
    """Raise InvalidKey where a key is needed and none is given. Callers are told apart by key and address."""
    keys = runtime().settings.api_keys
    scheme, _, given = authorization.partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    # every key is compared, each in constant time, so that the time taken tells nothing
    matches = [hmac.compare_digest(key.encode(), given.encode()) for key in keys]
    if keys and not any(matches):
        raise InvalidKey("this server needs one of its api_keys as 'Authorization: Bearer KEY'")
    g.owner = owner_of(given if keys else "")
    g.caller = f"{g.owner} {_address()}"


def _address() -> str:
    """Return the caller's address: the one that a proxy on this machine gives, else the connection's own."""
    address = request.remote_addr or ""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return forwarded.rpartition(",")[2].strip()[:64] if forwarded and address in ("127.0.0.1", "::1") else address
