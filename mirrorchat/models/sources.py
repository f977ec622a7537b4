"""Where released models come from: Hugging Face, ModelScope, or a folder or archive that was carried in."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3

from mirrorchat.errors import InstallError, SourceFailed
from mirrorchat.models.download import CHUNK_BYTES, CONNECT_S, SILENCE_S, Remote, download
from mirrorchat.models.manifest import Release, ReleasedFile

MODELSCOPE_ENDPOINT = "https://modelscope.cn"
LISTING_LIMIT_BYTES = 4_000_000
LISTING_LIMIT_S = 60.0


class Source(Protocol):
    """A place that has releases. `name` is what `--source` takes."""

    name: str

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`, going on with what an earlier call left there. Raises SourceFailed."""


class HuggingFace:
    """The hub, through its own library: its endpoint, token, cache and offline mode (HF_ENDPOINT, HF_HOME, ...).

    The library says where a file is and which content it has; the bytes are fetched by `download`, since the library
    throws away what a broken transfer had brought.
    """

    name = "huggingface"

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`: from the hub's cache on this machine, else over the network."""
        if (folder / file.name).is_file():
            return
        try:
            import huggingface_hub
            from huggingface_hub import constants
        except ImportError:
            raise SourceFailed("the package huggingface_hub is not installed") from None
        repository = release.hugging_face
        cached = huggingface_hub.try_to_load_from_cache(repository.name, file.name, revision=repository.revision)
        if isinstance(cached, str):
            (folder / file.name).symlink_to(cached)
        elif constants.is_offline_mode():
            raise SourceFailed("HF_HUB_OFFLINE is set")
        else:
            download(self._remote(release, file), folder)

    def _remote(self, release: Release, file: ReleasedFile) -> Remote:
        import huggingface_hub
        from huggingface_hub.utils._headers import build_hf_headers

        repository = release.hugging_face
        url = huggingface_hub.hf_hub_url(repository.name, file.name, revision=repository.revision)
        metadata = _hub_metadata(file, url)
        etag = metadata.etag or ""
        is_sha256 = len(etag) == 64 and all(digit in "0123456789abcdef" for digit in etag)
        if file.sha256 and is_sha256 and etag != file.sha256:
            raise SourceFailed(f"{file.name} is not the released one there: its SHA-256 is {etag}")
        return Remote(
            name=file.name,
            url=url,  # and not the place it leads to: that one's signature ends while a slow connection still fetches
            limit_bytes=file.limit_bytes,
            version=f"{metadata.commit_hash} {etag}",
            size_bytes=metadata.size,
            sha256=file.sha256 or (etag if is_sha256 else ""),
            headers={name: value for name, value in build_hf_headers().items() if isinstance(value, str)},
        )


def _hub_metadata(file: ReleasedFile, url: str) -> Any:
    """Return what the hub says about the file at `url`; once more, patiently, when it was busy."""
    import httpx2
    from huggingface_hub import errors, get_hf_file_metadata

    try:
        try:
            return get_hf_file_metadata(url)
        except errors.HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in (408, 429, 500, 502, 503, 504):
                raise
            return get_hf_file_metadata(url, retry_on_errors=True)
    except errors.HfHubHTTPError as error:
        status = f"HTTP {error.response.status_code}" if error.response is not None else "an error"
        raise SourceFailed(f"{file.name}: {status}") from None
    except ImportError as error:  # for a SOCKS proxy a further package is needed
        raise SourceFailed(f"the proxy cannot be used: {error}") from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise SourceFailed(f"it does not answer ({type(error).__name__})") from None


class ModelScope:
    """ModelScope over plain HTTPS. MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN name another host."""

    name = "modelscope"

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`. Its checksum is enforced where it is known; ModelScope gives none."""
        if (folder / file.name).is_file():
            return
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise SourceFailed("HF_HUB_OFFLINE is set")
        repository = release.modelscope
        if repository.is_dataset:
            url = _dataset_url(repository.name, file.name)
        else:
            url = f"{modelscope_endpoint()}/models/{repository.name}/resolve/{repository.revision}/{file.name}"
        size = file.size_bytes if file.sha256 else None
        download(
            Remote(file.name, url, file.limit_bytes, f"modelscope {repository.revision}", size, file.sha256), folder
        )


def modelscope_endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """Return ModelScope's address. Its own client takes MODELSCOPE_DOMAIN without a scheme."""
    named = environ.get("MODELSCOPE_ENDPOINT") or environ.get("MODELSCOPE_DOMAIN") or MODELSCOPE_ENDPOINT
    return (named if "://" in named else f"https://{named}").rstrip("/")


def _dataset_url(repository: str, name: str) -> str:
    """Return the present address of a file in a data set: its listing holds one that is signed for a while."""
    listing = f"{modelscope_endpoint()}/api/v1/datasets/{repository}/oss/tree"
    try:
        text = _read_listing(listing)
        entries = json.loads(text)["Data"]
        urls = [str(entry["Url"]) for entry in entries if entry["Key"] == name]
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise SourceFailed(f"it does not answer ({type(error).__name__})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SourceFailed("its list of files cannot be read") from None
    if not urls:
        raise SourceFailed(f"it has no {name}")
    if urlsplit(urls[0]).scheme not in ("https", urlsplit(listing).scheme):
        raise SourceFailed(f"its address of {name} is not safe")
    return urls[0]


def _read_listing(url: str) -> bytes:
    """Return the body at `url`, which must come whole within LISTING_LIMIT_S and be no longer than its limit."""
    ends_s = time.monotonic() + LISTING_LIMIT_S
    text = b""
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, timeout=(CONNECT_S, SILENCE_S), stream=True) as response:
        if response.status_code != 200:
            raise SourceFailed(f"its list of files: HTTP {response.status_code}")
        while chunk := response.raw.read1(CHUNK_BYTES):
            text += chunk
            if len(text) > LISTING_LIMIT_BYTES:
                raise SourceFailed("its list of files is too long")
            if time.monotonic() > ends_s:
                raise SourceFailed("its list of files does not come")
    return text


SOURCES: Mapping[str, Callable[[], Source]] = {HuggingFace.name: HuggingFace, ModelScope.name: ModelScope}


def carried_in(release: Release, place: Path) -> Path:
    """Return the folder or archive at or in `place` that holds `release`.

    `place` may be it, or a folder with those of several releases: in folders named after the model, or in the
    archives that were published. Raises InstallError when it is not there.
    """
    if not place.exists():
        raise InstallError(f"{place} does not exist")
    archives = [file.name for file in release.files if release.is_archive]
    archives += [name.replace("_exp.tar.gz", "_libtorch.tar.gz") for name in archives]
    choices = [place / release.name, *(place / name for name in archives), place / release.folder]
    found = next((choice for choice in choices if choice.exists()), place)
    return found
