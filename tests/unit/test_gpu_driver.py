"""The GPUs that the driver shows, with a program in place of nvidia-smi and files like the driver's."""

import shutil
import time
from pathlib import Path

import pytest

from mirrorchat.hardware import gpu_driver
from mirrorchat.hardware.gpu_driver import driver_gpus

SLEEP = shutil.which("sleep")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the host's nvidia-smi. Return the folder for another one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(gpu_driver, "_WSL", str(folder))
    return folder


def nvidia_smi(folder: Path, body: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def driver_files(folder: Path, **models: str) -> Path:
    """Write files like those in /proc/driver/nvidia/gpus. Return their folder."""
    for bus, model in models.items():
        (folder / "gpus" / bus).mkdir(parents=True)
        text = f"Model: \t\t {model}\nIRQ:   \t\t 42\nGPU UUID: \t GPU-0\n" if model else ""
        (folder / "gpus" / bus / "information").write_text(text)
    return folder / "gpus"


def test_no_driver_no_gpus(nowhere: Path, tmp_path: Path) -> None:
    assert driver_gpus(tmp_path / "gpus") == []


def test_nvidia_smi_lists_the_names(nowhere: Path, tmp_path: Path) -> None:
    nvidia_smi(nowhere, '[ "$1 $2" = "--query-gpu=name --format=csv,noheader" ] && printf "NVIDIA A\\nNVIDIA B\\n"')
    assert driver_gpus(driver_files(tmp_path, bus="Other")) == ["NVIDIA A", "NVIDIA B"]


@pytest.mark.parametrize(
    "body",
    [
        "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
        "exit 0",
        "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
    ],
    ids=["fails", "is silent", "never ends"],
)
def test_without_a_working_nvidia_smi_the_drivers_files_are_read(nowhere: Path, tmp_path: Path, body: str) -> None:
    nvidia_smi(nowhere, body)
    assert driver_gpus(driver_files(tmp_path, bus1="Tesla T4", bus2="")) == ["Tesla T4", "GPU at bus2"]


def test_a_hanging_nvidia_smi_is_killed_with_its_processes(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver, "_LIMIT_S", 0.3)
    nvidia_smi(nowhere, f"{SLEEP} 60 &\necho $! > {tmp_path}/child\nwait")
    assert driver_gpus(tmp_path / "gpus") == []
    stat = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    limit = time.monotonic() + 10.0
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < limit, "its child still runs"
        time.sleep(0.02)


def test_names_are_printable_and_short(nowhere: Path, tmp_path: Path) -> None:
    nvidia_smi(nowhere, f"printf 'GPU \\033[31mred\\n{'x' * 500}\\n'")
    first, second = driver_gpus(tmp_path / "gpus")
    assert first == "GPU [31mred" and len(second) == 100


def test_an_nvidia_smi_that_does_not_start_is_ignored(nowhere: Path, tmp_path: Path) -> None:
    (nowhere / "nvidia-smi").write_text("not a program")
    (nowhere / "nvidia-smi").chmod(0o755)
    assert driver_gpus(driver_files(tmp_path, bus="NVIDIA L4")) == ["NVIDIA L4"]
