"""One file over HTTP: resumed where it broke off, bounded in size, never slower than a floor, checked when whole."""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests
import urllib3

from mirrorchat.errors import SourceFailed
from mirrorchat.models.progress import Advance, progress, size_text

CONNECT_S = 10.0
SILENCE_S = 30.0
SLOWEST_BYTES_S = 1000  # less over WINDOW_S counts as silence
WINDOW_S = 30.0
FRUITLESS_LIMIT = 4  # attempts in a row that bring less than FRUITFUL_BYTES
FRUITFUL_BYTES = 65_536
PAUSE_S = 1.0
PAUSE_LIMIT_S = 60.0  # the longest Retry-After that is waited for
CHUNK_BYTES = 65_536
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Remote:
    """A file to fetch. `size_bytes` and `sha256` are enforced where they are known, `limit_bytes` always.

    `version` tells one content of the file from another: what broke off is only resumed for the same one.
    """

    name: str
    url: str
    limit_bytes: int
    version: str
    size_bytes: int | None = None
    sha256: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Broken(Exception):
    """An attempt ended before the file was whole; another may go on from there, after `pause_s`."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = PAUSE_S if pause_s is None else pause_s


def download(remote: Remote, folder: Path) -> Path:
    """Return the path of `remote` in `folder`, fetched unless it is there whole.

    What an earlier call left unfinished is gone on with. Raises SourceFailed when the file does not come, or is not
    what `remote` says; what came stays for another call, unless it is wrong.
    """
    whole = folder / remote.name
    if whole.is_file():
        return whole
    _check_total(remote, remote.size_bytes)
    part = folder / f"{remote.name}.{hashlib.sha256(remote.version.encode()).hexdigest()[:12]}.part"
    part.touch()
    with progress(remote.name, remote.size_bytes, _size(part)) as advance:
        _fill(remote, part, advance)
    _check(remote, part)
    part.replace(whole)
    return whole


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(remote: Remote, part: Path, advance: Advance) -> None:
    """Attempt until the file is whole, or FRUITLESS_LIMIT attempts in a row bring next to nothing."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            return _attempt(remote, part, advance)
        except _Broken as error:
            fruitless = 0 if _size(part) - before >= FRUITFUL_BYTES else fruitless + 1
            if fruitless >= FRUITLESS_LIMIT:
                raise SourceFailed(f"{remote.name} does not come: {error}") from None
            time.sleep(min(error.pause_s, PAUSE_LIMIT_S))


def _attempt(remote: Remote, part: Path, advance: Advance) -> None:
    offset = _size(part)
    if offset and offset == remote.size_bytes:
        return
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        with requests.get(remote.url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S)) as response:
            start, total = _begin(remote, response, offset)
            if start < offset:
                _truncate(part)
                advance(start - offset)
            if response.status_code == 416:
                raise _Broken("the server has fewer bytes than it had before")
            _receive(remote, response, part, total, advance)
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:  # of the proxy, or a redirect
        raise SourceFailed(f"{remote.name}: the address or the proxy cannot be used: {error}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        network = requests.RequestException, ConnectionError, TimeoutError
        if isinstance(error, OSError) and error.errno and not isinstance(error, network):
            raise SourceFailed(f"{part.parent} cannot be written: {error.strerror}") from error
        raise _Broken(_reason(error)) from None


def _begin(remote: Remote, response: requests.Response, offset: int) -> tuple[int, int | None]:
    """Return where in the file the body of `response` begins, and the size of the whole file, if it says."""
    status = response.status_code
    if status in TRANSIENT:
        raise _Broken(f"HTTP {status}", _retry_after_s(response))
    if status == 416:
        return 0, None  # nothing to go on with there: what came before is not of this file
    if status not in (200, 206):
        raise SourceFailed(f"{remote.name}: HTTP {status}")
    start, total = 0, _number(response.headers.get("Content-Length"))
    if status == 206:
        span = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)", response.headers.get("Content-Range", ""))
        if not span or int(span[1]) != offset:
            raise SourceFailed(f"{remote.name}: the server answers another range than it was asked for")
        start, total = offset, _number(span[2])
    _check_total(remote, total)
    return start, remote.size_bytes if total is None else total


def _check_total(remote: Remote, total: int | None) -> None:
    expected = remote.size_bytes
    if total is not None and (total > remote.limit_bytes or (expected is not None and total != expected)):
        wanted = f"at most {remote.limit_bytes}" if expected in (None, total) else str(expected)
        raise SourceFailed(f"{remote.name} has {total} bytes there, not {wanted}")


def _receive(remote: Remote, response: requests.Response, part: Path, total: int | None, advance: Advance) -> None:
    size = _size(part)
    window_s, window_bytes = time.monotonic(), 0
    with part.open("ab") as file:
        while chunk := response.raw.read1(CHUNK_BYTES):
            size += len(chunk)
            if size > (remote.limit_bytes if total is None else total):
                _truncate(part)
                raise SourceFailed(f"{remote.name}: more comes than the file has")
            file.write(chunk)
            advance(len(chunk))
            window_bytes += len(chunk)
            if (now := time.monotonic()) - window_s > WINDOW_S:
                if window_bytes < SLOWEST_BYTES_S * WINDOW_S:
                    raise _Broken(f"slower than {SLOWEST_BYTES_S} bytes a second")
                window_s, window_bytes = now, 0
    if total is not None and size < total:
        raise _Broken(f"it broke off after {size_text(size)} of {size_text(total)}")


def _check(remote: Remote, part: Path) -> None:
    """Raise SourceFailed, and forget what came, when it is not what `remote` says."""
    size = _size(part)
    fault = ""
    if remote.size_bytes is not None and size != remote.size_bytes:
        fault = f"has {size} bytes, not {remote.size_bytes}"
    elif remote.sha256 and sha256_of(part) != remote.sha256:
        fault = f"is damaged: its SHA-256 is not {remote.sha256}"
    if fault:
        part.unlink()
        raise SourceFailed(f"{remote.name} {fault}")


def _retry_after_s(response: requests.Response) -> float | None:
    return _number(response.headers.get("Retry-After"))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 15 else None


def _truncate(part: Path) -> None:
    part.write_bytes(b"")


def _size(path: Path) -> int:
    return path.stat().st_size


def _reason(error: Exception) -> str:
    """Return what went wrong without the addresses and objects that requests puts into its messages."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the connection is not safe: its certificate is not accepted"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "nothing comes"
    return "the connection failed or broke"
