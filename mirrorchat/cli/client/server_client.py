"""HTTP to a running MirrorChat, for the command line. A server may be broken or hostile: all it sends is bounded."""

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
SILENCE_TIMEOUT_S = 150.0  # whole answers come after turn_deadline_s, 100 s by default; events every 2 s
EVENTS_TIMEOUT_S = 30.0
ANSWER_LIMIT_S = 1800.0  # for all of a response
ERROR_LIMIT_BYTES = 65_536
JSON_LIMIT_BYTES = 8_000_000
READ_BYTES = 16_384
_KEY_LIMIT_BYTES = 4096
_MESSAGE_LIMIT_CHARS = 1000


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


class ServerClient:
    """Sends requests to the server at `url`, with `key` as its Bearer token. Close it, or use it in a with block.

    Raises CommandError for a URL that is none. Every method raises ServerFailed when the server does not answer as it
    should.
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
        """Send a body as requests does (`json`, `data`, `files`), and return the JSON that comes back."""
        with self.open("POST", path, **body) as response:
            return json_of(response)

    def delete(self, path: str) -> None:
        with self.open("DELETE", path):
            pass

    @contextmanager
    def open(
        self, method: str, path: str, *, silence_s: float = SILENCE_TIMEOUT_S, **body: Any
    ) -> Iterator[requests.Response]:
        """Send a request and yield the response, whose body is still to be read, with `read` alone."""
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
                raise ServerFailed("the server compresses its answer, which it was not asked to")
            yield response

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the key into the header. With none, this keeps requests from looking for a password in ~/.netrc."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _unreachable(self, error: Exception) -> ServerFailed:
        if isinstance(error, requests.exceptions.SSLError):
            reason = "its certificate is not trusted, or it does not speak HTTPS (REQUESTS_CA_BUNDLE names other ones)"
        elif isinstance(error, requests.Timeout):
            reason = "it does not answer in time"
        elif isinstance(error, requests.ConnectionError) and "refused" in str(error):
            reason = "nothing listens there; mirrorchat serve starts a server"
        elif isinstance(error, requests.ConnectionError):
            reason = "there is no connection, or it broke off"
        else:
            reason = type(error).__name__
        return ServerFailed(f"{printable(self.url)[:200]}: {reason}")


def read(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it comes, in pieces of READ_BYTES at most. Raises ServerFailed where it breaks off or lasts."""
    limit = time.monotonic() + ANSWER_LIMIT_S
    try:
        for piece in response.raw.stream(READ_BYTES, decode_content=False):
            yield piece
            if time.monotonic() > limit:
                raise ServerFailed(f"the answer takes longer than {ANSWER_LIMIT_S:.0f} s")
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        raise ServerFailed("the answer broke off") from None


def json_of(response: requests.Response) -> Any:
    """Return the JSON in the body. Raises ServerFailed for anything else."""
    try:
        return json.loads(_whole(response, JSON_LIMIT_BYTES))
    except (ValueError, RecursionError):
        raise ServerFailed("the server does not answer as MirrorChat does (no JSON)") from None


def _whole(response: requests.Response, limit_bytes: int) -> bytes:
    data = bytearray()
    for piece in read(response):
        data += piece
        if len(data) > limit_bytes:
            raise ServerFailed("the answer is too large")
    return bytes(data)


def _refusal(response: requests.Response) -> ServerFailed:
    """Return what the server says instead of an answer."""
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
    refusal.said = failed.said
    return refusal


def error_in(error: Mapping[str, Any]) -> ServerFailed:
    """Return the `error` of a body or an event in MirrorChat's shape as one to raise."""
    message = printable(str(error["message"]))[:_MESSAGE_LIMIT_CHARS]
    code = printable(str(error.get("code")))[:64]
    failed = ServerFailed(f"the server says: {message} ({code})")
    failed.said = code
    return failed


def read_key(path: Path) -> str:
    """Return the key in a file of one line. Raises CommandError where there is none."""
    try:
        with path.open("rb") as file:
            key = file.read(_KEY_LIMIT_BYTES).decode("ascii").strip()
    except (OSError, ValueError):
        raise CommandError(f"the key file {path} cannot be read") from None
    if not key.isprintable() or not key:
        raise CommandError(f"the key file {path} holds no key, which is one line of printable ASCII")
    return key
