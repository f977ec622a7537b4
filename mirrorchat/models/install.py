"""The installation of a model: a temporary folder with its files, converted if need be, replaces the old model."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mirrorchat.errors import InstallError
from mirrorchat.models.gather import absent_files, present_choice
from mirrorchat.models.manifest import Engine, Release
from mirrorchat.models.source_files import FILE_NAMES, InstallRequest, Report, SourceFiles, check_room, source_files
from mirrorchat.models.store import (
    ASIDE_PREFIX,
    BY_HAND,
    DAMAGED,
    Record,
    describe,
    installed_name,
    now_text,
    put_in_place,
    remove_downloads,
    sync_to_disk,
    write_record,
)

RUNTIME_FILES = ("final.zip", "units.txt")


def needs_installation(request: InstallRequest, models_dir: Path) -> bool:
    """Return False when the release is installed and is not to be replaced.

    Raises InstallError when the release's folder holds another model that is not to be replaced.
    """
    release, folder = request.release, models_dir / request.release.folder
    present = installed_name(folder) if not request.replace else ""
    if present and present != release.name:
        contents = {BY_HAND: f"{folder} was filled by hand", DAMAGED: f"the record in {folder} is damaged"}.get(
            present, f"{present} is in {folder}"
        )
        raise InstallError(f"{contents}: --replace installs {release.name} in its place")
    return not present


def install(request: InstallRequest, models_dir: Path, report: Report) -> Record:
    """Install a release into `models_dir`, which the caller has `locked`, and return its record.

    Raises InstallError, ConfigurationError or ModelNotInstalled when files are damaged or do not belong together. The
    model that was installed before then stays as it was, and the next call resumes the download.
    """
    release = request.release
    try:
        with source_files(request, models_dir, report) as found:
            check_room(models_dir, release.installed_bytes * (2 if request.keep_original else 1))
            if release.is_converted:
                report(f"{release.name}: converting")
            with tempfile.TemporaryDirectory(prefix=ASIDE_PREFIX, dir=models_dir) as aside:
                made = Path(aside) / release.folder
                made.mkdir()
                _convert(release, found.folder, made)
                if request.keep_original:
                    _copy_present(("model.pth", "speakers_xtts.pth", "final.pt"), found.folder, made)
                record = _record(request, made, found)
                write_record(made, record)
                put_in_place(made, models_dir / release.folder)
        remove_downloads(release, models_dir)
    except OSError as error:
        raise InstallError(f"{release.name} could not be written: {error}") from error
    return record


def _record(request: InstallRequest, made: Path, found: SourceFiles) -> Record:
    return Record(
        name=request.release.name,
        source=found.source,
        installed_at=now_text(),
        licence_accepted=request.licence_accepted,
        files=describe(made, [path.name for path in made.iterdir()]),
        released=found.released,
    )


def _convert(release: Release, source: Path, made: Path) -> None:
    """Write the files that the server loads at its start, without a pickle, into the folder `made`."""
    if not release.is_converted:
        _copy_released(release, source, made)
    elif release.engine is Engine.XTTS:
        _convert_xtts(source, made)
    elif (source / "final.pt").is_file() or (source / "final.safetensors").is_file():
        from mirrorchat.models.convert import convert_wenet_checkpoint

        convert_wenet_checkpoint(source, made)
    elif (source / "final.zip").is_file():
        _copy_runtime(source, made)
    else:
        raise InstallError(f"there is no {release.title} to install: it lacks final.pt")


def _copy_released(release: Release, source: Path, made: Path) -> None:
    """Copy the files of a release that is not converted. Raises InstallError when one is missing."""
    if absent := absent_files(release, source):
        raise InstallError(f"there is no {release.title} to install: it lacks {absent[0].name}")
    present = [file for choices in release.choices if (file := present_choice(choices, source))]
    _copy_present([file.name for file in present], source, made)


def _convert_xtts(source: Path, made: Path) -> None:
    if not (source / "model.safetensors").is_file():
        from mirrorchat.models.convert import convert_checkpoint

        convert_checkpoint(source, made)
        return
    from mirrorchat.xtts.checkpoint import check_files, read_safetensors

    check_files(source)
    read_safetensors(source / "model.safetensors")
    _copy_present([name for name in FILE_NAMES[Engine.XTTS] if not name.endswith(".pth")], source, made)


def _copy_runtime(source: Path, made: Path) -> None:
    from mirrorchat.wenet.checkpoint import read_tokens

    if not (source / "units.txt").is_file():
        raise InstallError("there is no WeNet runtime model to install: it lacks units.txt")
    read_tokens(source / "units.txt")
    if not zipfile.is_zipfile(source / "final.zip"):
        raise InstallError("final.zip is damaged or no WeNet runtime model")
    _copy_present(RUNTIME_FILES, source, made)


def _copy_present(names: Sequence[str], source: Path, made: Path) -> None:
    """Copy those files of `names` that `source` has."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, made / name)
            sync_to_disk(made / name)
