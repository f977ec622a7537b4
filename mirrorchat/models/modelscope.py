"""ModelScope as a source of models. It publishes models as repositories, and WeNet's as a data set."""

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from mirrorchat.errors import SourceFailed, SourceUnreachable
from mirrorchat.models.download import (
    CHUNK_BYTES,
    CONNECT_S,
    SILENCE_S,
    TRANSIENT,
    Remote,
    check_online,
    download,
    known_remote,
    reason_of,
)
from mirrorchat.models.manifest import Release, ReleasedFile, Repository

MODELSCOPE_ENDPOINT = "https://modelscope.cn"
LISTING_LIMIT_BYTES = 4_000_000
LISTING_LIMIT_S = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ModelScope:
    """ModelScope over HTTPS. MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN selects another host.

    A file with a known checksum must have it. Of another file, it must have the size and checksum that ModelScope
    itself lists.
    """

    name = "modelscope"

    @property
    def address(self) -> str:
        """Return the address of ModelScope."""
        return modelscope_endpoint()

    def files(self, release: Release) -> tuple[ReleasedFile, ...]:
        """Return the files of `release` that should be there, which may be those of another edition."""
        return release.files_in(release.modelscope)

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`."""
        if (folder / file.name).is_file():
            return
        check_online()
        repository = release.modelscope
        url = f"{modelscope_endpoint()}/models/{repository.name}/resolve/{repository.revision}/{file.name}"
        if repository.is_dataset:
            remote = _in_data_set(repository, file)
        elif file.sha256:
            remote = known_remote(file, url)
        else:
            remote = _in_model(repository, file, url)
        download(remote, folder)


def modelscope_endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """Return the address of ModelScope. MODELSCOPE_DOMAIN, a variable of its own client, has no scheme."""
    named = environ.get("MODELSCOPE_ENDPOINT") or environ.get("MODELSCOPE_DOMAIN") or MODELSCOPE_ENDPOINT
    return (named if "://" in named else f"https://{named}").rstrip("/")


def _in_data_set(repository: Repository, file: ReleasedFile) -> Remote:
    """Return `file` in a data set. The listing holds addresses whose signatures expire."""
    listing = f"{modelscope_endpoint()}/api/v1/datasets/{repository.name}/oss/tree"
    entry = _entry(listing, file.name, "Key")
    url = str(entry.get("Url"))
    if urlsplit(url).scheme not in ("https", urlsplit(listing).scheme):
        raise SourceFailed(f"its address of {file.name} is not encrypted")
    return known_remote(file, url) if file.sha256 else _as_listed(entry, file, url, repository)


def _in_model(repository: Repository, file: ReleasedFile, url: str) -> Remote:
    listing = f"{modelscope_endpoint()}/api/v1/models/{repository.name}/repo/files"
    entry = _entry(f"{listing}?Revision={repository.revision}&Recursive=true", file.name, "Path")
    return _as_listed(entry, file, url, repository)


def _as_listed(entry: Mapping[str, Any], file: ReleasedFile, url: str, repository: Repository) -> Remote:
    """Return `file` with the size and checksum of its `entry` in a listing, where the entry has them."""
    size, sha256 = entry.get("Size"), str(entry.get("Sha256") or "").lower()
    if size is not None and not (isinstance(size, int) and 0 <= size <= file.limit_bytes):
        raise SourceFailed(f"{file.name} has {str(size)[:20]} bytes there, not at most {file.limit_bytes}")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise SourceFailed("its list of files cannot be read")
    version = f"sha256 {sha256}" if sha256 else f"modelscope {repository.revision} {size}"
    return Remote(file.name, url, file.limit_bytes, version, size, sha256)


def _entry(listing: str, name: str, key: str) -> Mapping[str, Any]:
    """Return the entry of the file `name`, which stands at `key` of it, in the list of files at `listing`."""
    try:
        data = json.loads(_read_listing(listing))["Data"]
        entries = data["Files"] if isinstance(data, dict) else data
        found = [entry for entry in entries if entry[key] == name]
        if found and not isinstance(found[0], dict):
            raise TypeError("an entry has no fields")
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise SourceUnreachable(f"it does not answer ({reason_of(error)})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SourceFailed("its list of files cannot be read") from None
    if not found:
        raise SourceFailed(f"it has no {name}")
    return dict(found[0])


def _read_listing(url: str) -> bytes:
    """Return the body at `url`. Raises SourceFailed when it takes longer than LISTING_LIMIT_S or is too long."""
    ends_s = time.monotonic() + LISTING_LIMIT_S
    text = b""
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, timeout=(CONNECT_S, SILENCE_S), stream=True) as response:
        if response.status_code != 200:
            failed = SourceUnreachable if response.status_code in TRANSIENT else SourceFailed
            raise failed(f"its list of files: HTTP {response.status_code}")
        while chunk := response.raw.read1(CHUNK_BYTES):
            text += chunk
            if len(text) > LISTING_LIMIT_BYTES:
                raise SourceFailed("its list of files is too long")
            if time.monotonic() > ends_s:
                raise SourceUnreachable("its list of files does not arrive")
    return text
