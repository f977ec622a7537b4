"""The caller's address and scheme, from the headers of trusted proxies in front of this server.

Each proxy adds its caller's address at the right end of `X-Forwarded-For`; a header that the caller itself sent stands
further left. So the header is read from the right: the first address that is no trusted proxy's is the caller's.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOPS_LIMIT = 32  # proxies in a row that are read
HEADER_LIMIT_CHARS = 4096
IPV6_CALLER_BITS = 64  # one caller has a whole /64 network


def networks_of(entries: Sequence[str]) -> tuple[Network, ...]:
    """Return addresses and networks (`10.0.0.0/8`, `::1`) as networks. Raises ValueError for any other text."""
    return tuple(ipaddress.ip_network(entry) for entry in entries)


class TrustedProxies:
    """A WSGI application that sets the caller's address and scheme before it calls another, `app`."""

    def __init__(self, app: Callable[..., Iterable[bytes]], networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = networks

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        address, scheme = caller_of(
            environ.get("REMOTE_ADDR", ""),
            environ.get("HTTP_X_FORWARDED_FOR", ""),
            environ.get("HTTP_X_FORWARDED_PROTO", ""),
            self._networks,
        )
        environ["REMOTE_ADDR"] = address
        if scheme:
            environ["wsgi.url_scheme"] = scheme
        return self._app(environ, start_response)


def caller_of(peer: str, forwarded_for: str, forwarded_proto: str, trusted: Sequence[Network]) -> tuple[str, str]:
    """Return the caller's address and scheme ("" if no trusted proxy sent one).

    `peer` is the address of the connection; it is empty for a Unix socket, which counts as this computer. Headers
    count only from a trusted peer, and only up to their first malformed entry.
    """
    address = _address(peer or "127.0.0.1")
    if address is None or not _is_trusted(address, trusted):
        return (str(address) if address else peer), ""
    hops = [address]
    entries = _from_the_right(forwarded_for)
    for entry in entries[:HOPS_LIMIT]:
        hop = _address(entry)
        if hop is None:
            return str(address), _scheme(forwarded_proto, 0)
        hops.append(hop)
        if not _is_trusted(hop, trusted):
            break
    return str(hops[-1]), _scheme(forwarded_proto, max(0, len(hops) - 2))


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Return whether `peer`, the address of a connection, is a trusted proxy's."""
    address = _address(peer)
    return address is not None and _is_trusted(address, trusted)


def caller_network(address: str) -> str:
    """Return the name of one caller: an IPv4 address, the /64 network of an IPv6 address, or else the text itself."""
    parsed = _address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed) >> IPV6_CALLER_BITS << IPV6_CALLER_BITS, IPV6_CALLER_BITS)))
    return str(parsed) if parsed else address[:64]


def _from_the_right(header: str) -> list[str]:
    return [entry.strip() for entry in reversed(header[-HEADER_LIMIT_CHARS:].split(","))] if header.strip() else []


def _scheme(header: str, hop: int) -> str:
    """Return the scheme at position `hop` from the right, or the leftmost one if there are fewer."""
    schemes = _from_the_right(header)
    scheme = schemes[min(hop, len(schemes) - 1)].lower() if schemes else ""
    return scheme if scheme in ("http", "https") else ""


def _address(text: str) -> Address | None:
    """Return the address in `text`: bare, with a port (`192.0.2.1:80`, `[::1]:80`), or an IPv4 address within IPv6."""
    if text.startswith("["):
        text, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
    else:
        port = ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if port and not (port.isascii() and port.isdigit()):
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
