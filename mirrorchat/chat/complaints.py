"""What a chat API says of a failure, in the many forms of such bodies, without keys and within bounds."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from mirrorchat.settings import ChatApi

_LIMIT_CHARS = 200
_READ_CHARS = 4_000  # of a message, before masking
_DEPTH = 4  # of errors within errors
_MASK = "***"
_MESSAGES = (
    "message", "msg", "detail", "error", "error_msg", "errmsg", "err_msg", "error_message", "errormessage",
    "status_msg", "error_description", "reason", "description", "title",
)  # fmt: skip
_CODES = (
    "code", "error_code", "errorcode", "err_code", "errcode", "errno", "status_code", "statuscode", "status", "ret",
    "retcode",
)  # fmt: skip
_INNER = ("errors", "fault", "base_resp", "header", "responsemetadata", "response")
_CODE_OF_ERROR = re.compile(
    r"-?\d{1,9}|[\w.]{0,60}(?:error|invalid|denied|fail|limit|arrears|exceed|unauthorized|forbidden)[\w.]{0,60}"
)
_GOOD_CODES = ("", "0", "200", "ok", "success", "succeeded", "none", "null")
# Whatever looks like a key, although it is not ours: a server may have one of its own.
_SECRETS = re.compile(
    r"(?i)\b(?:sk|pk|rk|gsk|xai|hf|nvapi)[-_][\w.*-]{4,200}"
    r"|\b(?:bearer|basic|token)[ :=]{1,3}['\"]?(?=\S{0,100}\d)[\w.+/=*~-]{6,500}"
    r"|(?<=[?&;])[\w.-]{1,40}=[^\s&'\"<>]{1,500}"
    r"|(?<![a-z0-9_])(?=[a-z_]{0,60}\d)[a-z0-9_]{20,500}"
    r"|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"
    r"|[a-z0-9-]{0,20}\*{3,40}[a-z0-9-]{0,20}"
)


def complaint(body: Mapping[str, Any], *, whole: bool = True) -> str | None:
    """Return the message of a body that is an error and no answer, "" for one without words; None if it is no error.

    A single event of a stream (not `whole`) needs a second sign of an error beside its message, as it may be a status.
    """
    body = _lowered(body)
    if body.get("error"):
        return _words(body["error"]) or _words(body)
    for name in _INNER:
        inner = body.get(name)
        is_bad = _is_bad(_lowered(inner)) if isinstance(inner, Mapping) else name == "errors"
        if inner and is_bad:
            return _words(inner)
    if choices := body.get("choices"):
        first = choices[0] if isinstance(choices, list) else None
        return _words(first["error"]) if isinstance(first, Mapping) and first.get("error") else None
    has_words = any(isinstance(body.get(name), str) and body[name] for name in _MESSAGES)
    if _is_bad(body) or "detail" in body or (whole and has_words):
        return _words(body)
    return None


def _lowered(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in body.items()}


def _is_bad(body: Mapping[str, Any]) -> bool:
    """Tell whether a body says that it is a failure: by a code, or in so many words."""
    if body.get("success") is False or body.get("ok") is False or body.get("error"):
        return True
    if "error" in (body.get("object"), body.get("type"), body.get("status"), body.get("event")):
        return True
    has_words = any(body.get(name) for name in _MESSAGES)
    codes = [str(body[name]).lower() for name in _CODES if isinstance(body.get(name), str | int)]
    return has_words and any(code not in _GOOD_CODES and _is_code_of_error(code) for code in codes)


def _is_code_of_error(code: str) -> bool:
    """Tell whether a code means failure. Words such as "queued" are no codes; "InvalidApiKey" and "401" are."""
    return bool(_CODE_OF_ERROR.fullmatch(code))


def _words(error: object, depth: int = _DEPTH) -> str:
    """Return the message inside an error of any form."""
    if isinstance(error, str):
        return error[:_READ_CHARS]
    if isinstance(error, list | tuple):
        error = error[0] if error else ""
        return _words(error, depth - 1) if depth else ""
    if not isinstance(error, Mapping) or not depth:
        return ""
    error = _lowered(error)
    for name in _MESSAGES:
        if text := _words(error.get(name), depth - 1):
            return text
    for name in (*_CODES, "type"):
        if isinstance(error.get(name), str | int) and not isinstance(error.get(name), bool):
            return f"{name} {error[name]}"
    return ""


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return `text` on one line of at most _LIMIT_CHARS, without the `secrets` and without what looks like a key."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, _MASK)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:_READ_CHARS]).split())
    line = _SECRETS.sub(_MASK, line)
    return line if len(line) <= _LIMIT_CHARS else f"{line[: _LIMIT_CHARS - 3]}..."


def secrets_of(api: ChatApi, request: Mapping[str, Any]) -> list[str]:
    """Return what no message may repeat: the keys of `api`, and the words of the caller."""
    parts = urlsplit(api.url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    held = [api.key, *api.headers.values(), password, parts.query]
    held += [user if len(user) >= 8 else "", base64.b64encode(f"{user}:{password}".encode()).decode()]
    held += [value for pair in parts.query.split("&") for value in pair.partition("=")[2:] if len(value) >= 4]
    held += [value for value in api.extra_body.values() if isinstance(value, str) and len(value) >= 16]
    held += [path for path in parts.path.split("/") if len(path) >= 16]
    held += [word for value in api.headers.values() for word in value.split() if len(word) >= 8]
    held += [text.strip() for text in _contents(request) if len(text.strip().encode(errors="replace")) >= 6]
    return [*held, *map(unquote, held)]


def _contents(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of the messages in a request, which a caller may have written."""
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [content]
        texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
        yield from (text for text in texts if isinstance(text, str))
