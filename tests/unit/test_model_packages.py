"""The packages of the extra `full`: which are missing, and the commands that install them."""

import os
import stat
from pathlib import Path

import pytest
from support.places import ROOT

from mirrorchat.errors import InstallError
from mirrorchat.models.packages import full_requirements, install_packages, missing_packages

REQUIREMENTS = ["torch==2.13.0", "coqui-tts==0.28.0"]


def script(path: Path, body: str) -> Path:
    """Write a program that stands for pip or scripts/environment and says how it was called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$@" >> {path.parent}/calls\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_requirements_are_those_of_the_extra(tmp_path: Path) -> None:
    found = full_requirements()
    assert "torch==2.13.0" in found and any(line.startswith("huggingface_hub") for line in found)
    assert not any(line.startswith(("flask", "pytest")) for line in found)
    installed = full_requirements(tmp_path)  # where there is no checkout, the installed package says the same
    assert "torch==2.13.0" in installed and not any(line.startswith(("flask", "pytest")) for line in installed)


def test_missing_and_outdated_packages_are_named() -> None:
    assert missing_packages(["click>=8", "no-such-package>=1", "click>=1000"]) == ["no-such-package>=1", "click>=1000"]


def test_pip_installs_torch_first_and_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi = script(tmp_path / "smi" / "nvidia-smi", "echo NVIDIA A, 535.183.01, 8.9")
    monkeypatch.setenv("PATH", str(nvidia_smi.parent))
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    python = script(tmp_path / "bin" / "python", "exit 0")
    install_packages(REQUIREMENTS, root=ROOT, prefix=tmp_path, python=str(python))
    pip = "-m pip install --disable-pip-version-check"
    first, second = (tmp_path / "bin" / "calls").read_text().splitlines()
    assert first == f"{pip} --extra-index-url https://download.pytorch.org/whl/cu126 torch==2.13.0+cu126"
    assert second == f"{pip} torch==2.13.0 coqui-tts==0.28.0"


def test_the_project_s_own_environment_is_brought_up_to_date_by_its_script(tmp_path: Path) -> None:
    script(tmp_path / "scripts" / "environment", "exit 0")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "installed").touch()
    install_packages(REQUIREMENTS, root=tmp_path, prefix=tmp_path / ".venv", python=os.devnull)
    assert (tmp_path / "scripts" / "calls").read_text() == "full\n"


def test_a_failure_is_told(tmp_path: Path) -> None:
    python = script(tmp_path / "bin" / "python", "exit 3")
    with pytest.raises(InstallError, match="could not be installed"):
        install_packages(REQUIREMENTS, root=ROOT, prefix=tmp_path, python=str(python))
    assert len((tmp_path / "bin" / "calls").read_text().splitlines()) == 1
