"""Downloads one file over HTTP: resumes broken transfers, limits size, requires a minimum rate, verifies the result."""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests
import urllib3

from mirrorchat.errors import SourceFailed, SourceUnreachable
from mirrorchat.models.manifest import ReleasedFile
from mirrorchat.models.progress import Advance, progress, size_text

CONNECT_S = 10.0
SILENCE_S = 30.0
SLOWEST_BYTES_S = 1000  # a lower rate over WINDOW_S counts as a broken connection
WINDOW_S = 30.0
FRUITLESS_LIMIT = 4  # consecutive attempts that receive less than FRUITFUL_BYTES
FRUITFUL_BYTES = 65_536
PAUSE_S = 1.0
PAUSE_LIMIT_S = 60.0  # a longer Retry-After is not obeyed
CHUNK_BYTES = 65_536
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Remote:
    """A file to download. `size_bytes` and `sha256` are enforced where they are known, `limit_bytes` always.

    `version` identifies the content of the file: a broken transfer is resumed only for the same version.
    """

    name: str
    url: str
    limit_bytes: int
    version: str
    size_bytes: int | None = None
    sha256: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def known_remote(file: ReleasedFile, url: str) -> Remote:
    """Return a file whose checksum is known. Another source may resume what one began: the bytes are the same."""
    return Remote(file.name, url, file.limit_bytes, f"sha256 {file.sha256}", file.exact_bytes, file.sha256)


class _Broken(Exception):
    """An attempt ended before the file was complete. Another attempt may resume it after `pause_s`."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = PAUSE_S if pause_s is None else pause_s


def download(remote: Remote, folder: Path) -> Path:
    """Download `remote` into `folder` unless it is there, and return its path.

    A partial download by an earlier call is resumed. Raises SourceFailed when the download fails or the file is not
    the one that `remote` describes. A partial file stays for the next call, a wrong one is deleted.
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
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_online() -> None:
    """Raise SourceFailed where the variable of the hub's own library forbids downloads; it counts for every source."""
    if is_offline():
        raise SourceFailed("HF_HUB_OFFLINE is set")


def is_offline() -> bool:
    """Tell whether HF_HUB_OFFLINE is set."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _fill(remote: Remote, part: Path, advance: Advance) -> None:
    """Repeat attempts until the file is complete, or FRUITLESS_LIMIT consecutive ones receive almost nothing."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            return _attempt(remote, part, advance)
        except _Broken as error:
            fruitless = 0 if _size(part) - before >= FRUITFUL_BYTES else fruitless + 1
            if fruitless >= FRUITLESS_LIMIT:
                raise SourceUnreachable(f"{remote.name} could not be downloaded: {error}") from None
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
                part.write_bytes(b"")
                advance(start - offset)
            if response.status_code == 416:
                raise _Broken("the file on the server is shorter than before")
            _receive(remote, response, part, total, advance)
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:  # a proxy or a redirect
        raise SourceFailed(f"{remote.name}: the address or the proxy cannot be used: {error}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        network = requests.RequestException, ConnectionError, TimeoutError
        if isinstance(error, OSError) and error.errno and not isinstance(error, network):
            raise SourceFailed(f"{part.parent} cannot be written: {error.strerror}") from error
        raise _Broken(reason_of(error)) from None


def _begin(remote: Remote, response: requests.Response, offset: int) -> tuple[int, int | None]:
    """Return the offset in the file at which the body of `response` begins, and the size of the file if it is known."""
    status = response.status_code
    if status in TRANSIENT:
        raise _Broken(f"HTTP {status}", _number(response.headers.get("Retry-After")))
    if status == 416:
        return 0, None  # the partial file belongs to another version: start again
    if status not in (200, 206):
        raise SourceFailed(f"{remote.name}: HTTP {status}")
    start, total = 0, _number(response.headers.get("Content-Length"))
    if status == 206:
        span = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15}|\*)", response.headers.get("Content-Range", ""))
        if not span or int(span[1]) != offset:
            raise SourceFailed(f"{remote.name}: the server sends another range than the requested one")
        start, total = offset, _number(span[2])
    _check_total(remote, total)
    return start, remote.size_bytes if total is None else total


def _check_total(remote: Remote, total: int | None) -> None:
    expected = remote.size_bytes
    if total is not None and (total > remote.limit_bytes or (expected is not None and total != expected)):
        expected_text = f"at most {remote.limit_bytes}" if expected in (None, total) else str(expected)
        raise SourceFailed(f"{remote.name} has {total} bytes there, not {expected_text}")


def _receive(remote: Remote, response: requests.Response, part: Path, total: int | None, advance: Advance) -> None:
    size = _size(part)
    window_s, window_bytes = time.monotonic(), 0
    with part.open("ab") as file:
        while chunk := response.raw.read1(CHUNK_BYTES):
            size += len(chunk)
            if size > (remote.limit_bytes if total is None else total):
                part.write_bytes(b"")
                raise SourceFailed(f"{remote.name}: the server sends more bytes than the file has")
            file.write(chunk)
            advance(len(chunk))
            window_bytes += len(chunk)
            if (now := time.monotonic()) - window_s > WINDOW_S:
                if window_bytes < SLOWEST_BYTES_S * WINDOW_S:
                    raise _Broken(f"slower than {SLOWEST_BYTES_S} bytes a second")
                window_s, window_bytes = now, 0
    if total is not None and size < total:
        raise _Broken(f"the connection broke after {size_text(size)} of {size_text(total)}")


def _check(remote: Remote, part: Path) -> None:
    """Raise SourceFailed and delete the file when its size or checksum is wrong."""
    size = _size(part)
    fault = ""
    if remote.size_bytes is not None and size != remote.size_bytes:
        fault = f"has {size} bytes, not {remote.size_bytes}"
    elif remote.sha256 and sha256_of(part) != remote.sha256:
        fault = f"is damaged: its SHA-256 is not {remote.sha256}"
    if fault:
        part.unlink()
        raise SourceFailed(f"{remote.name} {fault}")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 15 else None


def _size(path: Path) -> int:
    return path.stat().st_size


def reason_of(error: Exception) -> str:
    """Return the cause of an error without the addresses and objects that messages of requests contain."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate of the server is not accepted"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "the server sends nothing"
    return "the connection failed or broke"
