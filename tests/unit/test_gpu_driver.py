"""The GPUs that the driver shows, with a program in place of nvidia-smi and files like the driver's."""

import shutil
import time
from pathlib import Path

import pytest

from mirrorchat.hardware import gpu_driver
from mirrorchat.hardware.gpu_driver import DriverGpu, nvidia_gpus

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


def names(gpus: list[DriverGpu]) -> list[str]:
    return [gpu.name for gpu in gpus]


def driver_files(folder: Path, **models: str) -> Path:
    """Write files like those in /proc/driver/nvidia/gpus. Return their folder."""
    for bus, model in models.items():
        (folder / "gpus" / bus).mkdir(parents=True)
        text = f"Model: \t\t {model}\nIRQ:   \t\t 42\nGPU UUID: \t GPU-0\n" if model else ""
        (folder / "gpus" / bus / "information").write_text(text)
    return folder / "gpus"


def test_no_driver_no_gpus(nowhere: Path, tmp_path: Path) -> None:
    assert names(nvidia_gpus(tmp_path / "gpus")) == []


def answering(fields: str, *lines: str) -> str:
    """Return the body of an nvidia-smi that knows `fields` only, and prints `lines`."""
    printed = "\\n".join(lines)
    return f'[ "$1 $2" = "--query-gpu={fields} --format=csv,noheader" ] || exit 2\nprintf "{printed}\\n"'


def test_nvidia_smi_lists_the_gpus_with_their_driver(nowhere: Path, tmp_path: Path) -> None:
    lines = "NVIDIA GeForce RTX 4060, 580.65.06, 8.9", "Tesla K80, Ti, 580.65.06, 3.7"
    nvidia_smi(nowhere, answering("name,driver_version,compute_cap", *lines))
    first, second = nvidia_gpus(driver_files(tmp_path, bus="Other"))
    assert first == DriverGpu("NVIDIA GeForce RTX 4060", "580.65.06", (8, 9)) and first.branch == 580
    assert second == DriverGpu("Tesla K80, Ti", "580.65.06", (3, 7))


def test_an_old_nvidia_smi_lists_the_names(nowhere: Path, tmp_path: Path) -> None:
    nvidia_smi(nowhere, answering("name", "NVIDIA A", "NVIDIA B"))
    folder = driver_files(tmp_path, bus="Other")
    assert names(nvidia_gpus(folder)) == ["NVIDIA A", "NVIDIA B"]
    (folder.parent / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2\n")
    assert nvidia_gpus(folder)[0] == DriverGpu("NVIDIA A", "470.256.02")


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        ("NVIDIA A, [N/A], [N/A]", DriverGpu("NVIDIA A")),
        ("NVIDIA A, 580.65.06, [Not Supported]", DriverGpu("NVIDIA A", "580.65.06")),
        ("NVIDIA A, 9999999999.1, 99999.9", DriverGpu("NVIDIA A")),
        ("????, 580; rm, 8.9.1", DriverGpu("????")),
        ("a,b", DriverGpu("a,b")),
    ],
)
def test_what_is_no_version_is_not_known(nowhere: Path, tmp_path: Path, line: str, gpu: DriverGpu) -> None:
    nvidia_smi(nowhere, f"echo '{line}'")
    assert nvidia_gpus(tmp_path / "gpus") == [gpu] and gpu.branch in (0, 580)


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.183.01  Release Build  (builder)\n",
    ],
)
def test_the_driver_s_files_have_its_version(nowhere: Path, tmp_path: Path, text: str) -> None:
    folder = driver_files(tmp_path, bus="Tesla T4")
    (folder.parent / "version").write_text(text)
    assert nvidia_gpus(folder) == [DriverGpu("Tesla T4", "535.183.01")]


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
    assert names(nvidia_gpus(driver_files(tmp_path, bus1="Tesla T4", bus2=""))) == ["Tesla T4", "GPU at bus2"]


def test_a_hanging_nvidia_smi_is_killed_with_its_processes(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver, "_LIMIT_S", 0.3)
    nvidia_smi(nowhere, f"{SLEEP} 60 &\necho $! > {tmp_path}/child\nwait")
    assert names(nvidia_gpus(tmp_path / "gpus")) == []
    stat = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    limit = time.monotonic() + 10.0
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < limit, "its child still runs"
        time.sleep(0.02)


def test_names_are_printable_and_short(nowhere: Path, tmp_path: Path) -> None:
    nvidia_smi(nowhere, f"printf 'GPU \\033[31mred\\n{'x' * 500}\\n'")
    first, second = names(nvidia_gpus(tmp_path / "gpus"))
    assert first == "GPU [31mred" and len(second) == 100


def test_an_nvidia_smi_that_does_not_start_is_ignored(nowhere: Path, tmp_path: Path) -> None:
    (nowhere / "nvidia-smi").write_text("not a program")
    (nowhere / "nvidia-smi").chmod(0o755)
    assert names(nvidia_gpus(driver_files(tmp_path, bus="NVIDIA L4"))) == ["NVIDIA L4"]
