"""The build of torch that is chosen for a driver and a GPU, and the advice where the installed one is another."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from mirrorchat.hardware import gpu_driver, torch_build
from mirrorchat.hardware.gpu_driver import DriverGpu, nvidia_gpus
from mirrorchat.hardware.torch_build import pip_arguments, remedy

PASCAL, TURING, ADA, HOPPER, BLACKWELL = (6, 1), (7, 5), (8, 9), (9, 0), (12, 0)
CUDA_13 = "torch==2.13.0,!=2.13.0+cu126,!=2.13.0+cpu"


def build(driver: str, *capabilities: tuple[int, int] | None) -> torch_build.TorchBuild:
    return torch_build.torch_build([DriverGpu(f"GPU {of}", driver, of) for of in capabilities])


@pytest.mark.parametrize(
    ("driver", "capability", "name", "reason"),
    [
        ("580.65.06", TURING, "cu130", "has driver 580.65.06"),
        ("580.65.06", ADA, "cu130", "has driver 580.65.06"),
        ("595.1", BLACKWELL, "cu130", "has driver 595.1"),
        ("580.65.06", None, "cu130", "has driver 580.65.06"),
        ("580.65.06", PASCAL, "cu126", "has compute capability 6.1, and CUDA 13 begins at 7.5"),
        ("580.65.06", (7, 0), "cu126", "has compute capability 7.0, and CUDA 13 begins at 7.5"),
        ("580.65.06", (3, 7), "cpu", "has compute capability 3.7, and torch's builds begin at 5.0"),
        ("579.99", ADA, "cu126", "has driver 579.99, and CUDA 13 needs 580 or newer"),
        ("570.133.20", ADA, "cu126", "CUDA 13 needs 580 or newer"),
        ("570.133.20", BLACKWELL, "cpu", "has driver 570.133.20, and this GPU needs 580 or newer"),
        ("535.183.01", HOPPER, "cu126", "CUDA 13 needs 580 or newer"),
        ("535.183.01", PASCAL, "cu126", "CUDA 13 needs 580 or newer"),
        ("535.183.01", None, "cu126", "CUDA 13 needs 580 or newer"),
        ("525.60.13", TURING, "cu126", "CUDA 13 needs 580 or newer"),
        ("470.256.02", TURING, "cpu", "CUDA 12.6 needs 525 or newer"),
        ("", ADA, "cpu", "but not its own version"),
    ],
)
def test_the_driver_and_the_capability_decide(
    driver: str, capability: tuple[int, int] | None, name: str, reason: str
) -> None:
    found = build(driver, capability)
    assert found.name == name and reason in found.reason and "\n" not in found.reason
    assert found.index == f"https://download.pytorch.org/whl/{name}"


def test_the_newest_of_several_gpus_decides() -> None:
    assert build("580.65.06", PASCAL, ADA).name == build("580.65.06", ADA, PASCAL).name == "cu130"


def test_pip_gets_exactly_this_build() -> None:
    assert build("535.183.01", ADA).requirement("2.13.0") == "torch==2.13.0+cu126"
    assert build("470.256.02", ADA).requirement("2.13.0") == "torch==2.13.0+cpu"
    assert build("580.65.06", ADA).requirement("2.13.0") == CUDA_13  # the package index has it without a name


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Make `body` the only nvidia-smi, with no files of a driver."""
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(gpu_driver, "_WSL", str(folder))
    monkeypatch.setattr(nvidia_gpus, "__defaults__", (folder / "gpus",))
    monkeypatch.setattr(gpu_driver, "_LIMIT_S", 0.5)
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "nvidia-smi").chmod(0o755)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("exec sleep 60", "nvidia-smi is installed, but shows no GPU"),
        ("echo 'NVIDIA-SMI has failed because it could not communicate'; exit 9", "nvidia-smi is installed, but"),
        ("echo Segmentation fault", "NVIDIA's driver shows Segmentation fault, but not its own version"),
        ("head -c 4000 /dev/urandom", "NVIDIA's driver shows"),
        ("yes 'NVIDIA A, 580.65.06, 8.9'", "nvidia-smi is installed, but shows no GPU"),
    ],
    ids=["hangs", "fails", "prints a sentence", "prints bytes", "never ends"],
)
def test_an_nvidia_smi_that_tells_nothing_means_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: str, reason: str
) -> None:
    nvidia_smi(tmp_path, monkeypatch, body)
    monkeypatch.setattr(sys, "argv", ["torch_build", "9.9.9"])
    torch_build.main()
    told, requirement, index = capsys.readouterr().out.splitlines()
    assert told.startswith(f"for the CPU, because {reason}")
    assert requirement == "torch==9.9.9+cpu" and index.endswith("/whl/cpu")


