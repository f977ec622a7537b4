"""The sources of released models: Hugging Face, ModelScope, GitHub's releases, and local folders and archives."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mirrorchat.errors import InstallError, SourceUnreachable
from mirrorchat.models.download import check_online, download, known_remote
from mirrorchat.models.hugging_face import HUB_MIRROR, HuggingFace
from mirrorchat.models.manifest import Release, ReleasedFile
from mirrorchat.models.modelscope import ModelScope
from mirrorchat.models.package_index import PackageIndex

GITHUB_ENDPOINT = "https://github.com"
GITHUB_MIRROR = "https://ghfast.top/https://github.com"


class Source(Protocol):
    """A host of releases. `name` is the value for `--source`, `address` its URL, "" if there is none to ask."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    def files(self, release: Release) -> tuple[ReleasedFile, ...]:
        """Return the files of `release` that should be there, with their checksums where these are known."""
        ...

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`, resuming a partial download. Raises SourceFailed."""


class GitHub:
    """The release pages of GitHub. GITHUB_ENDPOINT selects another address, such as that of a mirror."""

    name = "github"

    @property
    def address(self) -> str:
        """Return the address of GitHub."""
        return os.environ.get("GITHUB_ENDPOINT", "").rstrip("/") or GITHUB_ENDPOINT

    def files(self, release: Release) -> tuple[ReleasedFile, ...]:
        """Return the files of `release` that should be there."""
        return release.files_in(release.github)

    def fetch(self, release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file`, whose checksum is known, into `folder`."""
        if (folder / file.name).is_file():
            return
        check_online()
        url = f"{self.address}/{release.github.name}/releases/download/{release.github.revision}/{file.name}"
        download(known_remote(file, url), folder)


class GitHubMirror(GitHub):
    """A public mirror of GitHub. It is not asked when GITHUB_ENDPOINT has selected one."""

    name = "github-mirror"

    @property
    def address(self) -> str:
        """Return the address of the mirror."""
        return GITHUB_MIRROR

    def files(self, release: Release) -> tuple[ReleasedFile, ...]:
        """Return the files of `release` that should be there."""
        return () if os.environ.get("GITHUB_ENDPOINT") else super().files(release)


# In the order in which they are asked.
SOURCES: Mapping[str, Callable[[], Source]] = {
    HuggingFace.name: HuggingFace,
    ModelScope.name: ModelScope,
    GitHub.name: GitHub,
    GitHubMirror.name: GitHubMirror,
    PackageIndex.name: PackageIndex,
}


def not_downloaded(what: str, failures: Sequence[tuple[Source, InstallError]]) -> InstallError:
    """Return the error for `what` no source has given: why each failed, and what helps."""
    reasons = "; ".join(f"{source.name}: {error}" for source, error in failures) or "no source has it"
    unreachable = {source.name for source, error in failures if isinstance(error, SourceUnreachable)}
    advice = ["install from local files with --from"]
    if HuggingFace.name in unreachable and not os.environ.get("HF_ENDPOINT"):
        advice.insert(0, f"set HF_ENDPOINT={HUB_MIRROR}, a mirror of Hugging Face")
    if unreachable:
        advice.insert(0, "run the command again to resume the download")
    return InstallError(f"{what} could not be downloaded ({reasons}); {', or '.join(advice)}")


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
