"""The installed models: each has a folder in models_dir, with a record of its files and checksums (installed.json).

The installation writes the record, and `verify` compares the files with it. A folder that was filled by hand has no
record, and the server uses it nevertheless.
"""

import datetime
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mirrorchat.errors import InstallError
from mirrorchat.models.download import sha256_of
from mirrorchat.models.manifest import Release

RECORD_FILE = "installed.json"
LOCK_FILE = ".lock"
DOWNLOADS = ".downloads"
ACCEPTED_FILE = "accepted"  # beside the downloads of a release: the code of its licence, once that is accepted
ASIDE_PREFIX = ".installing-"
REPLACED_PREFIX = ".replaced-"
BY_HAND = "by hand"
DAMAGED = "damaged"


@dataclass(frozen=True)
class FileRecord:
    """The size and SHA-256 (hexadecimal) of a file at the time of its installation."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """The contents of a model's folder: `files`, converted from the `released` files of a `source`."""

    name: str
    source: str
    installed_at: str
    licence_accepted: str
    files: tuple[FileRecord, ...]
    released: tuple[FileRecord, ...]


def describe(folder: Path, names: Iterable[str]) -> tuple[FileRecord, ...]:
    """Read the files `names` in `folder`, and return their records."""
    return tuple(FileRecord(name, (folder / name).stat().st_size, sha256_of(folder / name)) for name in sorted(names))


def now_text() -> str:
    """Return the current time in the format of records."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_record(folder: Path, record: Record) -> None:
    """Write `record` into `folder`, and wait until the disk has stored it."""
    with (folder / RECORD_FILE).open("x", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=2)
        file.write("\n")
    sync_to_disk(folder / RECORD_FILE)


def sync_to_disk(path: Path) -> None:
    """Wait until the disk has stored the file: after a power cut, a renamed file could otherwise be empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_record(folder: Path) -> Record | None:
    """Return the record in `folder`, or None if there is no record. Raises InstallError when it is damaged."""
    path = folder / RECORD_FILE
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            name=str(values["name"]),
            source=str(values["source"]),
            installed_at=str(values["installed_at"]),
            licence_accepted=str(values["licence_accepted"]),
            files=_file_records(values["files"]),
            released=_file_records(values["released"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InstallError(f"{path} is damaged: install the model again with --replace") from error


def _file_records(values: Sequence[Mapping[str, Any]]) -> tuple[FileRecord, ...]:
    records = tuple(FileRecord(str(value["name"]), int(value["size_bytes"]), str(value["sha256"])) for value in values)
    if any(Path(record.name).name != record.name for record in records):
        raise ValueError("a file outside the folder")
    return records


def installed_name(folder: Path) -> str:
    """Return the name of the release in `folder`.

    It is BY_HAND for files without a record, DAMAGED for a damaged record, and empty for an empty folder.
    """
    try:
        record = read_record(folder)
    except InstallError:
        return DAMAGED
    if record:
        return record.name
    return BY_HAND if folder.is_dir() and any(folder.iterdir()) else ""


def faults(folder: Path, record: Record, *, contents: bool = True) -> list[str]:
    """Return a sentence for each recorded file in `folder` that is missing or differs.

    Every file is read completely; without `contents` only the sizes are compared.
    """
    found: list[str] = []
    for file in record.files:
        path = folder / file.name
        if not path.is_file():
            found.append(f"{file.name} is missing")
        elif path.stat().st_size != file.size_bytes:
            found.append(f"{file.name} has {path.stat().st_size} bytes, not {file.size_bytes}")
        elif contents and sha256_of(path) != file.sha256:
            found.append(f"{file.name} has changed: its SHA-256 is not the recorded one")
    return found


def size_on_disk(folder: Path) -> int:
    """Return the total size of the files in `folder`, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0


def remove_model(release: Release, models_dir: Path, *, unrecorded: bool = False) -> None:
    """Remove `release`, and the files of an unfinished installation of it.

    Raises InstallError when it is not installed. Files without a record are removed only with `unrecorded`.
    """
    folder = models_dir / release.folder
    had_downloads = (models_dir / DOWNLOADS / release.name).is_dir()
    present = installed_name(folder)
    if present == release.name or (unrecorded and present in (BY_HAND, DAMAGED)):
        # the rename comes first: a server that starts meanwhile finds no half of a model
        gone = models_dir / f"{ASIDE_PREFIX}removed-{release.folder}"
        folder.rename(gone)
        _discard(gone)
    elif not had_downloads:
        hint = {
            BY_HAND: ": files that were put there by hand are removed with --force",
            DAMAGED: f": its {RECORD_FILE} is damaged; --force removes it nevertheless",
        }.get(present, f": {present} is" if present else "")
        raise InstallError(f"{release.name} is not installed in {folder}{hint}")
    remove_downloads(release, models_dir)


def remove_downloads(release: Release, models_dir: Path) -> None:
    """Remove the downloads of `release`, if there are any."""
    shutil.rmtree(models_dir / DOWNLOADS / release.name, ignore_errors=True)
    with suppress(OSError):  # it is not empty while it has downloads of other releases
        (models_dir / DOWNLOADS).rmdir()


def remember_acceptance(release: Release, models_dir: Path) -> None:
    """Remember until `release` is installed that its licence is accepted."""
    folder = models_dir / DOWNLOADS / release.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ACCEPTED_FILE).write_text(release.licence.code, encoding="ascii")
    except OSError as error:
        raise InstallError(f"{folder} cannot be written: {error.strerror}") from error


def licence_is_accepted(release: Release, models_dir: Path) -> bool:
    """Tell whether the licence of `release` was accepted for an installation that has not ended."""
    try:
        with (models_dir / DOWNLOADS / release.name / ACCEPTED_FILE).open("rb") as file:
            return file.read(100) == release.licence.code.encode()
    except OSError:
        return False


@contextmanager
def locked(models_dir: Path) -> Iterator[None]:
    """Lock `models_dir` against other installations while the block runs, and clean up after a killed one.

    Raises InstallError when another installation is running, or the folder cannot be written.
    """
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        file = (models_dir / LOCK_FILE).open("a")
    except OSError as error:
        raise InstallError(f"{models_dir} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InstallError(f"another `mirrorchat models` is running in {models_dir}: wait until it ends") from None
        _clear(models_dir)
        yield


def _clear(models_dir: Path) -> None:
    for path in models_dir.glob(f"{REPLACED_PREFIX}*"):
        folder = models_dir / path.name.removeprefix(REPLACED_PREFIX)
        if folder.exists():
            _discard(path)
        else:
            path.rename(folder)  # the installation was killed between the two renames of `put_in_place`
    for path in models_dir.glob(f"{ASIDE_PREFIX}*"):
        _discard(path)


def _discard(path: Path) -> None:
    """Remove a folder. If it is a symbolic link to another disk, remove only the link."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def put_in_place(aside: Path, folder: Path) -> None:
    """Rename the finished folder `aside` to `folder`, and then remove the previous one."""
    replaced = folder.parent / f"{REPLACED_PREFIX}{folder.name}"
    if folder.exists() or folder.is_symlink():
        folder.rename(replaced)
    try:
        aside.rename(folder)
    except OSError:
        if replaced.exists():
            replaced.rename(folder)
        raise
    if replaced.exists() or replaced.is_symlink():
        _discard(replaced)
