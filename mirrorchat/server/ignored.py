"""`X-MirrorChat-Ignored` names the fields of a request that had no effect, so that nobody has to guess.

Clients send the names of other servers' models and voices, and fields of other servers or of engines that are not
loaded here. This server answers all the same, and says what it did not follow.
"""

import re
from collections.abc import Collection, Mapping

from flask import Response, g

HEADER = "X-MirrorChat-Ignored"
NAMES_LIMIT = 16

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}", re.ASCII)  # what a header can hold, and fields are called


def ignore(name: str) -> None:
    """Note that a field of the present request has no effect."""
    names: list[str] = g.setdefault("ignored_fields", [])
    if name not in names and len(names) < NAMES_LIMIT and _NAME.fullmatch(name):
        names.append(name)


def ignore_others(fields: Mapping[str, object], known: Collection[str]) -> None:
    """Note every field with a value whose name is not among the `known` ones."""
    for name, value in fields.items():
        if name not in known and value not in (None, False, "", [], {}):
            ignore(name)


def name_ignored(response: Response) -> None:
    """Name the ignored fields of the present request in its response."""
    names: list[str] = g.get("ignored_fields", [])
    if names:
        response.headers[HEADER] = ", ".join(names)
