"""The files that a model is made from: downloaded from a source or taken from an offline copy, checked and unpacked."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.errors import InstallError, SourceFailed, SourceUnreachable
from mirrorchat.models.archive import unpack
from mirrorchat.models.download import sha256_of
from mirrorchat.models.gather import gather, present_choice
from mirrorchat.models.manifest import Engine, Release, ReleasedFile
from mirrorchat.models.progress import size_text
from mirrorchat.models.sources import Source, find_offline, not_downloaded
from mirrorchat.models.store import ASIDE_PREFIX, DOWNLOADS, FileRecord, describe, faults, read_record

FILE_NAMES: Mapping[Engine, Sequence[str]] = {
    Engine.WENET: ("train.yaml", "units.txt", "global_cmvn", "final.pt", "final.safetensors", "final.zip"),
    Engine.XTTS: (
        "config.json",
        "vocab.json",
        "model.pth",
        "model.safetensors",
        "speakers_xtts.pth",
        "speakers_xtts.safetensors",
    ),
    Engine.WHISPER: ("model.bin", "tokenizer.json", "vocabulary.txt", "config.json"),
    Engine.KOKORO: ("kokoro-v1.0.int8.onnx", "voices-v1.0.bin", "voices_ja.npz"),
}
OFFLINE = "offline install"  # the source in the record of a model that was not downloaded
MARGIN_BYTES = 50_000_000  # stays free on the disk

Report = Callable[[str], None]


@dataclass(frozen=True)
class InstallRequest:
    """A release to install, and how.

    `offline_path` is a folder or archive to install from; without one the files are downloaded from `sources`.
    `replace` permits overwriting the folder's present model. `allow_changed` permits offline files that differ from
    the published ones. `keep_original` keeps the released weights beside the converted ones.
    """

    release: Release
    licence_accepted: str
    sources: Sequence[Source] = ()
    offline_path: Path | None = None
    replace: bool = False
    allow_changed: bool = False
    keep_original: bool = False


@dataclass(frozen=True)
class SourceFiles:
    """A `folder` with a release's files, the name of their `source`, and the records of the `released` files."""

    folder: Path
    source: str
    released: tuple[FileRecord, ...]


@contextmanager
def source_files(request: InstallRequest, models_dir: Path, report: Report) -> Iterator[SourceFiles]:
    """Yield the checked and unpacked files of a release, and remove what was unpacked when the block ends.

    `report` is called with each step. Raises InstallError when no source has the files, or the disk is too small.
    """
    with ExitStack() as stack:
        if request.offline_path:
            yield _offline_files(request, request.offline_path, models_dir, stack)
            return
        if not request.release.is_converted:
            yield _gathered_files(request, models_dir, report)
            return
        failures: list[tuple[Source, InstallError]] = []
        for source in request.sources:
            if not source.files(request.release):
                continue
            _check_room_to_download(request.release, source, models_dir)
            try:
                found = _downloaded_files(request.release, source, models_dir, stack, report)
            except InstallError as error:
                report(f"{request.release.name}: {source.name}: {error}")
                failures.append((source, error))
            else:
                yield found
                return
        raise not_downloaded(request.release.name, failures)


def _downloaded_files(
    release: Release, source: Source, models_dir: Path, stack: ExitStack, report: Report
) -> SourceFiles:
    """Download, check and unpack a release. Files that prove wrong are deleted."""
    folder = _download_folder(release, source, models_dir)
    report(f"{release.name}: downloading {size_text(_left_to_download(release, folder))} from {source.name}")
    files = source.files(release)
    if unknown := [file.name for file in files if not file.sha256]:
        report(
            f"{release.name}: no SHA-256 of {', '.join(unknown)} of {source.name} is known here: "
            f"only what {source.name} says about it can be checked"
        )
    names = _fetch_all(release, source, folder, report)
    try:
        released = describe(folder, names)
        _check_released(files, released)
        if release.is_archive:
            unpacked = _unpack(release, folder / release.files[0].name, models_dir, stack)
            return SourceFiles(unpacked, source.name, released)
        return SourceFiles(folder, source.name, released)
    except InstallError:
        shutil.rmtree(folder)
        raise


def _fetch_all(release: Release, source: Source, folder: Path, report: Report) -> list[str]:
    """Download what `source` has of `release`, and return the names of the files. An optional one may fail."""
    there = {file.name: file for file in source.files(release)}
    fetched: list[str] = []
    for file in release.files:
        try:
            if file.name not in there:
                raise SourceFailed(f"it has no {file.name}")
            source.fetch(release, there[file.name], folder)
            fetched.append(file.name)
        except SourceFailed as error:
            if not file.is_optional or isinstance(error, SourceUnreachable):
                raise
            report(f"{release.name}: {source.name}: {error}; the model works without it")
    return fetched


