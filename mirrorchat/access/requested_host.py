"""The name or address by which a request calls this server: its `Host`.

A web page can point a name of its own at this computer (DNS rebinding), and the browser then lets the page read the
answers. That name stands in `Host`. So a server without keys answers only to what no page can own: `localhost`,
addresses, and the names in `allowed_hosts`. `X-Forwarded-Host` is never read: any caller can send it.
"""

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from mirrorchat.errors import InvalidHost, UnknownHost

_NAME_LIMIT_CHARS = 253  # of a name in DNS
_HOST = re.compile(
    r"(?P<name>(?:[a-z0-9_-]{1,63}\.){0,126}[a-z0-9_-]{1,63})\.?(?::(?P<port>[0-9]{0,5}))?"
    r"|\[(?P<ipv6>[0-9a-f:.]{2,45})\](?::(?P<ipv6_port>[0-9]{0,5}))?",
    re.ASCII | re.IGNORECASE,
)


class Host(NamedTuple):
    """A name or address in lower case, without a dot at its end and without brackets, and its port; None: none."""

    name: str
    port: int | None

    @property
    def is_address(self) -> bool:
        try:
            ipaddress.ip_address(self.name)
        except ValueError:
            return False
        return True


def parse_host(text: str) -> Host | None:
    """Return what a `Host` header says, or None if it is malformed."""
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    host = Host((found["name"] or found["ipv6"]).lower(), int(found["port"] or found["ipv6_port"] or 0) or None)
    if found["ipv6"] and not (":" in host.name and host.is_address):
        return None
    return host if len(host.name) <= _NAME_LIMIT_CHARS and (host.port or 0) <= 65535 else None


def check_requested_host(environ: Mapping[str, Any], allowed: Collection[str] | None) -> None:
    """Raise InvalidHost unless the request calls this server by one well-formed name or address.

    Raises UnknownHost for a name that is neither `localhost` nor in `allowed`. None allows all names.
    """
    for text in _requested_hosts(environ):
        host = parse_host(text)
        if host is None:
            raise InvalidHost("the request needs one header Host with the name or address of this server")
        if allowed is not None and not (host.is_address or host.name == "localhost" or host.name in allowed):
            raise UnknownHost(
                f"this server does not answer to the name {host.name}; if it is yours, write"
                f' allowed_hosts = ["{host.name}"] into config.py, or set MIRRORCHAT_ALLOWED_HOSTS'
            )


def _requested_hosts(environ: Mapping[str, Any]) -> Iterator[str]:
    """Yield the `Host` header, and the host in a request target that is a whole URL."""
    yield environ.get("HTTP_HOST", "")
    target = environ.get("RAW_URI", "")
    if "://" in target and not target.startswith("/"):
        yield re.split(r"[/?#]", target.partition("://")[2], maxsplit=1)[0]
