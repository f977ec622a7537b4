"""The build of torch for this machine: for CUDA 13, for CUDA 12.6 or for the CPU.

    python -m mirrorchat.hardware.torch_build VERSION

prints why, what pip is to install, and the index of PyTorch that has it, a line each. scripts/environment runs it
before anything is installed, so it imports Python's own modules only.
"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mirrorchat.hardware.gpu_driver import DriverGpu, nvidia_gpus, nvidia_smi

PYTORCH = "https://download.pytorch.org/whl/"
CUDA_13_DRIVER, CUDA_12_DRIVER = 580, 525  # the first branches of NVIDIA's driver that run CUDA 13 and 12
TURING = (7, 5)  # CUDA 13 has no code for earlier GPUs
MAXWELL, BLACKWELL = (5, 0), (10, 0)  # torch's build for CUDA 12.6 has code from the one on, and none from the other
DRIVER_HINT = "update NVIDIA's driver or `sudo modprobe nvidia-uvm`; in a container, `docker run --gpus all`"
_TITLES = {"cu130": "CUDA 13", "cu126": "CUDA 12.6", "cpu": "the CPU"}


@dataclass(frozen=True)
class TorchBuild:
    """A build of torch. `name` is the one in its version, such as `cu126`; `reason` is why this machine needs it."""

    name: str
    reason: str
    needs_driver: int = 0  # the branch of NVIDIA's driver that lets the GPU compute, if the present one does not

    @property
    def title(self) -> str:
        return _TITLES[self.name]

    @property
    def index(self) -> str:
        """Return the index of PyTorch that has this build."""
        return PYTORCH + self.name

    def requirement(self, version: str) -> str:
        """Return what pip is to install. The package index has torch's build for CUDA 13 without a name."""
        if self.name != "cu130":
            return f"torch=={version}+{self.name}"
        others = ",".join(f"!={version}+{name}" for name in _TITLES if name != "cu130")
        return f"torch=={version},{others}"

    def command(self, version: str) -> str:
        """Return the command that puts this build in the place of another one."""
        return f"{sys.executable} -m pip install --extra-index-url {self.index} torch=={version}+{self.name}"


@dataclass(frozen=True)
class TorchSource:
    """Where torch comes from: the reason, what pip is to install, and the index that has it."""

    reason: str
    requirement: str
    index: str


def torch_build(gpus: Sequence[DriverGpu]) -> TorchBuild:
    """Return the build of torch for the newest of `gpus`."""
    if not gpus:
        found = "nvidia-smi is installed, but shows no GPU" if nvidia_smi() else "there is no NVIDIA GPU"
        return TorchBuild("cpu", found)
    gpu = max(gpus, key=lambda each: each.capability or TURING)
    capability = gpu.capability or TURING
    computes = f"{gpu.name} has compute capability {'.'.join(map(str, capability))}"
    if not gpu.branch:
        return TorchBuild("cpu", f"NVIDIA's driver shows {gpu.name}, but not its own version")
    if capability < MAXWELL:
        return TorchBuild("cpu", f"{computes}, and torch's builds begin at 5.0")
    if gpu.branch >= CUDA_13_DRIVER and capability >= TURING:
        return TorchBuild("cu130", f"{gpu.name} has driver {gpu.driver}")
    if gpu.branch < CUDA_12_DRIVER:
        return TorchBuild("cpu", _too_old(gpu, "CUDA 12.6", CUDA_12_DRIVER), CUDA_12_DRIVER)
    if capability >= BLACKWELL:
        return TorchBuild("cpu", _too_old(gpu, "this GPU", CUDA_13_DRIVER), CUDA_13_DRIVER)
    if gpu.branch < CUDA_13_DRIVER:
        return TorchBuild("cu126", _too_old(gpu, "CUDA 13", CUDA_13_DRIVER))
    return TorchBuild("cu126", f"{computes}, and CUDA 13 begins at 7.5")


def _too_old(gpu: DriverGpu, what: str, branch: int) -> str:
    return f"{gpu.name} has driver {gpu.driver}, and {what} needs {branch} or newer"


def remedy(gpus: Sequence[DriverGpu], version: str, cuda: str) -> str:
    """Return the command that lets torch use the first of `gpus`, which the installed torch cannot.

    `version` is the version of the installed torch, `cuda` that of its CUDA, "" for a build without. A driver that does
    not tell its version, as in a container without nvidia-smi, counts as a new one.
    """
    build = torch_build([gpu if gpu.branch else replace(gpu, driver=str(CUDA_13_DRIVER)) for gpu in gpus])
    if build.needs_driver:
        return f"{build.reason}: {_driver_command(build.needs_driver)}"
    if build.name == "cpu":
        return f"{build.reason}: set device = 'cpu'"
    if build.name != f"cu{cuda.replace('.', '')}":
        return f"`{build.command(version.partition('+')[0])}`"
    return DRIVER_HINT


def _driver_command(branch: int) -> str:
    if shutil.which("ubuntu-drivers"):
        return "`sudo ubuntu-drivers install && sudo reboot`"
    return f"install NVIDIA's driver {branch} or newer (https://www.nvidia.com/drivers), then `sudo reboot`"


def torch_source(version: str, environ: Mapping[str, str] = os.environ) -> TorchSource:
    """Return where torch comes from: the index TORCH_INDEX if it is set, else what this machine needs."""
    if index := environ.get("TORCH_INDEX"):
        return TorchSource("from the index that TORCH_INDEX names", f"torch=={version}", index)
    build = torch_build(nvidia_gpus())
    requirement = build.requirement(version)
    if build.name == "cpu" and _installed().partition("+")[0] == version:
        requirement = f"torch=={version}"  # any build runs on the CPU, and a driver may be broken for a day only
    return TorchSource(f"for {build.title}, because {build.reason}", requirement, build.index)


def pip_arguments(version: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return what pip takes to install torch."""
    source = torch_source(version, environ)
    return ["--index-url" if environ.get("TORCH_INDEX") else "--extra-index-url", source.index, source.requirement]


def main() -> None:
    source = torch_source(sys.argv[1])
    print(source.reason, source.requirement, source.index, sep="\n")


def _installed() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
