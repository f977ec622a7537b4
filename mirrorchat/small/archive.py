"""Numpy's archives of tables, read within bounds and without pickles."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt


def read_tables(file: Path, *, limit_bytes: int) -> dict[str, npt.NDArray[np.generic]]:
    """Return the tables of `file` by name.

    Raises ValueError if it is damaged or unpacks to more than `limit_bytes`, OSError if it cannot be opened.
    """
    with file.open("rb") as opened:
        try:
            with zipfile.ZipFile(opened) as archive:
                unpacked_bytes = sum(member.file_size for member in archive.infolist())
            if unpacked_bytes > limit_bytes:
                raise ValueError("it is too large")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as tables:
                return {name: tables[name] for name in tables.files}
        except Exception as error:  # zipfile, zlib and numpy raise ten kinds for a damaged archive
            raise ValueError(str(error)) from error
