"""A message says why torch cannot use a GPU that NVIDIA's driver shows, and what to do."""

import re
import sys
from pathlib import Path

import pytest
import torch

from mirrorchat.asr import choose_weights
from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware import gpu_driver
from mirrorchat.hardware.devices import gpu_trouble, gpu_weights, is_gpu, runs_on, usable_device


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an nvidia-smi with one GPU on this host; torch does not find the GPU."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA GeForce RTX 4060, ${DRIVER-580.65.06}, 8.9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_without_a_driver_there_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_driver, "_WSL", str(tmp_path))
    monkeypatch.setattr(gpu_driver.nvidia_gpus, "__defaults__", (tmp_path,))
    assert gpu_trouble() == ""


def test_a_torch_without_cuda_is_to_be_reinstalled(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    trouble = gpu_trouble()
    assert trouble.startswith("NVIDIA's driver shows NVIDIA GeForce RTX 4060, which torch cannot use: ")
    assert "torch 2.13.0+cpu is built without CUDA" in trouble
    pip = f"{sys.executable} -m pip install --extra-index-url https://download.pytorch.org/whl/cu130"
    assert trouble.endswith(f"; `{pip} torch==2.13.0+cu130`")


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        ("535.183.01", r"; `\S+ -m pip install \S+ https://\S+/cu126 torch==2\.13\.0\+cu126`"),
        ("470.256.02", r"; .*4060 has driver 470\.256\.02, and CUDA 12\.6 needs 525 or newer: .*`.*reboot`"),
        (
            "580.65.06",
            r"; update NVIDIA's driver or `sudo modprobe nvidia-uvm`; in a container, `docker run --gpus all`",
        ),
        ("", r"; update NVIDIA's driver or .*"),
    ],
)
def test_a_driver_that_does_not_run_this_cuda_gets_another_build_or_is_to_be_updated(
    driver: None, monkeypatch: pytest.MonkeyPatch, version: str, advice: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setenv("DRIVER", version)
    assert re.search(f"is built for CUDA 13.0{advice}$", gpu_trouble())


def test_a_variable_that_hides_the_gpu_is_named(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES is '-1', which hides it; `unset CUDA_VISIBLE_DEVICES`" in gpu_trouble()


def test_the_device_cuda_is_refused_with_a_remedy(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigurationError, match=r"finds 0 GPUs; NVIDIA's driver shows .*4060.*pip install"):
        usable_device("cuda")


def test_a_gpu_that_torch_has_no_code_for_is_not_used(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
    assert usable_device("auto").type == "cpu" and not is_gpu("auto")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert re.search(r"has no code for GPUs of compute capability 6\.1; `.*torch==2\.13\.0\+cu126`$", gpu_trouble())
    with pytest.raises(ConfigurationError, match=r"'cuda' cannot be used: torch .* compute capability 6"):
        usable_device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9))
    assert usable_device("auto").type == "cuda" and is_gpu("auto") and gpu_trouble() == ""


def test_auto_is_the_first_gpu_that_torch_has_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((6, 1), (8, 9), (9, 0))[index])
    assert usable_device("auto") == torch.device("cuda", 1) and is_gpu("auto") and gpu_trouble() == ""
    assert usable_device("cuda:2") == torch.device("cuda", 2)


def test_a_gpu_without_code_is_named_where_the_driver_has_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_driver, "_WSL", str(tmp_path))
    monkeypatch.setattr(gpu_driver.nvidia_gpus, "__defaults__", (tmp_path,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA GeForce GTX 1070")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
    assert usable_device("auto").type == "cpu"
    assert "NVIDIA GeForce GTX 1070, which torch cannot use: " in gpu_trouble() and "capability 6.1" in gpu_trouble()


@pytest.mark.parametrize(
    ("capability", "weights"),
    [((12, 0), "bf16"), ((9, 0), "bf16"), ((8, 9), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"),
     ((6, 1), "fp16w"), ((6, 0), "fp16w"), ((5, 2), "fp16w")],
)  # fmt: skip
def test_the_capability_of_a_gpu_decides_the_weights(
    capability: tuple[int, int], weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", {gpu: capability}.__getitem__)
    assert gpu_weights(gpu) == choose_weights("auto", gpu) == weights
    assert choose_weights("fp32", gpu) == "fp32"


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((6, 1), False), ((7, 5), True), ((8, 0), True), ((8, 9), True), ((9, 0), True), ((12, 0), True)],
)
def test_binary_code_runs_within_a_major_version_and_ptx_on_later_ones(capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(capability, ["sm_75", "sm_80", "sm_90a", "compute_100", "unknown"]) is runs


@pytest.mark.parametrize(
    ("architecture", "runs"),
    [("sm_120a", False), ("compute_90a", False), ("compute_120f", True), ("sm_120", True), ("compute_100f", False)],
)
def test_bound_code_runs_on_its_own_kind(architecture: str, runs: bool) -> None:
    assert runs_on((12, 1), [architecture]) is runs


def test_without_ptx_a_later_major_version_has_no_code() -> None:
    assert not runs_on((12, 0), ["sm_80", "sm_90"]) and not runs_on((7, 0), ["sm_75"])