def _gathered_files(request: InstallRequest, models_dir: Path, report: Report) -> SourceFiles:
    """Gather the files of a release that is not converted. Files that prove wrong are deleted."""
    release = request.release
    folder = models_dir / DOWNLOADS / release.name / "files"
    folder.mkdir(parents=True, exist_ok=True)
    # a wheel, the file that it holds, and its copy in place may exist at once
    check_room(models_dir, _left_to_download(release, folder) + 2 * release.installed_bytes)
    source = gather(release, request.sources, folder, report)
    present = [file for choices in release.choices if (file := present_choice(choices, folder))]
    for file in (file for file in release.files if file not in present):
        report(f"{release.name}: {file.name} could not be had, and a smaller file serves; --replace tries it again")
    try:
        released = describe(folder, [file.name for file in present])
        _check_released(present, released)
    except InstallError:
        shutil.rmtree(folder)
        raise
    return SourceFiles(folder, source, released)


def _offline_files(request: InstallRequest, path: Path, models_dir: Path, stack: ExitStack) -> SourceFiles:
    found = find_offline(request.release, path)
    if found.is_dir():
        return SourceFiles(found, OFFLINE, _check_offline(request, found))
    check_room(models_dir, 2 * request.release.installed_bytes)
    archive = FileRecord(found.name, found.stat().st_size, sha256_of(found))
    _check_unchanged(request, [archive])
    unpacked = _unpack(request.release, found, models_dir, stack)
    _check_offline(request, unpacked)
    return SourceFiles(unpacked, OFFLINE, (archive,))


def _unpack(release: Release, archive: Path, models_dir: Path, stack: ExitStack) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=ASIDE_PREFIX, dir=models_dir)))
    unpack(archive, folder, FILE_NAMES[release.engine], release.unpacked_limit_bytes)
    return folder


def _download_folder(release: Release, source: Source, models_dir: Path) -> Path:
    folder = models_dir / DOWNLOADS / release.name / source.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _left_to_download(release: Release, folder: Path) -> int:
    return max(0, release.download_bytes - sum(path.stat().st_size for path in folder.iterdir()))


def _check_room_to_download(release: Release, source: Source, models_dir: Path) -> None:
    """Raise InstallError when the disk cannot hold the rest of the download, the unpacked and the converted files."""
    left = _left_to_download(release, _download_folder(release, source, models_dir))
    check_room(models_dir, left + release.installed_bytes * (2 if release.is_archive else 1))


def _check_released(files: Sequence[ReleasedFile], found: Sequence[FileRecord]) -> None:
    """Raise InstallError when the checksum of a file in `found` differs from the published one in `files`."""
    known = {file.name: file.sha256 for file in files if file.sha256}
    for record in found:
        if known.get(record.name, record.sha256) != record.sha256:
            raise InstallError(
                f"{record.name} is not the released file: its SHA-256 is {record.sha256}, not {known[record.name]}"
            )


def _check_offline(request: InstallRequest, folder: Path) -> tuple[FileRecord, ...]:
    """Return the records of the released files in an offline copy.

    Raises InstallError when a file is damaged, or differs from the published one without `allow_changed`.
    """
    release = request.release
    record = read_record(folder)
    if record and record.name == release.name:  # this command installed the folder on another computer
        if found := faults(folder, record):
            raise InstallError(f"{folder}: {'; '.join(found)}")
        return record.released
    released = describe(folder, [name for name in FILE_NAMES[release.engine] if (folder / name).is_file()])
    _check_unchanged(request, released)
    return released


def _check_unchanged(request: InstallRequest, found: Sequence[FileRecord]) -> None:
    """Raise InstallError when an offline file differs from the published one, unless this is allowed."""
    if not request.allow_changed:
        try:
            _check_released([file for choices in request.release.choices for file in choices], found)
        except InstallError as error:
            raise InstallError(f"{error}; --allow-changed installs it nevertheless") from None


def check_room(models_dir: Path, needed_bytes: int) -> None:
    """Raise InstallError when `needed_bytes` would not leave MARGIN_BYTES free."""
    free = shutil.disk_usage(models_dir).free
    if needed_bytes + MARGIN_BYTES > free:
        raise InstallError(
            f"{models_dir} has {size_text(free)} free, and {size_text(needed_bytes + MARGIN_BYTES)} are needed"
        )
