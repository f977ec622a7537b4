"""The GPUs that NVIDIA's driver shows, whether or not torch can use them.

It imports nothing that has to be installed: scripts/environment reads them before it chooses a build of torch.
"""

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from mirrorchat.hardware.bounded_run import run_bounded

PROC = Path("/proc/driver/nvidia/gpus")
_FIELDS = ("name,driver_version,compute_cap", "name")  # drivers before 510 do not know compute_cap
_LIMIT_S = 5.0  # nvidia-smi takes up to 2 s when the driver must wake the GPUs
_LIMIT_BYTES = 64 * 1024
_WSL = "/usr/lib/wsl/lib"  # Windows puts nvidia-smi here, but not every shell of WSL has it in its PATH
_VERSION = r"\d{2,4}(?:\.\d{1,4}){0,3}"
# "NVIDIA UNIX x86_64 Kernel Module  535.183.01", or "... Open Kernel Module for x86_64  580.65.06"
_MODULE = re.compile(rf"Kernel Module(?: for \S{{1,20}})?\s{{1,4}}({_VERSION})\s")


@dataclass(frozen=True)
class DriverGpu:
    """A GPU. `driver` is the version of NVIDIA's driver, or empty; `capability` is None if the driver does not say."""

    name: str
    driver: str = ""
    capability: tuple[int, int] | None = None

    @property
    def branch(self) -> int:
        """Return the first number of the driver's version, such as 580; 0 if the version is not known."""
        return int(self.driver.partition(".")[0] or 0)


def nvidia_gpus(proc: Path = PROC) -> list[DriverGpu]:
    """Return the GPUs that NVIDIA's driver shows, in its order; an empty list without a driver.

    `nvidia-smi` lists them, in at most 5 s. If it does not work, the driver's files in `proc` are read.
    """
    gpus = _from_nvidia_smi() or _from_proc(proc)
    return [gpu if gpu.driver else replace(gpu, driver=_module_version(proc)) for gpu in gpus]


def nvidia_smi() -> str | None:
    """Return the path of the driver's program, None if there is none."""
    return shutil.which("nvidia-smi", path=os.pathsep.join((os.environ.get("PATH", os.defpath), _WSL)))


def _from_nvidia_smi() -> list[DriverGpu]:
    program = nvidia_smi()
    if program is None:
        return []
    for fields in _FIELDS:
        command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            ended = run_bounded(command, limit_s=_LIMIT_S, limit_bytes=_LIMIT_BYTES)
        except OSError:
            return []
        if ended.status == 0:
            lines = ended.output.decode(errors="replace").splitlines()
            return [_gpu(line) for line in lines if line.strip()]
        if ended.status is None:  # it hangs, and would again
            return []
    return []


def _gpu(line: str) -> DriverGpu:
    """Return the GPU of a line such as `NVIDIA GeForce RTX 4060, 580.65.06, 8.9`."""
    name, *fields = line.rsplit(",", 2)
    if len(fields) < 2:
        return DriverGpu(_printable(line))
    driver, capability = (field.strip() for field in fields)
    numbers = re.fullmatch(r"(\d{1,2})\.(\d)", capability)
    return DriverGpu(
        _printable(name),
        driver if re.fullmatch(_VERSION, driver) else "",
        (int(numbers[1]), int(numbers[2])) if numbers else None,
    )


def _from_proc(proc: Path) -> list[DriverGpu]:
    """Return the models that the driver's files name. A GPU whose file cannot be read is named by its bus address."""
    gpus = []
    for folder in sorted(proc.glob("*")):
        model = re.search(r"^Model:[ \t]*(\S.*)$", _text(folder / "information"), re.MULTILINE)
        gpus.append(DriverGpu(_printable(model[1]) if model else f"GPU at {folder.name}"))
    return gpus


def _module_version(proc: Path) -> str:
    """Return the version of the driver's kernel module, "" if it is not loaded."""
    found = _MODULE.search(_text(proc.parent / "version"))
    return found[1] if found else ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _printable(text: str) -> str:
    return "".join(letter for letter in text.strip() if letter.isprintable())[:100]
