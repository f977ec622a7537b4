"""The licence of a model: its address, and its text where the model's repository on the hub has it."""

import time
from pathlib import Path

import requests
import urllib3

from mirrorchat.errors import SourceFailed
from mirrorchat.models.download import CHUNK_BYTES, check_online
from mirrorchat.models.hugging_face import HUB_ENDPOINT, hub_address
from mirrorchat.models.manifest import Release
from mirrorchat.models.sources import find_offline

TEXT_LIMIT_BYTES = 100_000
TIMEOUT_S = 10.0


def licence_url(release: Release) -> str:
    """Return the address of the licence, on the mirror of the hub that HF_ENDPOINT selects."""
    url = release.licence.url
    return url.replace(HUB_ENDPOINT, hub_address(), 1) if url.startswith(HUB_ENDPOINT) else url


def licence_text(release: Release, offline_path: Path | None) -> str:
    """Return the text of the licence: the file in an offline copy, otherwise that of the hub; "" if it is no file.

    Raises SourceFailed when the hub has no such file or does not answer.
    """
    name = release.licence.file
    if not name:
        return ""
    if offline_path:
        return _read_offline(find_offline(release, offline_path) / name)
    check_online()
    repository = release.hugging_face
    return _readable(_read(f"{hub_address()}/{repository.name}/resolve/{repository.revision}/{name}"))


def _read_offline(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return _readable(file.read(TEXT_LIMIT_BYTES))
    except OSError as error:
        raise SourceFailed(f"{path} cannot be read: {error.strerror}") from None


def _read(url: str) -> bytes:
    ends_s = time.monotonic() + TIMEOUT_S
    text = b""
    try:
        with requests.get(url, timeout=TIMEOUT_S, stream=True, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code != 200:
                raise SourceFailed(f"HTTP {response.status_code}")
            while chunk := response.raw.read1(CHUNK_BYTES):
                text += chunk
                if len(text) > TEXT_LIMIT_BYTES or time.monotonic() > ends_s:
                    raise SourceFailed("it is too long, or does not arrive")
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise SourceFailed(f"the hub does not answer ({type(error).__name__})") from None
    return text


def _readable(content: bytes) -> str:
    """Return the text without control characters, which could change what a terminal shows."""
    text = content.decode("utf-8", errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t").strip()
