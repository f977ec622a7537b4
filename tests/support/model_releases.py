"""Releases in the layout in which they are published, tiny, for the tests of their installation."""

import dataclasses
import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from mirrorchat.models.manifest import RELEASES, Release
from support.places import ROOT

WENET_REFERENCE = ROOT / "tests" / "data" / "wenet-reference"
WENET_TINY = ROOT / "tests" / "data" / "wenet-tiny"
WENET_NAMES = ("train.yaml", "final.pt", "units.txt", "global_cmvn")


def archive_of(files: Mapping[str, bytes], folder: str = "20210610_u2pp_conformer_exp") -> bytes:
    """Return a tar.gz with `files` in one folder, as WeNet's releases have them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def wenet_files(variant: str = "librispeech") -> dict[str, bytes]:
    """Return the files of a released WeNet checkpoint; its weights are random."""
    return {name: (WENET_REFERENCE / variant / name).read_bytes() for name in WENET_NAMES}


def wenet_archive(variant: str = "librispeech") -> bytes:
    """Return a released WeNet checkpoint's archive."""
    return archive_of(wenet_files(variant) | {"train_960_unigram5000.model": b"pieces"})


def fitted(name: str, contents: Mapping[str, bytes], *, known: bool) -> Release:
    """Return the release `name` with the sizes, and where `known` the checksums, of `contents`."""
    files = tuple(
        dataclasses.replace(
            file,
            size_bytes=len(contents[file.name]),
            sha256=sha256_of(contents[file.name]) if known else "",
            has_exact_size=True,
        )
        for file in RELEASES[name].files
    )
    return dataclasses.replace(RELEASES[name], files=files)


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def copy_of(folder: Path, destination: Path, *names: str) -> Path:
    """Copy `names` from `folder` into the new folder `destination`."""
    destination.mkdir(parents=True)
    for name in names:
        shutil.copy(folder / name, destination)
    return destination
