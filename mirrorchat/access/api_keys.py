"""API keys: only their SHA-256 hashes are kept, and all are compared, each in constant time.

A key is drawn at random, from at least as many possibilities as nobody can try: its plain hash then tells nothing. A
listed key that somebody has thought up could be guessed from its hash, so keys are made with `mirrorchat key`.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

KEY_PREFIX = "mc-"
KEY_BYTES = 24
SHORTEST_KEY_CHARS = 16
HASH_PREFIX = "sha256:"

_HASH = re.compile(rf"{HASH_PREFIX}[0-9a-fA-F]{{64}}", re.ASCII)


def new_key() -> str:
    """Return a new random key, 192 bits as URL-safe text."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def is_key(entry: object) -> bool:
    """Tell whether `entry` can stand in `api_keys`: a hash, or a plain key of 16 printable ASCII characters or more."""
    if not isinstance(entry, str) or not entry.isascii() or not entry.isprintable():
        return False
    if entry.startswith(HASH_PREFIX):
        return bool(_HASH.fullmatch(entry))
    return len(entry) >= SHORTEST_KEY_CHARS and not entry[0].isspace() and not entry[-1].isspace()


def hashed(entry: str) -> str:
    """Return an entry of `api_keys` as `sha256:` and 64 hexadecimal digits; a hash stays what it is."""
    if _HASH.fullmatch(entry):
        return entry.lower()
    return HASH_PREFIX + digest_of(entry)


def digest_of(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def known_owner(given: str, hashes: Sequence[str]) -> str | None:
    """Return the owner whose key is `given`: its digest, or None when none of `hashes`, as `hashed` gives them, is it.

    Every hash is compared, whichever is the right one, so that the time taken tells nothing.
    """
    owner = digest_of(given) if given else ""
    matches = [hmac.compare_digest(entry.removeprefix(HASH_PREFIX), owner) for entry in hashes]
    return owner if any(matches) else None
