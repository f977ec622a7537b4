"""The size of a folder while pip adds and removes folders in it."""

import shutil
import threading
from pathlib import Path

from mirrorchat.models.package_index import _size_of


def test_the_size_is_read_while_folders_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(bytes(1000))
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            deep = tmp_path / "some" / "deep" / "folder"
            deep.mkdir(parents=True)
            (deep / "file").write_bytes(bytes(10))
            shutil.rmtree(tmp_path / "some")

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert {_size_of(tmp_path) for _ in range(2000)} <= {1000, 1010}
    finally:
        over.set()
        changer.join()
