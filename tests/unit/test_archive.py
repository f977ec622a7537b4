"""Numpy's archives of tables: whatever is damaged or too large is a ValueError."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirrorchat.small.archive import read_tables

LIMIT_BYTES = 10_000
NAMES, NUMBERS = np.array(["one", "two"]), np.arange(6.0).reshape(2, 3)


def archive(save: Callable[..., Any], **tables: Any) -> bytes:
    written = io.BytesIO()
    save(written, **tables)
    return written.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_a_value_error(tmp_path: Path, save: Callable[..., Any]) -> None:
    file = tmp_path / "tables.npz"
    whole = archive(save, names=NAMES, numbers=NUMBERS)
    file.write_bytes(whole)
    tables = read_tables(file, limit_bytes=LIMIT_BYTES)
    assert list(tables) == ["names", "numbers"] and np.array_equal(tables["numbers"], NUMBERS)
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            read_tables(file, limit_bytes=LIMIT_BYTES)
        except ValueError:
            refused += 1
    assert refused > len(whole) // 4  # the other bytes are dates and the like


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x93NUMPY", archive(np.savez, pickled=np.array([{}], object)),
     archive(np.savez_compressed, zeros=np.zeros(10_000_000))],
    ids=["empty", "cut", "table", "pickle", "large"],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tables.npz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_tables(file, limit_bytes=LIMIT_BYTES)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tables(tmp_path / "nothing.npz", limit_bytes=LIMIT_BYTES)
