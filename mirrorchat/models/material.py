"""What a model is installed from: fetched from the first source that works, or carried in; checked and unpacked."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.errors import InstallError
from mirrorchat.models.archive import unpack
from mirrorchat.models.download import sha256_of
from mirrorchat.models.manifest import Engine, Release
from mirrorchat.models.progress import size_text
from mirrorchat.models.sources import Source, carried_in
from mirrorchat.models.store import ASIDE_PREFIX, DOWNLOADS, FileRecord, describe, faults, read_record

WENET_FILES = ("train.yaml", "units.txt", "global_cmvn", "final.pt", "final.safetensors", "final.zip")
XTTS_FILES = (
    "config.json",
    "vocab.json",
    "model.pth",
    "model.safetensors",
    "speakers_xtts.pth",
    "speakers_xtts.safetensors",
)
CARRIED_IN = "carried in"
MARGIN_BYTES = 50_000_000  # left free on the disk

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """How a release is to be installed. `place` holds what was carried in; without one it is fetched from `sources`.

    `replace` lets it take the place of what is in its folder, `changed` lets what was carried in differ from what is
    published, and `keep_original` keeps the released weights beside the converted ones.
    """

    release: Release
    licence_accepted: str
    sources: Sequence[Source] = ()
    place: Path | None = None
    replace: bool = False
    changed: bool = False
    keep_original: bool = False


@dataclass(frozen=True)
class Material:
    """What to install from: a folder with the released files, where they come from, and the records of them."""

    folder: Path
    source: str
    released: tuple[FileRecord, ...]


@contextmanager
def material(request: Request, models_dir: Path, say: Say) -> Iterator[Material]:
    """Yield what to install from; what was unpacked for it goes away at the end of the block."""
    with ExitStack() as stack:
        if request.place:
            yield _carried_material(request, request.place, models_dir, stack)
            return
        failures: list[str] = []
        for source in request.sources:
            _check_room_to_fetch(request.release, source, models_dir)
            try:
                found = _fetched_material(request.release, source, models_dir, stack, say)
            except InstallError as error:
                say(f"{request.release.name}: {source.name}: {error}")
                failures.append(f"{source.name}: {error}")
            else:
                yield found
                return
        raise InstallError(
            f"{request.release.name} could not be fetched ({'; '.join(failures)}); run the command again to go on "
            "where it broke off, or carry the files in with --from"
        )


def _fetched_material(release: Release, source: Source, models_dir: Path, stack: ExitStack, say: Say) -> Material:
    """Fetch, check and unpack what `source` has of a release. What turns out to be wrong is not kept."""
    folder = _download_folder(release, source, models_dir)
    say(f"{release.name}: fetching {size_text(_left_to_fetch(release, folder))} from {source.name}")
    for file in release.files:
        source.fetch(release, file, folder)
    try:
        released = describe(folder, [file.name for file in release.files])
        _check_released(release, released)
        if release.is_archive:
            unpacked = _unpack(release, folder / release.files[0].name, models_dir, stack)
            return Material(unpacked, source.name, released)
        return Material(folder, source.name, released)
    except InstallError:
        shutil.rmtree(folder)
        raise


def _carried_material(request: Request, place: Path, models_dir: Path, stack: ExitStack) -> Material:
    found = carried_in(request.release, place)
    if found.is_dir():
        return Material(found, CARRIED_IN, _check_carried(request, found))
    check_room(models_dir, 2 * request.release.installed_bytes)
    archive = FileRecord(found.name, found.stat().st_size, sha256_of(found))
    unpacked = _unpack(request.release, found, models_dir, stack)
    _check_carried(request, unpacked)
    return Material(unpacked, CARRIED_IN, (archive,))


def _unpack(release: Release, archive: Path, models_dir: Path, stack: ExitStack) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=ASIDE_PREFIX, dir=models_dir)))
    names = WENET_FILES if release.engine is Engine.WENET else XTTS_FILES
    unpack(archive, folder, names, release.unpacked_limit_bytes)
    return folder


def _download_folder(release: Release, source: Source, models_dir: Path) -> Path:
    folder = models_dir / DOWNLOADS / release.name / source.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _left_to_fetch(release: Release, folder: Path) -> int:
    return max(0, release.download_bytes - sum(path.stat().st_size for path in folder.iterdir()))


def _check_room_to_fetch(release: Release, source: Source, models_dir: Path) -> None:
    """Raise InstallError when what is still to fetch, unpacked and converted, does not fit on the disk."""
    left = _left_to_fetch(release, _download_folder(release, source, models_dir))
    check_room(models_dir, left + release.installed_bytes * (2 if release.is_archive else 1))


def _check_released(release: Release, found: Sequence[FileRecord]) -> None:
    """Raise InstallError when a file has another checksum than the one that is known of it."""
    known = {file.name: file.sha256 for file in release.files if file.sha256}
    for record in found:
        if known.get(record.name, record.sha256) != record.sha256:
            raise InstallError(
                f"{record.name} is not the released file: its SHA-256 is {record.sha256}, not {known[record.name]}"
            )


def _check_carried(request: Request, place: Path) -> tuple[FileRecord, ...]:
    """Return the records of the released files in a folder that was carried in.

    Raises InstallError when a file is damaged, or not what was published.
    """
    release = request.release
    record = read_record(place)
    if record and record.name == release.name:  # a folder that this command has made, on another machine
        if found := faults(place, record):
            raise InstallError(f"{place}: {'; '.join(found)}")
        return record.released
    names = WENET_FILES if release.engine is Engine.WENET else XTTS_FILES
    released = describe(place, [name for name in names if (place / name).is_file()])
    if not request.changed:
        try:
            _check_released(release, released)
        except InstallError as error:
            raise InstallError(f"{error}; --allow-changed takes it, if that is meant") from None
    return released


def check_room(models_dir: Path, needed_bytes: int) -> None:
    """Raise InstallError when `needed_bytes` would not leave MARGIN_BYTES free."""
    free = shutil.disk_usage(models_dir).free
    if needed_bytes + MARGIN_BYTES > free:
        raise InstallError(
            f"{models_dir} has {size_text(free)} free, and {size_text(needed_bytes + MARGIN_BYTES)} are needed"
        )
