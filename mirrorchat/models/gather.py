"""Gathers the files of a release whose every SHA-256 is known: each from the first source that has it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mirrorchat.errors import InstallError, SourceFailed
from mirrorchat.models.manifest import Release, ReleasedFile
from mirrorchat.models.progress import size_text
from mirrorchat.models.sources import Source, not_downloaded


def gather(release: Release, sources: Sequence[Source], folder: Path, report: Callable[[str], None]) -> str:
    """Put the files of `release` into `folder`, and return the names of the sources that had them.

    A source that fails is asked for nothing more, and the next one goes on. A substitute is taken only from a source
    that does not offer the file itself. Raises InstallError when a file is missing after the last source.
    """
    used: list[str] = []
    failures: list[tuple[Source, InstallError]] = []
    for source in sources:
        requested = _offered(release, source, folder)
        if not requested:
            continue
        report(
            f"{release.name}: downloading {size_text(sum(file.size_bytes for file in requested))} from {source.name}"
        )
        try:
            for file in requested:
                source.fetch(release, file, folder)
                used.append(source.name)
        except SourceFailed as error:
            failures.append((source, error))
            report(f"{release.name}: {source.name}: {error}")
    if missing := absent_files(release, folder):
        raise not_downloaded(f"{release.name}: {missing[0].name}", failures)
    return ", ".join(dict.fromkeys(used)) or "an earlier download"


def absent_files(release: Release, folder: Path) -> list[ReleasedFile]:
    """Return the files of `release` that are not in `folder`, nor one of their substitutes."""
    return [choices[0] for choices in release.choices if present_choice(choices, folder) is None]


def present_choice(choices: Sequence[ReleasedFile], folder: Path) -> ReleasedFile | None:
    """Return the first of `choices` that is in `folder`."""
    return next((file for file in choices if (folder / file.name).is_file()), None)


def _offered(release: Release, source: Source, folder: Path) -> list[ReleasedFile]:
    """Return for each absent file what `source` offers of it: the file itself, else a substitute."""
    there = source.files(release)
    offered = (
        next((choice for choice in (file, *file.substitutes) if choice in there), None)
        for file in absent_files(release, folder)
    )
    return [file for file in offered if file]
