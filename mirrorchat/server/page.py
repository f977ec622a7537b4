"""The page at `/` and its files, without a build step or third-party files, and with a strict policy.

The files are in memory, and their addresses change with their contents, so browsers may keep them forever. The page
itself needs no key; its requests do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, jsonify, render_template

from mirrorchat.errors import NotFound
from mirrorchat.server.runtime import runtime
from mirrorchat.startup.engine_choice import upgrade_command

FOLDER = Path(__file__).parents[1] / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
VERSION_CHARS = 16
KEPT_FOR_EVER = "public, max-age=31536000, immutable"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " media-src 'self' blob:; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

page = Blueprint("page", __name__)


@dataclass(frozen=True)
class StaticFiles:
    """The page's files by name. `version` is the beginning of their common SHA-256."""

    version: str
    contents: Mapping[str, bytes]


@cache
def static_files() -> StaticFiles:
    """Read the page's files, once."""
    paths = sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)
    contents = {path.name: path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return StaticFiles(digest.hexdigest()[:VERSION_CHARS], contents)


@page.get("/")
def index() -> Response:
    """Return the page. It asks for a key if the server needs one, and reads the engines from `/engines`."""
    needs_key = bool(runtime().settings.api_keys)
    html = render_template("index.html", version=static_files().version, needs_key=needs_key)
    return Response(html, content_type="text/html; charset=utf-8", headers=HEADERS)


@page.get("/static/<version>/<name>")
def static_file(version: str, name: str) -> Response:
    """Return a file of the page. A page that is older than the server gets the present file, which it may not keep."""
    files = static_files()
    if name not in files.contents:
        raise NotFound("the page has no such file")
    kind = TYPES[Path(name).suffix]
    response = Response(files.contents[name], content_type=f"{kind}; charset=utf-8", headers=HEADERS)
    response.headers["Cache-Control"] = KEPT_FOR_EVER if version == files.version else "no-cache"
    return response


@page.get("/engines")
def engines() -> Response:
    """Return the engines, like `/readyz`, and the command that goes up a tier. A server with keys wants one."""
    infos = runtime().pipeline.engines.infos()
    return jsonify(
        engines={stage: vars(info) for stage, info in infos.items()}, upgrade=upgrade_command(infos.values())
    )
