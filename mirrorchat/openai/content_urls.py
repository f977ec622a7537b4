"""The URLs of images in the messages of a chat, which the chat API fetches from where it stands.

That place is often inside a private network, so a caller could reach what the network hides. Unless the setting
`chat_private_urls` allows them, URLs that lead to private, loopback or link-local addresses are rejected, and so is
every scheme but https and data. A chat API that follows redirects, or looks a name up again, can still be misled.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import InvalidField

URLS_LIMIT = 256  # in one request
NAMES_LIMIT = 16  # names in one request whose addresses are looked up
TEXT_KEYS = ("text", "refusal")  # of parts; the chat API fetches nothing that they name

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}:", re.IGNORECASE | re.ASCII)
# Anything else, such as \, %, a blank or a digit of another script, is read differently by different programs.
_WEB_URL = re.compile(
    r"https?://(?P<host>(?:[a-z0-9_-]{1,63}\.){0,126}[a-z0-9_-]{1,63}|\[[0-9a-f:.]{2,45}\])\.?(?::[0-9]{1,5})?"
    r"(?:[/?#][^\s\\]{0,8000})?",
    re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"[0-9]{1,63}|0x[0-9a-f]{0,61}", re.IGNORECASE | re.ASCII)
_LOCAL_DOMAINS = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private")
_HOME_DOMAIN = ".home.arpa"
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def public_names(messages: Sequence[Mapping[str, Any]], *, allow_private: bool) -> list[str]:
    """Return the names of hosts in the URLs of `messages`, each once; none if private ones are allowed.

    Raises InvalidField for a URL that is rejected as it stands, and for too many URLs or names.
    """
    names: dict[str, None] = {}
    urls = 0
    for number, message in enumerate(messages):
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            for url in _urls(part):
                urls += 1
                if name := _checked_name(url, f"messages[{number}].content", allow_private):
                    names[name] = None
                if urls > URLS_LIMIT or len(names) > NAMES_LIMIT:
                    limits = f"{URLS_LIMIT} URLs, or URLs of more than {NAMES_LIMIT} hosts"
                    raise InvalidField(f"messages hold more than {limits}", param="messages")
    return list(names)


def check_names(names: Sequence[str], context: Context) -> None:
    """Raise InvalidField if a name has an address that is not public. A name that is unknown here passes."""
    for name in names:
        context.check()
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        for entry in found:
            if not _is_public(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])):
                raise _private("messages")


def _urls(value: object, key: str = "") -> Iterator[str]:
    """Yield what may be a URL in a part of a message, at any depth: image_url, video_url, file, ..."""
    if isinstance(value, str):
        if key.endswith("url") or "://" in value:
            yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in TEXT_KEYS:
                yield from _urls(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _urls(item, key)


def _checked_name(url: str, where: str, allow_private: bool) -> str:
    """Return the host of `url` if it is a name whose addresses are to be looked up, else ""."""
    scheme = _SCHEME.match(url)
    if scheme is not None and scheme[0].lower() == "data:":
        return ""
    found = _WEB_URL.fullmatch(url)
    if found is None or not (allow_private or url[:6].lower() == "https:"):
        schemes = "https, http or data" if allow_private else "https or data"
        raise InvalidField(f"{where}: a URL must be whole, and its scheme {schemes}", param="messages")
    if allow_private:
        return ""
    host = found["host"].lower().strip("[]")
    address = _address(host, where)
    if _is_local(host) if address is None else not _is_public(address):
        raise _private(where)
    return host if address is None else ""


def _address(host: str, where: str) -> Address | None:
    """Return `host` as an address, or None for a name. Programs read 127.1, 0x7f.1 and 2130706433 as addresses, too."""
    try:
        if ":" in host:
            return ipaddress.IPv6Address(host)
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        raise InvalidField(f"{where}: a URL has a malformed address", param="messages") from None
    return None


def _is_local(name: str) -> bool:
    """Return whether a name is of a kind that only a private network knows."""
    return "." not in name or name.rpartition(".")[2] in _LOCAL_DOMAINS or f".{name}".endswith(_HOME_DOMAIN)


def _is_public(address: Address) -> bool:
    """Return whether everybody reaches `address`, or the IPv4 address that it stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
        return address.is_global and address in _GLOBAL_UNICAST
    return address.is_global and not address.is_multicast


def _private(where: str) -> InvalidField:
    return InvalidField(
        f"{where}: a URL leads to a private address; the setting chat_private_urls = True allows that", param="messages"
    )