def test_an_installed_torch_stays_where_no_gpu_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A driver that is broken for a day does not cost the CUDA build, and any build runs on the CPU."""
    nvidia_smi(tmp_path, monkeypatch, "exit 9")
    monkeypatch.setattr(sys, "argv", ["torch_build", "2.13.0"])
    monkeypatch.setattr(importlib.metadata, "version", {"torch": "2.13.0+cu126"}.__getitem__)
    torch_build.main()
    assert capsys.readouterr().out.splitlines()[1] == "torch==2.13.0"
    nvidia_smi(tmp_path, monkeypatch, "echo NVIDIA A, 580.65.06, 8.9")
    torch_build.main()
    assert capsys.readouterr().out.splitlines()[1] == CUDA_13


def test_pip_is_sent_to_the_index_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo NVIDIA A, 570.133.20, 8.9")
    index = "https://download.pytorch.org/whl/cu126"
    assert pip_arguments("2.13.0", {}) == ["--extra-index-url", index, "torch==2.13.0+cu126"]
    chosen = {"TORCH_INDEX": "https://mirror.example/cu130"}
    assert pip_arguments("2.13.0", chosen) == ["--index-url", "https://mirror.example/cu130", "torch==2.13.0"]


@pytest.mark.parametrize(
    ("gpu", "cuda", "advice"),
    [
        (DriverGpu("NVIDIA A", "580.65.06", ADA), "", "/whl/cu130 torch==2.13.0+cu130`"),
        (DriverGpu("NVIDIA A", "580.65.06", ADA), "12.6", "/whl/cu130 torch==2.13.0+cu130`"),
        (DriverGpu("NVIDIA A", "535.183.01", ADA), "13.0", "/whl/cu126 torch==2.13.0+cu126`"),
        (DriverGpu("NVIDIA A", "580.65.06", PASCAL), "13.0", "/whl/cu126 torch==2.13.0+cu126`"),
        (DriverGpu("NVIDIA A"), "", "/whl/cu130 torch==2.13.0+cu130`"),
        (DriverGpu("NVIDIA A", "570.133.20", BLACKWELL), "12.6", "https://www.nvidia.com/drivers), then `sudo reboot`"),
        (DriverGpu("NVIDIA A", "580.65.06", (3, 7)), "13.0", "set device = 'cpu'"),
        (DriverGpu("NVIDIA A", "580.65.06", ADA), "13.0", "`docker run --gpus all`"),
    ],
)
def test_the_advice_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: DriverGpu, cuda: str, advice: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = remedy([gpu], "2.13.0+cpu", cuda)
    assert said.endswith(advice)
    assert "torch==" not in advice or said.startswith(f"`{sys.executable} -m pip install --extra-index-url https://")


def test_ubuntu_s_own_program_updates_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ubuntu-drivers").write_text("#!/bin/sh\n")
    (tmp_path / "ubuntu-drivers").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    old = DriverGpu("NVIDIA A", "470.256.02", TURING)
    assert remedy([old], "2.13.0", "13.0").endswith(": `sudo ubuntu-drivers install && sudo reboot`")
