"""API keys: the server keeps only their SHA-256 hashes and compares all of them, each in constant time.

A random key of 192 bits needs no salt: nobody can guess it from its hash. A key that a person has invented could be
guessed, so `mirrorchat key` makes the keys.
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
    """Return whether `entry` is valid in `api_keys`: a hash, or a key of at least 16 printable ASCII characters."""
    if not isinstance(entry, str) or not entry.isascii() or not entry.isprintable():
        return False
    if entry.startswith(HASH_PREFIX):
        return bool(_HASH.fullmatch(entry))
    return len(entry) >= SHORTEST_KEY_CHARS and not entry[0].isspace() and not entry[-1].isspace()


def hashed(entry: str) -> str:
    """Return an entry of `api_keys`, a plain key or a hash, as `sha256:` and 64 hexadecimal digits."""
    if _HASH.fullmatch(entry):
        return entry.lower()
    return HASH_PREFIX + digest_of(entry)


def digest_of(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def known_owner(given: str, hashes: Sequence[str]) -> str | None:
    """Return the digest of the key `given` if it is one of `hashes` (as `hashed` returns them), else None.

    Every hash is compared, so that the time reveals nothing.
    """
    owner = digest_of(given) if given else ""
    matches = [hmac.compare_digest(entry.removeprefix(HASH_PREFIX), owner) for entry in hashes]
    return owner if any(matches) else None
