"""The parts of the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any

from mirrorchat.server.ignored import HEADER
from mirrorchat.speech.options import SAMPLING_BOUNDS, SPEED_BOUNDS, WHOLE_NUMBERS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
SECONDS: Schema = {"type": "number", "minimum": 0}
BINARY: Schema = {"type": "string", "format": "binary"}
JSON, FORM, EVENT_STREAM = "application/json", "multipart/form-data", "text/event-stream"
STATUSES: Mapping[int, str] = {
    400: "a field is missing or invalid, or Host is malformed",
    401: "the server has keys, and the request has none of them",
    403: "the server has no keys, and a page of another origin asks",
    404: "it does not exist, or it belongs to another key",
    405: "the route does not accept this method",
    408: "the upload takes too long",
    409: "another turn of the session runs; or a voice has this name, too many are enrolled, or other models made it",
    413: "the upload is too large, or the recording too long",
    415: "the server cannot decode the audio",
    421: "the server has no keys, and Host is a name that it does not know",
    422: "the recording is too short, silent, not finite, or without words",
    429: "the key or the address sends too many requests, or has too many turns",
    431: "the head of the request is too large",
    500: "a defect of the server",
    502: "no chat API answered",
    503: "the server is loading, stopping, or full (Retry-After); the last chat API is at its rate limit (Retry-After);"
    " or a model is not installed",
    504: "the deadline was exceeded",
}
USUAL_ERRORS = (400, 401, 403, 405, 421, 429, 500, 503)  # of every operation
BODY_ERRORS = (404, 408, 409, 413, 415, 422, 502, 504)  # of every operation with a body


def operation(
    summary: str,
    responses: Mapping[str, Schema],
    *,
    body: Mapping[str, Schema] | None = None,
    path_parameter: str = "",
    open_to_all: bool = False,
) -> Schema:
    """Return one operation.

    Arguments:
        summary: one line of text.
        responses: the responses by status; the errors that the arguments imply are added.
        body: the schema of the request's body, by its type.
        path_parameter: the name of the parameter in the path.
        open_to_all: whether the operation needs no key.
    """
    errors = {*USUAL_ERRORS, *(BODY_ERRORS if body else ()), *((404,) if path_parameter else ())}
    failures = {str(status): ref("responses", f"Error{status}") for status in sorted(errors)}
    described: Schema = {"summary": summary, "responses": {**responses, **failures}}
    if open_to_all:
        described["security"] = []
    if body:
        described["requestBody"] = {"required": True, "content": _content(body)}
    if path_parameter:
        described["parameters"] = [{"name": path_parameter, "in": "path", "required": True, "schema": TEXT}]
    return described


def answered(description: str, content: Mapping[str, Schema]) -> Schema:
    """Return the response 200, whose body has one of the types in `content`."""
    headers = {"X-Request-Id": {"schema": TEXT}}
    return {"200": {"description": description, "headers": headers, "content": _content(content)}}


def followed(description: str, content: Mapping[str, Schema]) -> Schema:
    """Return the response 200 to a request whose fields may have had no effect."""
    answer = answered(description, content)
    answer["200"]["headers"][HEADER] = {"schema": TEXT, "description": "the fields without effect, between commas"}
    return answer


def record(required: Sequence[str] | None = None, **properties: Schema) -> Schema:
    """Return an object of `properties`. It always has those in `required`, or all if None is given."""
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


def ref(kind: str, name: str) -> Schema:
    """Return a reference to one of the document's components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def list_of(items: Schema, **limits: int) -> Schema:
    """Return an array of `items`, with limits such as `maxItems`."""
    return {"type": "array", "items": items, **limits}


def one_of(values: Sequence[str], description: str = "") -> Schema:
    """Return a text that is one of `values`."""
    return {**TEXT, "enum": list(values), **({"description": description} if description else {})}


def range_of(kind: str, bounds: tuple[float, float], description: str = "") -> Schema:
    """Return a number within `bounds`; `kind` is number or integer."""
    limits = {"type": kind, "minimum": bounds[0], "maximum": bounds[1]}
    return {**limits, **({"description": description} if description else {})}


def speech_options() -> Schema:
    """Return the fields of the options of speech."""
    sampling = {
        name: range_of("integer" if name in WHOLE_NUMBERS else "number", bounds, "of XTTS; another engine ignores it")
        for name, bounds in SAMPLING_BOUNDS.items()
    }
    return {**sampling, "speed": range_of("number", SPEED_BOUNDS, "the speech becomes so many times as fast")}


def _content(schemas: Mapping[str, Schema]) -> Schema:
    return {kind: {"schema": schema} for kind, schema in schemas.items()}
