"""The one place where an error inside a route becomes a response."""

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from mirrorchat.errors import (
    InvalidRequest,
    MethodNotAllowed,
    MirrorChatError,
    NotFound,
    UploadTooLarge,
    log_unexpected,
)
from mirrorchat.server.runtime import request_record, runtime


def error_response(error: Exception) -> Response:
    """Return the response for any exception: our JSON, the status of its class, and the headers that belong to it."""
    known = _known(error)
    request_record().finished(known)
    response = jsonify(known.body())
    response.status_code = known.status
    if known.retry_after_s is not None:
        response.headers["Retry-After"] = str(known.retry_after_s)
    if known.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, HTTPException) and error.code == 405:
        response.headers["Allow"] = dict(error.get_headers()).get("Allow", "")
    return response


def _known(error: Exception) -> MirrorChatError:
    if isinstance(error, MirrorChatError) and type(error) is not MirrorChatError:
        return error
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return _from_http(error)
    if not isinstance(error, MirrorChatError):
        log_unexpected(error)
    return MirrorChatError(f"the server has failed; its log has the details under {request_record().request_id}")


def _from_http(error: HTTPException) -> MirrorChatError:
    match error.code:
        case 404:
            return NotFound(f"there is no route {request.path[:200]}")
        case 405:
            return MethodNotAllowed(f"{request.path[:200]} does not accept {request.method}")
        case 413:
            return UploadTooLarge(f"the upload is larger than {runtime().settings.upload_limit_mb} MiB")
        case _:
            return InvalidRequest("the request could not be read: send multipart/form-data")
