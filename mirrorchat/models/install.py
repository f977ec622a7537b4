"""The installation of a model: fetched or carried in, checked, converted aside, and renamed into place when whole."""

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from mirrorchat.errors import InstallError
from mirrorchat.models.manifest import Engine, Release
from mirrorchat.models.material import XTTS_FILES, Material, Request, Say, check_room, material
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
    write_record,
)

RUNTIME_FILES = ("final.zip", "units.txt")


def check_place_is_free(request: Request, models_dir: Path) -> bool:
    """Tell whether there is something to install: not when it is there. Raises InstallError when another one is."""
    release, folder = request.release, models_dir / request.release.folder
    present = installed_name(folder) if not request.replace else ""
    if present and present != release.name:
        what = {BY_HAND: f"{folder} was filled by hand", DAMAGED: f"the record in {folder} is damaged"}.get(
            present, f"{present} is in {folder}"
        )
        raise InstallError(f"{what}: --replace installs {release.name} in its place")
    return not present


def install(request: Request, models_dir: Path, say: Say) -> Record:
    """Install a release into `models_dir`, which the caller has `locked`, and return its record.

    Raises InstallError, or ConfigurationError or ModelNotInstalled for files that are damaged or do not belong
    together; then what was installed before is as it was, and what was fetched is gone on with next time.
    """
    release = request.release
    try:
        with material(request, models_dir, say) as found:
            check_room(models_dir, release.installed_bytes * (2 if request.keep_original else 1))
            say(f"{release.name}: converting")
            with tempfile.TemporaryDirectory(prefix=ASIDE_PREFIX, dir=models_dir) as aside:
                made = Path(aside) / release.folder
                made.mkdir()
                _make(release, found.folder, made)
                if request.keep_original:
                    _keep_original(found.folder, made)
                record = _record(request, made, found)
                write_record(made, record)
                put_in_place(made, models_dir / release.folder)
        remove_downloads(release, models_dir)
    except OSError as error:
        raise InstallError(f"{release.name} could not be written: {error}") from error
    return record


def _record(request: Request, made: Path, found: Material) -> Record:
    names = [path.name for path in made.iterdir()]
    return Record(
        name=request.release.name,
        source=found.source,
        installed_at=now_text(),
        licence_accepted=request.licence_accepted,
        files=describe(made, names),
        released=found.released,
    )


# What to make of it


def _make(release: Release, source: Path, made: Path) -> None:
    """Write what is loaded at the server's start into the folder `made`: no pickle."""
    if release.engine is Engine.XTTS:
        _make_xtts(release, source, made)
    elif (source / "final.pt").is_file() or (source / "final.safetensors").is_file():
        from mirrorchat.models.convert import convert_wenet_checkpoint

        convert_wenet_checkpoint(source, made)
    elif (source / "final.zip").is_file():
        _copy_runtime(source, made)
    else:
        raise InstallError(f"there is no {release.title} to install: it lacks final.pt")


def _make_xtts(release: Release, source: Path, made: Path) -> None:
    if not (source / "model.safetensors").is_file():
        from mirrorchat.models.convert import convert_checkpoint

        convert_checkpoint(source, made)
        return
    from mirrorchat.xtts.checkpoint import check_files, read_safetensors

    check_files(source)
    read_safetensors(source / "model.safetensors")
    for name in XTTS_FILES:
        if (source / name).is_file() and not name.endswith(".pth"):
            _copy(source / name, made / name)


def _copy_runtime(source: Path, made: Path) -> None:
    from mirrorchat.wenet.checkpoint import read_units

    if not (source / "units.txt").is_file():
        raise InstallError("there is no WeNet runtime model to install: it lacks units.txt")
    read_units(source / "units.txt")
    if not zipfile.is_zipfile(source / "final.zip"):
        raise InstallError("final.zip is damaged or no WeNet runtime model")
    for name in RUNTIME_FILES:
        _copy(source / name, made / name)


def _keep_original(source: Path, made: Path) -> None:
    for name in ("model.pth", "speakers_xtts.pth", "final.pt"):
        if (source / name).is_file():
            _copy(source / name, made / name)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
