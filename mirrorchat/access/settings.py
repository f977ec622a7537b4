"""The settings that say who may ask: read, checked, and refused with what is wrong."""

import re
from collections.abc import Mapping

from mirrorchat.access.api_keys import SHORTEST_KEY_CHARS, is_key
from mirrorchat.access.trusted_proxies import networks_of
from mirrorchat.errors import ConfigurationError

ALL_ORIGINS = "*"
KEYS_VARIABLE = "MIRRORCHAT_API_KEYS"

_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?", re.ASCII)
_DEFAULT_PORTS = re.compile(r"http://.*:80|https://.*:443")


def read_keys(name: str, value: object) -> tuple[str, ...]:
    """Return the entries of `api_keys`, plain or hashed."""
    entries = _texts(name, value, "keys")
    if not all(map(is_key, entries)):
        raise ConfigurationError(
            f"each of {name} must be at least {SHORTEST_KEY_CHARS} printable ASCII characters, or sha256: and the 64"
            " hexadecimal digits of a key's hash (mirrorchat key makes both)"
        )
    return entries


def keys_in_environment(environ: Mapping[str, str]) -> list[str] | None:
    """Return the keys of MIRRORCHAT_API_KEYS, between commas or one a line; None where it is not set, or blank."""
    entries = [entry.strip() for entry in re.split(r"[,\r\n]", environ.get(KEYS_VARIABLE, ""))]
    return [entry for entry in entries if entry] or None


def read_origins(name: str, value: object) -> tuple[str, ...]:
    """Return the origins whose pages may call, as browsers write them."""
    origins = _texts(name, value, "origins")
    for origin in origins:
        if origin != ALL_ORIGINS and (not _ORIGIN.fullmatch(origin) or _DEFAULT_PORTS.fullmatch(origin)):
            raise ConfigurationError(
                f"{name}: {origin!r} is not an origin as browsers write it: https://name or http://name:port, in lower"
                " case, without a path, and without the ports 80 and 443 that are understood"
            )
    return origins


def check_origins(origins: tuple[str, ...], api_keys: tuple[str, ...]) -> None:
    """Raise ConfigurationError where every page on the web could use this server without a key."""
    if ALL_ORIGINS in origins and not api_keys:
        raise ConfigurationError("cors_origins may hold '*' only where api_keys is set: list the origins instead")


def read_proxies(name: str, value: object) -> tuple[str, ...]:
    """Return the addresses and networks of the proxies that are believed."""
    entries = _texts(name, value, "addresses and networks")
    for entry in entries:
        try:
            (network,) = networks_of([entry])
        except ValueError:
            raise ConfigurationError(
                f"{name}: {entry!r} is neither an address nor a network such as 10.0.0.0/8"
            ) from None
        if network.prefixlen == 0:
            raise ConfigurationError(f"{name}: {entry} would believe whatever any caller says of itself")
    return entries


def _texts(name: str, value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set) or not all(isinstance(entry, str) for entry in value):
        raise ConfigurationError(f"{name} must be a list of {what}")
    return tuple(value)
