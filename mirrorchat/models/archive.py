"""Unpacks published archives without trusting them.

Only regular files with known names are written, all into one folder. The whole archive is refused if it holds a path
that leads out of it, a link, a device, too many members or too many bytes. Bytes are counted while they are unpacked,
so the limit holds against false headers and compression bombs.
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
READ_LIMIT_BYTES = 1 << 20  # the longest header; files are read in shorter pieces
_GZIP_MAGIC = b"\x1f\x8b"


def unpack(archive: Path, folder: Path, names: Collection[str], limit_bytes: int) -> list[str]:
    """Write the files in `names` from `archive` (tar or tar.gz) into `folder`, and return the names found.

    Folders within the archive are ignored: WeNet's archives have one, named after the day of training. Raises
    InstallError when the archive is damaged, holds a name twice, or breaks a rule above; `folder` may then hold a part
    of it.
    """
    try:
        with archive.open("rb") as file:
            is_compressed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            plain: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if is_compressed else file
            bounded = _Bounded(plain, limit_bytes)
            with tarfile.open(fileobj=bounded, mode="r:") as tar:
                found = _unpack_members(tar, folder, names)
            bounded.drain()  # the gzip checksum is at the end of the file
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeError, ValueError) as error:
        raise InstallError(f"{archive.name} is damaged or no tar archive: {error}") from error
    return found


def _unpack_members(tar: tarfile.TarFile, folder: Path, names: Collection[str]) -> list[str]:
    found: list[str] = []
    for count, member in enumerate(tar, start=1):
        if count > MEMBERS_LIMIT:
            raise InstallError(f"the archive holds more than {MEMBERS_LIMIT} files: it is not a model")
        name = _safe_name(member)
        if not member.isfile() or name not in names:
            continue
        if name in found:
            raise InstallError(f"the archive holds {name} twice")
        found.append(name)
        source = tar.extractfile(member)
        assert source is not None  # a regular file always has a stream
        with source, (folder / name).open("xb") as target:
            shutil.copyfileobj(source, target, READ_LIMIT_BYTES // 4)
    return found


def _safe_name(member: tarfile.TarInfo) -> str:
    """Return the file name in a member's path. Raises InstallError for an unsafe path, a link or a device."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise InstallError("the archive was refused: it holds a path that leads out of it")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise InstallError("the archive was refused: it holds a link or a device")
    return path.name


class _Bounded(io.RawIOBase):
    """Wraps a stream and refuses reads past `limit_bytes`, and long reads: tarfile reads whole headers into memory."""

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
            raise tarfile.ReadError("only positions from the start can be sought")
        self._check(offset)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def drain(self) -> None:
        while self.read(READ_LIMIT_BYTES):
            pass

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise InstallError(f"the archive unpacks to more than {self._limit / 1e9:.2f} GB: it is not this model")
