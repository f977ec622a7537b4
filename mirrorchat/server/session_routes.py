"""Sessions over HTTP: the form field `session_id`, the header `X-MirrorChat-Session`, `DELETE /sessions/<id>`."""

import re

from flask import Blueprint, Response, g, request

from mirrorchat.errors import InvalidField
from mirrorchat.server.runtime import runtime
from mirrorchat.turn.sessions import Session

HEADER = "X-MirrorChat-Session"
ID_LIMIT_CHARS = 128

_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{ID_LIMIT_CHARS}}}", re.ASCII)

routes = Blueprint("sessions", __name__)


def session_field() -> str | None:
    """Return the form field `session_id`; a blank one counts as missing. Raises InvalidField if it is no id."""
    session_id: str = request.form.get("session_id", "").strip()
    if session_id and not _ID.fullmatch(session_id):
        raise InvalidField(
            f"session_id must be the {HEADER} of an earlier answer (letters, digits, - and _), or be left out",
            param="session_id",
        )
    return session_id or None


def open_session(session_id: str | None) -> Session:
    """Open the caller's session for one turn; a new one for None. Every response then names it.

    A session begins with a recording that could be decoded: uploads of junk take no room from the sessions of others.
    """
    session = runtime().sessions.open(session_id, g.owner, g.subject)
    g.session_id = session.id
    return session


def name_session(response: Response) -> None:
    """Set the header of `response` that names its session, if it has one. The session is valid after an error, too."""
    if "session_id" in g:
        response.headers[HEADER] = g.session_id


@routes.delete("/sessions/<session_id>")
def forget(session_id: str) -> tuple[str, int]:
    """Forget a session at once: 204, or 404 if the caller has no session of this id."""
    runtime().sessions.forget(session_id, g.owner)
    return "", 204
