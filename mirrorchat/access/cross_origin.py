"""CORS: which origins may call, and the headers that tell the browser so. A preflight needs no key.

The server uses no cookies, so a page can do no more than its key allows. `*` is therefore harmless where keys are
needed; without keys any page that somebody opens could use this server, so Settings rejects it.
"""

import re

from flask import Request, Response

from mirrorchat.access.settings import ALL_ORIGINS

METHODS = "GET, POST, DELETE"
EXPOSED = (
    "X-MirrorChat-Transcript", "X-MirrorChat-Reply", "X-MirrorChat-Cut", "X-MirrorChat-Engines", "X-MirrorChat-Voice",
    "X-MirrorChat-Language", "X-MirrorChat-Session", "X-MirrorChat-Sample-Rate", "X-MirrorChat-Ignored", "X-Request-Id",
    "Retry-After", "Server-Timing",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
)  # fmt: skip
PREFLIGHT_AGE_S = 600

_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}", re.ASCII)


def is_preflight(request: Request) -> bool:
    """Return whether `request` is a CORS preflight."""
    headers = request.headers
    return request.method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


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
