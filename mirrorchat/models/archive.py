"""Published archives, unpacked without trusting them.

Nothing is written but regular files of known names, into one folder. A path that leads out of the archive, a link, a
device, too many members or too many bytes refuse the archive as a whole. The bytes are counted as they are unpacked,
so that neither a lying header nor a compressed bomb gets past the bound.
"""

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from mirrorchat.errors import InstallError

MEMBERS_LIMIT = 1000
READ_LIMIT_BYTES = 1 << 20  # the longest header that is read at once; files come in shorter pieces
_GZIP_MAGIC = b"\x1f\x8b"


def unpack(archive: Path, folder: Path, names: Collection[str], limit_bytes: int) -> list[str]:
    """Write the files of `archive` (tar, or tar.gz) whose names are in `names` into `folder`; return those found.

    Folders within the archive are left out: WeNet's have one, named after the day of training. Raises InstallError
    when the archive is damaged, holds a name twice, or holds what no model needs; `folder` may then hold some of it.
    """
    try:
        with archive.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            plain: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if packed else file
            bounded = _Bounded(plain, limit_bytes)
            with tarfile.open(fileobj=bounded, mode="r:") as tar:
                found = _unpack_members(tar, folder, names)
            bounded.drain()  # gzip's checksum stands at its end
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeError, ValueError) as error:
        raise InstallError(f"{archive.name} is damaged or no tar archive: {error}") from error
    return found


def _unpack_members(tar: tarfile.TarFile, folder: Path, names: Collection[str]) -> list[str]:
    found: list[str] = []
    for count, member in enumerate(tar, start=1):
        if count > MEMBERS_LIMIT:
            raise InstallError(f"the archive holds more than {MEMBERS_LIMIT} files: it is no model")
        name = _safe_name(member)
        if not member.isfile() or name not in names:
            continue
        if name in found:
            raise InstallError(f"the archive holds {name} twice")
        found.append(name)
        source = tar.extractfile(member)
        assert source is not None  # it is a file
        with source, (folder / name).open("xb") as target:
            shutil.copyfileobj(source, target, READ_LIMIT_BYTES // 4)
    return found


def _safe_name(member: tarfile.TarInfo) -> str:
    """Return the last part of a member's path. Raises InstallError for what does not belong into a model."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise InstallError("the archive was refused: it holds a path that leads out of it")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise InstallError("the archive was refused: it holds a link or a device")
    return path.name


class _Bounded(io.RawIOBase):
    """A stream that refuses to be read past `limit_bytes`, or much at once: tarfile reads whole headers into memory."""

    def __init__(self, stream: io.BufferedIOBase, limit_bytes: int) -> None:
        self._stream = stream
        self._limit = limit_bytes

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= READ_LIMIT_BYTES:
            raise tarfile.ReadError("a header is too long")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET:
            raise tarfile.ReadError("only places from the start can be sought")
        self._check(offset)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def drain(self) -> None:
        while self.read(READ_LIMIT_BYTES):
            pass

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise InstallError(f"the archive unpacks to more than {self._limit / 1e9:.2f} GB: it is no such model")
