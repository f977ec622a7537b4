"""The settings of access control: the values that they take, and the combinations that are rejected."""

import ipaddress
import re
from collections.abc import Mapping

from mirrorchat.access.api_keys import SHORTEST_KEY_CHARS, is_key
from mirrorchat.access.definitions import kind_of, list_of
from mirrorchat.access.requested_host import parse_host
from mirrorchat.access.trusted_proxies import networks_of
from mirrorchat.errors import ConfigurationError

ALL_ORIGINS = "*"
KEYS_VARIABLE = "MIRRORCHAT_API_KEYS"
HOSTS_VARIABLE = "MIRRORCHAT_ALLOWED_HOSTS"

_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?", re.ASCII)
_DEFAULT_PORTS = re.compile(r"http://.*:80|https://.*:443")


def is_origin(entry: object) -> bool:
    """Return whether `entry` is an origin as browsers write it, or `*`."""
    if not isinstance(entry, str):
        return False
    return entry == ALL_ORIGINS or (_ORIGIN.fullmatch(entry) is not None and not _DEFAULT_PORTS.fullmatch(entry))


def is_proxy(entry: object) -> bool:
    """Return whether `entry` is an address or a network, but not of all addresses, which would trust any caller."""
    if not isinstance(entry, str):
        return False
    try:
        (network,) = networks_of([entry])
    except ValueError:
        return False
    return network.prefixlen > 0


def is_host(entry: object) -> bool:
    """Return whether `entry` is a name or an address, without a port."""
    host = parse_host(entry) if isinstance(entry, str) else None
    return host is not None and host.port is None


def host_name(entry: str) -> str:
    """Return an entry of `allowed_hosts` as requests are compared with it."""
    host = parse_host(entry)
    return host.name if host else ""


def list_in_environment(environ: Mapping[str, str], variable: str) -> list[str] | None:
    """Return the entries of a variable, separated by commas or line ends; None if it is not set or blank."""
    entries = [entry.strip() for entry in re.split(r"[,\r\n]", environ.get(variable, ""))]
    return [entry for entry in entries if entry] or None


def check_origins(origins: tuple[str, ...], api_keys: tuple[str, ...]) -> None:
    """Raise ConfigurationError when every page on the web could use this server without a key."""
    if ALL_ORIGINS in origins and not api_keys:
        raise ConfigurationError("cors_origins may hold '*' only if api_keys is set: list the origins instead")


def check_host(host: str, api_keys: tuple[str, ...]) -> None:
    """Raise ConfigurationError when other computers could use this server without a key."""
    if not api_keys and not is_loopback(host):
        raise ConfigurationError(
            f"host {host} lets other computers call: set api_keys in config.py (callers send one as"
            " 'Authorization: Bearer KEY'), or use host 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach `host`."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


KEYS = list_of(
    kind_of(
        f"a key of at least {SHORTEST_KEY_CHARS} printable ASCII characters, or sha256: and the 64 hexadecimal digits"
        " of a key's hash",
        is_key,
        str,
    )
)
ORIGINS = list_of(
    kind_of(
        "an origin as browsers write it (https://name or http://name:port, in lower case, without a path and without"
        " the default ports 80 and 443), or '*'",
        is_origin,
        str,
    )
)
HOSTS = list_of(
    kind_of("a name or an address in ASCII characters, without a scheme and without a port", is_host, host_name)
)
PROXIES = list_of(kind_of("an address or a network such as 10.0.0.0/8, but not every address", is_proxy, str))
