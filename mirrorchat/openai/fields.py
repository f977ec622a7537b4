"""The fields of OpenAI's requests: read within limits, and rejected by name if the server does not support them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from flask import Request

from mirrorchat.engines import Language
from mirrorchat.errors import InvalidField, InvalidRequest, MissingField, UnsupportedField, UploadTooLarge

DEPTH_LIMIT = 64  # of nested objects and lists; schemas of tools have about twenty
VALUES_LIMIT = 50_000  # of numbers, texts, ... in one body: even short ones take memory
TRUE, FALSE = ("true", "1"), ("false", "0", "")


def json_body(request: Request, *, limit_bytes: int) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises UploadTooLarge beyond `limit_bytes`, and InvalidRequest if the body is not JSON, no object, too deep, or has
    too many values.
    """
    if request.mimetype != "application/json":
        raise InvalidRequest("the body must be JSON: send it as application/json")
    if (request.content_length or 0) > limit_bytes:
        raise UploadTooLarge(f"the body is larger than {limit_bytes} bytes")
    request.max_content_length = limit_bytes  # instead of that of uploads; it also limits chunked bodies
    data = request.get_data(cache=False)
    if len(data) > limit_bytes:
        raise UploadTooLarge(f"the body is larger than {limit_bytes} bytes")
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > VALUES_LIMIT:
        raise InvalidRequest(f"the body holds more than {VALUES_LIMIT} values")
    try:
        body = json.loads(data, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    if _is_deeper(body, DEPTH_LIMIT):
        raise InvalidRequest(f"the body holds objects more than {DEPTH_LIMIT} deep")
    return body


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits)


def _is_deeper(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return False
        level = inner
    return any(isinstance(each, dict | list) for each in level)


def refuse(fields: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Raise UnsupportedField for a field of `reasons` (why it is not supported) that has a value."""
    for name, reason in reasons.items():
        if fields.get(name) not in (None, False, "", [], {}):
            raise UnsupportedField(f"{name} is not supported: {reason}", param=name)


def required(fields: Mapping[str, Any], name: str) -> Any:
    """Return the value of a required field. Raises MissingField."""
    value = fields.get(name)
    if value is None:
        raise MissingField(f"the field {name} is missing", param=name)
    return value


def text(fields: Mapping[str, Any], name: str, *, limit_chars: int) -> str:
    """Return a required text that is not blank."""
    value = required(fields, name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidField(f"{name} must be a text that is not empty", param=name)
    if len(value) > limit_chars:
        raise InvalidField(f"{name} is longer than {limit_chars} characters", param=name)
    if not is_unicode(value):
        raise InvalidField(f"{name} holds half a surrogate pair, which is no character", param=name)
    return value


def is_unicode(value: str) -> bool:
    """Return whether a text is valid Unicode: JSON can hold halves of surrogate pairs, which are no characters."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def choice(fields: Mapping[str, Any], name: str, choices: Sequence[str], default: str) -> str:
    """Return one of `choices`, which the field may name in any case; `default` if it is missing or null."""
    value = fields.get(name)
    if value is None:
        return default
    chosen = value.strip().lower() if isinstance(value, str) else ""
    if chosen not in choices:
        raise InvalidField(f"{name} must be one of {', '.join(choices)}", param=name)
    return chosen


def number(fields: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    """Return a number, which is text in a form; `default` if the field is missing or null."""
    value = fields.get(name)
    if value is None:
        return default
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        found = None
    if found is None or not low <= found <= high:
        raise InvalidField(f"{name} must be a number from {low:g} to {high:g}", param=name)
    return found


def whole_number(fields: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    """Return a whole number, which is text in a form; `default` if the field is missing or null."""
    found = number(fields, name, low, high, default)
    if found != int(found):
        raise InvalidField(f"{name} must be a whole number from {low} to {high}", param=name)
    return int(found)


def flag(fields: Mapping[str, Any], name: str) -> bool:
    """Return a flag, which is text in a form; False if the field is missing or null."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    if not isinstance(value, str) or value.strip().lower() not in (*TRUE, *FALSE):
        raise InvalidField(f"{name} must be true or false", param=name)
    return value.strip().lower() in TRUE


def language(fields: Mapping[str, Any], name: str = "language") -> Language | None:
    """Return the language that a field names, as Language.parse does; None if it is missing, empty or `auto`."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        return Language.parse_or_auto(value if isinstance(value, str) else "")
    except ValueError as error:
        raise InvalidField(f"{name}: {error}", param=name) from None
