"""Pages of other origins (CORS): which may call, and what their browser is told. No key is needed to be told.

Cookies play no part here, so that a page can do no more than the key it has lets it. `*` is therefore harmless where
keys are needed; where none are, any page that somebody opens could use this server, so Settings refuses it.
"""

import re

from flask import Request, Response

from mirrorchat.access.settings import ALL_ORIGINS

METHODS = "GET, POST, DELETE"
EXPOSED = (
    "X-MirrorChat-Transcript", "X-MirrorChat-Reply", "X-MirrorChat-Cut", "X-MirrorChat-Engines", "X-MirrorChat-Voice",
    "X-MirrorChat-Session", "X-MirrorChat-Sample-Rate", "X-Request-Id", "Retry-After", "Server-Timing",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
)  # fmt: skip
PREFLIGHT_AGE_S = 600

_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}", re.ASCII)


def is_preflight(request: Request) -> bool:
    """Tell whether a browser asks with `request` if it may send another one."""
    headers = request.headers
    return request.method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def preflight_answer() -> Response:
    """Return the answer to a preflight: 204. `allow_origin` says in it what is allowed."""
    return Response(status=204)


def allow_origin(request: Request, response: Response, origins: tuple[str, ...]) -> None:
    """Say in `response` that the page that sent `request` may read it, where its origin is one of `origins`."""
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
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_NAMES.fullmatch(wanted):  # any header may be sent: none of them does more than its request may
        response.headers["Access-Control-Allow-Headers"] = wanted
