"""The device: GPUs that torch sees, those that it does not see and why, memory; by the real process where one can."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch, of the extra `full`, is not installed")

import torch
from make_tiny_xtts import make_checkpoint

from mirrorchat.cli.doctor import device as doctor_device
from mirrorchat.cli.doctor.device import Gpu, Torch, gpu_findings, memory_finding, native_findings, plan_findings
from mirrorchat.cli.doctor.finding_process import findings_from
from mirrorchat.cli.doctor.findings import Finding, State
from mirrorchat.hardware import native
from mirrorchat.hardware.gpu_driver import DriverGpu
from mirrorchat.settings import Settings

CUDA = Torch("2.13.0", "13.0", [])
CPU_BUILD = Torch("2.13.0+cpu", "", [])
H100 = Gpu("NVIDIA H100", 70_000_000_000, 80_000_000_000)
DRIVER = "580.65.06"


def told(
    device: str,
    torch: Torch | None,
    shown: Sequence[str],
    environ: Mapping[str, str] | None = None,
    driver: str = DRIVER,
) -> dict[str, Finding]:
    gpus = [DriverGpu(name, driver, (8, 9)) for name in shown]
    return {finding.subject: finding for finding in gpu_findings(device, torch, gpus, environ or {})}


def test_a_machine_without_a_gpu_is_well() -> None:
    assert {finding.state for finding in told("auto", CPU_BUILD, []).values()} == {State.OK}


def test_a_gpu_that_works_is_named_with_its_memory() -> None:
    found = told("auto", Torch("2.13.0", "13.0", [H100]), ["NVIDIA H100"])
    assert found["GPU 0"].found == "NVIDIA H100, 70.00 GB of 80.00 GB free"
    assert found["device"].values == {"device": "cuda"} and "GPU" not in found


@pytest.mark.parametrize(
    ("device", "torch", "environ", "state", "said"),
    [
        ("auto", CPU_BUILD, {}, State.PROBLEM, "/whl/cu130 torch==2.13.0+cu130`"),
        ("cpu", CPU_BUILD, {}, State.WARNING, "/whl/cu130 torch==2.13.0+cu130`"),
        ("auto", CUDA, {"CUDA_VISIBLE_DEVICES": ""}, State.WARNING, "unset CUDA_VISIBLE_DEVICES"),
        ("auto", CUDA, {"CUDA_VISIBLE_DEVICES": "1"}, State.OK, ""),
        ("auto", None, {}, State.OK, ""),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_told_with_the_fix(
    device: str, torch: Torch | None, environ: Mapping[str, str], state: State, said: str
) -> None:
    found = told(device, torch, ["NVIDIA A"], environ)["GPU"]
    assert "NVIDIA A" in found.found and found.state is state and said in found.remedy


@pytest.mark.parametrize(
    ("files", "said"),
    [((), "--gpus all"), (("nvidia0",), "usermod"), (("nvidia0", "nvidiactl"), "torch==2.13.0+cu126")],
)
def test_what_the_driver_lacks_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Sequence[str], said: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(doctor_device, "_DEV", tmp_path)
    torch = Torch("2.13.0", "13.0", [], "The driver is too old")
    found = told("auto", torch, ["NVIDIA A"], driver="535.183.01")["GPU"]
    assert found.state is State.PROBLEM and said in found.remedy and "The driver is too old" in found.found


@pytest.mark.parametrize("torch", [CPU_BUILD, CUDA, Torch("2.13.0", "12.6", [])])
@pytest.mark.parametrize("driver", ["", "470.256.02", "535.183.01", DRIVER])
def test_the_advice_holds_a_command_to_paste(torch: Torch, driver: str) -> None:
    commands = re.findall(r"`([^`]+)`", told("auto", torch, ["NVIDIA A"], driver=driver)["GPU"].remedy)
    assert commands
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        program = command.removeprefix("sudo ").split()[0]
        assert program in ("reboot", "modprobe", "usermod", "ubuntu-drivers", "docker", sys.executable), command


def test_some_gpus_of_several_will_do() -> None:
    found = told("auto", Torch("2.13.0", "13.0", [H100]), ["NVIDIA H100", "Tesla K80"])
    assert found["GPU"].state is State.WARNING and "torch can use 1" in found["GPU"].found


def test_a_gpu_that_cannot_compute_is_a_problem() -> None:
    broken = Gpu("NVIDIA B", 0, 0, "no kernel image is available")
    found = told("auto", Torch("2.13.0", "12.6", [broken]), ["NVIDIA B"])["GPU 0"]
    assert found.state is State.PROBLEM and "torch==2.13.0+cu130`; until then" in found.remedy


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_device_that_is_not_there_is_a_problem(device: str, gpus: int) -> None:
    found = told(device, Torch("2.13.0", "13.0", [H100] * gpus), [])["device"]
    assert found.state is State.PROBLEM and repr(device) in found.found


def test_memory_is_what_processes_can_still_take(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  500 kB\n")
    assert memory_finding(tmp_path).values == {"free_bytes": 512_000}
    assert memory_finding().state is State.OK  # this machine's


def test_models_are_compared_with_the_free_memory(tmp_path: Path) -> None:
    floor = Settings(models_dir=tmp_path, synthesizer={"english": "embedded", "chinese": "embedded"})
    assert list(plan_findings(floor)) == []
    (found,) = plan_findings(Settings(models_dir=tmp_path))  # hibari comes with the packages
    assert found.state is State.OK and "GB needed" in found.found
    make_checkpoint(tmp_path / "xtts-v2")
    (found,) = plan_findings(Settings(models_dir=tmp_path))
    assert found.state is State.OK and "GB needed" in found.found
    (found,) = plan_findings(Settings(models_dir=tmp_path, device="cuda:77"))
    assert found.state is State.PROBLEM and "cuda:77" in found.found


def test_the_libraries_in_c_are_told_as_they_are() -> None:
    found = {finding.subject: finding for finding in native_findings()}
    library = native.library()
    assert (found["search in C++"].state is State.OK) == (native.search_library() is not None)
    assert bool(found["networks in C++"].values.get("variant")) == (library is not None)


def test_libraries_that_are_not_compiled_are_told_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "search_library", lambda: None)
    monkeypatch.setattr(native, "variant", lambda name: None)
    monkeypatch.setattr(native, "compiled", lambda name: None)
    monkeypatch.setattr(native, "VARIANTS", (("_native_any", ()),))
    assert [finding.state for finding in native_findings()] == [State.WARNING] * 2
    monkeypatch.setattr(native, "VARIANTS", (("_native_any", ("no_such_unit",)),))
    *_, found = native_findings()
    assert found.state is State.OK and "no_such_unit" in found.found


def test_the_process_sees_what_the_driver_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9; do echo NVIDIA Fake $i; done\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("MIRRORCHAT_CONFIG", str(tmp_path / "config.py"))
    (tmp_path / "config.py").write_text("device = 'auto'\n")
    found = {
        finding.subject: finding
        for finding in findings_from("mirrorchat.cli.doctor.device", subject="device", limit_s=60.0)
    }
    assert "NVIDIA Fake 9" in found["GPU"].found and found["GPU"].state is State.PROBLEM and found["GPU"].remedy
    assert torch.__version__ in found["torch"].found
