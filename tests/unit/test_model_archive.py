"""Archives from elsewhere: what is in them is unpacked only where it is a file of a model."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from support.model_releases import archive_of

from mirrorchat.errors import InstallError
from mirrorchat.models import archive as model_archive
from mirrorchat.models.archive import unpack

NAMES = ("final.pt", "units.txt")
LIMIT = 1_000_000


def made(folder: Path, content: bytes) -> Path:
    path = folder / "model_exp.tar.gz"
    path.write_bytes(content)
    return path


def archive_with(entry: tarfile.TarInfo, content: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "out").mkdir(parents=True)
    return tmp_path / "inner" / "out"


@pytest.mark.parametrize("compressed", [True, False])
def test_known_files_come_out_without_their_folder(tmp_path: Path, out: Path, compressed: bool) -> None:
    content = archive_of({"final.pt": b"weights", "units.txt": b"a 0\n", "README": b"read me"})
    path = made(tmp_path, content if compressed else gzip.decompress(content))
    assert sorted(unpack(path, out, NAMES, LIMIT)) == ["final.pt", "units.txt"]
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {"final.pt": b"weights", "units.txt": b"a 0\n"}


@pytest.mark.parametrize(
    "name", ["../final.pt", "model/../../final.pt", "/final.pt", "model/../../../../tmp/final.pt", "..\\final.pt"]
)
def test_a_path_that_leads_out_refuses_the_archive(tmp_path: Path, out: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = 4
    with pytest.raises(InstallError, match="leads out"):
        unpack(made(tmp_path, archive_with(entry, b"evil")), out, NAMES, LIMIT)
    assert list(tmp_path.rglob("final.pt")) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_refuse_the_archive(tmp_path: Path, out: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("model/final.pt")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(InstallError, match="a link or a device"):
        unpack(made(tmp_path, archive_with(entry)), out, NAMES, LIMIT)
    assert list(out.iterdir()) == []


def test_a_bomb_is_bounded(tmp_path: Path, out: Path) -> None:
    path = made(tmp_path, archive_of({"final.pt": bytes(40 * LIMIT)}))
    assert path.stat().st_size < LIMIT // 10
    with pytest.raises(InstallError, match="unpacks to more than"):
        unpack(path, out, NAMES, LIMIT)
    assert sum(file.stat().st_size for file in out.iterdir()) <= LIMIT


def test_a_bomb_in_a_file_that_is_not_wanted_is_bounded(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InstallError, match="unpacks to more than"):
        unpack(made(tmp_path, archive_of({"other": bytes(40 * LIMIT), "final.pt": b"weights"})), out, NAMES, LIMIT)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, out: Path) -> None:
    entry = tarfile.TarInfo("model/final.pt")
    entry.pax_headers = {"comment": "x" * (2 * model_archive.READ_LIMIT_BYTES)}
    with pytest.raises(InstallError, match="too long"):
        unpack(made(tmp_path, archive_with(entry)), out, NAMES, 1_000 * LIMIT)


def test_too_many_files_are_refused(tmp_path: Path, out: Path) -> None:
    files = {f"file{index}": b"" for index in range(model_archive.MEMBERS_LIMIT + 1)}
    with pytest.raises(InstallError, match="more than 1000 files"):
        unpack(made(tmp_path, archive_of(files)), out, NAMES, 100 * LIMIT)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path, out: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for folder in ("one", "two"):
            tar.addfile(tarfile.TarInfo(f"{folder}/final.pt"))
    with pytest.raises(InstallError, match="twice"):
        unpack(made(tmp_path, packed.getvalue()), out, NAMES, LIMIT)


def test_every_truncation_is_noticed(tmp_path: Path, out: Path) -> None:
    content = archive_of({"final.pt": os.urandom(2000), "units.txt": b"a 0\n"})
    for size in (0, 1, 10, len(content) // 2, len(content) - 9, len(content) - 1):
        with pytest.raises(InstallError, match="damaged or no tar archive"):
            unpack(made(tmp_path, content[:size]), out, NAMES, LIMIT)
        for file in out.iterdir():
            file.unlink()


def test_a_flipped_byte_is_noticed(tmp_path: Path, out: Path) -> None:
    content = bytearray(archive_of({"final.pt": os.urandom(2000)}))
    content[len(content) // 2] ^= 1
    with pytest.raises(InstallError, match="damaged"):
        unpack(made(tmp_path, bytes(content)), out, NAMES, LIMIT)
