"""The HTTP client of the command line. A server may be broken or hostile, so everything it sends has a limit."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from mirrorchat.cli.client.terminal import printable
from mirrorchat.errors import CommandError, ServerFailed

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 150.0  # a whole answer takes up to turn_deadline_s, by default 100 s
EVENTS_TIMEOUT_S = 30.0  # the server sends an event at least every 2 s
ANSWER_LIMIT_S = 1800.0  # for the complete response
ERROR_LIMIT_BYTES = 65_536
JSON_LIMIT_BYTES = 8_000_000
READ_BYTES = 16_384
_KEY_LIMIT_BYTES = 4096
_MESSAGE_LIMIT_CHARS = 1000


class ServerClient:
    """Sends requests to the server at `url`, with `key` as the Bearer token. Use it in a with block.

    Raises CommandError for an invalid URL. Every method raises ServerFailed when the server fails or refuses.
    """

    def __init__(self, url: str, key: str = "") -> None:
        if not _is_address(url):
            raise CommandError("--server takes a URL such as http://127.0.0.1:9990, without a name or password in it")
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"
        self._key = key

    def __enter__(self) -> "ServerClient":
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def post_json(self, path: str, **body: Any) -> Any:
        """Send a `body` as arguments of requests (`json`, `data`, `files`), and return the JSON of the answer."""
        with self.open("POST", path, **body) as response:
            return json_of(response)

    def delete(self, path: str) -> None:
        with self.open("DELETE", path):
            pass

    @contextmanager
    def open(
        self, method: str, path: str, *, silence_s: float = SILENCE_TIMEOUT_S, **body: Any
    ) -> Iterator[requests.Response]:
        """Send a request and yield the response. Its body must be read with `read` or `json_of`."""
        try:
            response = self._session.request(
                method, self.url + path, stream=True, allow_redirects=False, auth=self._authorise,
                timeout=(CONNECT_TIMEOUT_S, silence_s), **body,
            )  # fmt: skip
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        with response:
            if response.status_code >= 300:
                raise _refusal(response)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ServerFailed("the server compresses its answer without a request to do so")
            yield response

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the key's header. This also prevents requests from reading a password from ~/.netrc."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _unreachable(self, error: Exception) -> ServerFailed:
        if isinstance(error, requests.exceptions.SSLError):
            reason = "its certificate is not trusted, or it does not speak HTTPS (REQUESTS_CA_BUNDLE adds certificates)"
        elif isinstance(error, requests.Timeout):
            reason = "it does not answer in time"
        elif isinstance(error, requests.ConnectionError) and "refused" in str(error):
            reason = "no server listens there; `mirrorchat serve` starts one"
        elif isinstance(error, requests.ConnectionError):
            reason = "the connection failed or broke"
        else:
            reason = type(error).__name__
        return ServerFailed(f"{printable(self.url)[:200]}: {reason}")


def read(response: requests.Response) -> Iterator[bytes]:
    """Yield the body while it arrives, up to READ_BYTES at a time. Raises ServerFailed for a broken or slow one."""
    limit = time.monotonic() + ANSWER_LIMIT_S
    try:
        for piece in response.raw.stream(READ_BYTES, decode_content=False):
            yield piece
            if time.monotonic() > limit:
                raise ServerFailed(f"the answer takes longer than {ANSWER_LIMIT_S:.0f} s")
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        raise ServerFailed("the answer broke off") from None


def json_of(response: requests.Response) -> Any:
    """Return the JSON in the body. Raises ServerFailed if it is not JSON."""
    try:
        return json.loads(_whole(response, JSON_LIMIT_BYTES))
    except (ValueError, RecursionError):
        raise ServerFailed("the server does not answer as MirrorChat does (no JSON)") from None


def text_of(value: object, limit_chars: int | None = None) -> str:
    """Return a value of JSON that must be a string. Raises TypeError for others and for longer ones."""
    if not isinstance(value, str) or (limit_chars is not None and len(value) > limit_chars):
        raise TypeError
    return value


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _whole(response: requests.Response, limit_bytes: int) -> bytes:
    data = bytearray()
    for piece in read(response):
        data += piece
        if len(data) > limit_bytes:
            raise ServerFailed("the answer is too large")
    return bytes(data)


def _refusal(response: requests.Response) -> ServerFailed:
    """Return the error in a response that is not an answer."""
    status = response.status_code
    try:
        error = json.loads(_whole(response, ERROR_LIMIT_BYTES))["error"]
        failed = error_in(error)
    except (ServerFailed, ValueError, RecursionError, LookupError, TypeError):
        return ServerFailed(f"the server answered with status {status}, and not as MirrorChat does")
    hint = ": set MIRRORCHAT_API_KEY, or --key-file" if status == 401 else ""
    retry = response.headers.get("Retry-After", "")
    wait = f" (try again after {int(retry)} s)" if retry.isascii() and retry.isdigit() and len(retry) < 7 else ""
    refusal = ServerFailed(f"{failed.message}{hint}{wait}")
    refusal.refusal_code = failed.refusal_code
    return refusal


def error_in(error: Mapping[str, Any]) -> ServerFailed:
    """Return the exception for the `error` object of a response or an event."""
    message = printable(str(error["message"]))[:_MESSAGE_LIMIT_CHARS]
    code = printable(str(error.get("code")))[:64]
    failed = ServerFailed(f"the server says: {message} ({code})")
    failed.refusal_code = code
    return failed


def read_key(path: Path) -> str:
    """Return the key in a file of one line. Raises CommandError when there is none."""
    try:
        with path.open("rb") as file:
            key = file.read(_KEY_LIMIT_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        raise CommandError(f"the key file {path} cannot be read") from None
    if not key.isprintable() or not key:
        raise CommandError(f"the key file {path} holds no key: a key is one line of printable ASCII")
    return key
