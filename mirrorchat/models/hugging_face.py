"""The Hugging Face hub as a source of models, with the settings of its own library."""

import os
from pathlib import Path
from typing import Any

from mirrorchat.errors import SourceFailed, SourceUnreachable
from mirrorchat.models.download import TRANSIENT, Remote, check_online, download, known_remote, sha256_of
from mirrorchat.models.manifest import Release, ReleasedFile, Repository

HUB_ENDPOINT = "https://huggingface.co"
HUB_MIRROR = "https://hf-mirror.com"


def hub_address() -> str:
    """Return the address of the hub. HF_ENDPOINT selects another one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB_ENDPOINT


class HuggingFace:
    """The Hugging Face hub, with the settings of its own library: HF_ENDPOINT, HF_HOME, the token, the offline mode.

    The library finds the address and checksum of a file. `download` fetches the bytes, because the library discards a
    partial transfer.
    """

    name = "huggingface"

    @property
    def address(self) -> str:
        """Return the address of the hub."""
        return hub_address()

    def files(self, release: Release) -> tuple[ReleasedFile, ...]:
        """Return the files of `release` that should be there."""
        return release.files_in(release.hugging_face)

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`, from the first repository that has it, or the local cache of the hub."""
        if (folder / file.name).is_file():
            return
        failures: dict[str, str] = {}
        for repository in (release.hugging_face, *release.hub_copies):
            try:
                return self._fetch_from(repository, file, folder)
            except SourceUnreachable:
                raise  # the other repositories have the same host
            except SourceFailed as error:
                failures[repository.name] = str(error)
        reasons = set(failures.values())
        each = [f"{name}: {reason}" for name, reason in failures.items()]
        raise SourceFailed("; ".join(each if len(reasons) > 1 else reasons))

    def _fetch_from(self, repository: Repository, file: ReleasedFile, folder: Path) -> None:
        try:
            import huggingface_hub
            from huggingface_hub import constants
        except ImportError:
            self._fetch_without_library(repository, file, folder)
            return
        cached = huggingface_hub.try_to_load_from_cache(repository.name, file.name, revision=repository.revision)
        if isinstance(cached, str):
            _link_cached(Path(cached), file, folder)
        elif constants.is_offline_mode():
            raise SourceFailed("HF_HUB_OFFLINE is set")
        else:
            download(_remote(repository, file), folder)

    def _fetch_without_library(self, repository: Repository, file: ReleasedFile, folder: Path) -> None:
        """Download a file whose checksum is known: the library, of the extra `full`, is not needed for it."""
        if not file.sha256:
            raise SourceFailed("the package huggingface_hub is not installed")
        check_online()
        url = f"{self.address}/{repository.name}/resolve/{repository.revision}/{file.name}"
        download(known_remote(file, url), folder)


def _link_cached(cached: Path, file: ReleasedFile, folder: Path) -> None:
    """Put a link to a file of the hub's cache into `folder`. Raises SourceFailed if it is not the released file."""
    if file.sha256 and sha256_of(cached) != file.sha256:
        raise SourceFailed(f"{file.name} in the cache is not the released file")
    (folder / file.name).symlink_to(cached)


def _remote(repository: Repository, file: ReleasedFile) -> Remote:
    import huggingface_hub
    from huggingface_hub.utils._headers import build_hf_headers

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
        version=f"sha256 {file.sha256}" if file.sha256 else f"{metadata.commit_hash} {etag}",
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
        status = error.response.status_code if error.response is not None else 0
        failed = SourceUnreachable if status in TRANSIENT else SourceFailed
        raise failed(f"{file.name}: {f'HTTP {status}' if status else 'an error'}") from None
    except ImportError as error:  # a SOCKS proxy needs one more package
        raise SourceFailed(f"the proxy cannot be used: {error}") from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise SourceUnreachable(f"it does not answer ({type(error).__name__})") from None
