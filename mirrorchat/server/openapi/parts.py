"""The parts that the OpenAPI document is put together from."""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SECONDS: Schema = {"type": "number", "minimum": 0}
BINARY: Schema = {"type": "string", "format": "binary"}
STATUSES: Mapping[int, str] = {
    400: "a field is missing or not one of its choices",
    401: "the server has keys, and the request has none of them",
    404: "there is no such thing, or it belongs to another key",
    405: "not with this method",
    408: "the upload takes too long",
    409: "another turn of the session runs; a voice of that name is there, too many are, or other models made it",
    413: "the upload is too large, or the recording too long",
    415: "not audio that the server reads",
    422: "too short, silent, not finite, or without words",
    429: "too many requests, or too many at once, of one key",
    500: "a defect of the server",
    502: "no chat API answered",
    503: "loading, being stopped, or full (Retry-After); or a model is not installed",
    504: "not done by the server's deadline",
}
USUAL = (401, 405, 429, 500, 503)  # what any request may meet, beside its own


def operation(
    summary: str, responses: Mapping[str, Schema], *, errors: Sequence[int] = (), open_to_all: bool = False, **rest: Any
) -> Schema:
    """Return one operation: what it answers with when all is well, and the statuses of its failures."""
    failures = {str(status): ref("responses", f"Error{status}") for status in sorted({*errors, *USUAL})}
    security: Schema = {"security": []} if open_to_all else {}
    return {"summary": summary, "responses": {**responses, **failures}, **security, **rest}


def answered(description: str, **content: Schema) -> Schema:
    """Return a response with a body of each type in `content` (a type's `/` is written `_`)."""
    return {
        "description": description,
        "headers": {"X-Request-Id": {"schema": TEXT}},
        "content": {name: {"schema": schema} for name, schema in content.items()},
    }


def record(required: Sequence[str] | None = None, **properties: Schema) -> Schema:
    """Return an object of `properties`, of which `required` (all unless given) are always there."""
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


def ref(kind: str, name: str) -> Schema:
    """Return a reference to one of the document's components."""
    return {"$ref": f"#/components/{kind}/{name}"}
