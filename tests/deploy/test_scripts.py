"""scripts/: what they say when the machine lacks something, and that they start at once when it does not."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from support.places import ROOT

TOOLS = ("bash", "cat", "cksum", "dirname", "env", "printf")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a folder of tools that has no Python, beside a checkout without .venv."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    for name in ("setup.cfg", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "native", tmp_path / "native")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def serve(machine: Path, script: str = "serve") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(machine / "scripts" / script)], env={"PATH": str(machine / "bin")}, capture_output=True, text=True
    )


def add_python(machine: Path, name: str, body: str) -> None:
    file = machine / "bin" / name
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("script", ["serve", "test"])
def test_no_python_names_the_package(machine: Path, script: str) -> None:
    run = serve(machine, script)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "apt install python3.11 python3.11-venv" in run.stderr


def test_a_python_that_is_too_old_does_not_count(machine: Path) -> None:
    # as Ubuntu 22.04's: it runs, and is 3.10
    add_python(machine, "python3", 'case "$2" in *version_info*) exit 1;; esac; echo "Python 3.10.12"')
    assert "Python 3.11, 3.12 or 3.13 is needed" in serve(machine).stderr


def test_no_venv_names_the_package(machine: Path) -> None:
    # as Debian's python3 without python3-venv: it runs, and has no ensurepip
    python = shutil.which("python3")
    add_python(machine, "python3", f'case "$2" in *ensurepip*) exit 1;; esac; exec {python} "$@"')
    run = serve(machine)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1 and "apt install python3.1" in run.stderr and "-venv" in run.stderr


def test_an_unknown_option_is_answered_with_the_usage() -> None:
    run = subprocess.run([str(ROOT / "scripts" / "serve"), "--prot", "1"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("usage: scripts/serve")


def test_nothing_is_installed_when_nothing_is_missing() -> None:
    run = subprocess.run([str(ROOT / "scripts" / "environment")], capture_output=True, text=True, check=True)
    assert run.stdout == run.stderr == ""
