"""Web pages of other origins: which may call, and the headers that tell the browser so (CORS).

The server uses no cookies, so a page can do no more than its key allows. `*` is therefore harmless where keys are
needed, and a preflight needs no key. Without keys any page that somebody opens could use this server: Settings rejects
`*`, and `check_page` rejects the pages that are not listed. A browser sends some requests of pages before it asks.
"""

import re

from flask import Request, Response

from mirrorchat.access.requested_host import parse_host
from mirrorchat.access.settings import ALL_ORIGINS, is_origin
from mirrorchat.errors import ForeignPage

METHODS = "GET, POST, DELETE"
EXPOSED = (
    "X-MirrorChat-Transcript", "X-MirrorChat-Reply", "X-MirrorChat-Cut", "X-MirrorChat-Engines", "X-MirrorChat-Voice",
    "X-MirrorChat-Language", "X-MirrorChat-Session", "X-MirrorChat-Sample-Rate", "X-MirrorChat-Ignored", "X-Request-Id",
    "Retry-After", "Server-Timing",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
)  # fmt: skip
PREFLIGHT_AGE_S = 600

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}", re.ASCII)


def is_preflight(request: Request) -> bool:
    """Return whether `request` is a CORS preflight."""
    headers = request.headers
    return request.method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def check_page(request: Request, origins: tuple[str, ...]) -> None:
    """Raise ForeignPage if the page of another origin, which is not one of `origins`, sent `request`.

    Browsers name the page's origin in all requests but GET and HEAD, and in those that the page can read. For the
    others, such as those of an image, newer ones say that they come from another site.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "")
    if origin in origins or (site != "cross-site" and (origin is None or _is_own(origin, site, request))):
        return
    if origin is not None and is_origin(origin):
        raise ForeignPage(
            f"pages of {origin} may not use this server; if it is yours, write"
            f' cors_origins = ["{origin}"] into config.py'
        )
    raise ForeignPage("a page from elsewhere may not use this server; list its origin in cors_origins in config.py")


def _is_own(origin: str, site: str, request: Request) -> bool:
    """Return whether `origin` is that of this server's own page.

    A proxy may hide that the page has HTTPS; the browser, which then says `site`, knows.
    """
    scheme, _, authority = origin.partition("://")
    page, server = parse_host(authority), parse_host(request.environ.get("HTTP_HOST", ""))
    if page is None or server is None or (scheme != request.scheme and site != "same-origin"):
        return False
    port = _DEFAULT_PORTS.get(scheme)
    return (page.name, page.port or port) == (server.name, server.port or port)


def allow_origin(request: Request, response: Response, origins: tuple[str, ...]) -> None:
    """Add the CORS headers to `response` if the origin of `request` is one of `origins`."""
    if not origins:
        return
    preflight = is_preflight(request)
    response.vary.add("Origin")
    if preflight:
        response.vary.add("Access-Control-Request-Headers")
    origin = request.headers.get("Origin", "")
    if origin not in origins and not (origin and ALL_ORIGINS in origins):
        return
    response.headers["Access-Control-Allow-Origin"] = ALL_ORIGINS if ALL_ORIGINS in origins else origin
    if not preflight:
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED)
        return
    response.headers["Access-Control-Allow-Methods"] = METHODS
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
    requested = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_NAMES.fullmatch(requested):  # any header may be sent: none gives a page more rights
        response.headers["Access-Control-Allow-Headers"] = requested
