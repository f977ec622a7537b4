"""The wheel holds everything that MirrorChat needs to run, and the source archive all that it needs to be compiled."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.places import ROOT

# Nothing is compiled here: the libraries are optional, and that they compile is seen wherever MirrorChat is installed.
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def tracked(*folders: str) -> set[str]:
    """Return the files below `folders` that git has or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("package")
    for name in tracked():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(folder / "tools"), "setuptools>=77"], check=True)
    environ = os.environ | {"PYTHONPATH": str(folder / "tools"), "CC": "false", "CXX": "false"}
    for kind in ("build_wheel", "build_sdist"):
        command = [sys.executable, "-c", BUILD, kind, str(folder / kind)]
        subprocess.run(command, cwd=folder / "source", env=environ, check=True, capture_output=True)
    return {kind: next((folder / kind).iterdir()) for kind in ("build_wheel", "build_sdist")}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(archives: dict[str, Path]) -> None:
    with zipfile.ZipFile(archives["build_wheel"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = tracked("mirrorchat")
    assert names == expected
    assert {"mirrorchat/py.typed", "mirrorchat/templates/index.html", "mirrorchat/static/page.js"} <= names


def test_the_source_archive_can_be_compiled(archives: dict[str, Path]) -> None:
    with tarfile.open(archives["build_sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked("mirrorchat", "native") <= names
    assert {"setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= names
