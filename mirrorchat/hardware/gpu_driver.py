"""The GPUs that NVIDIA's driver shows, whether or not torch can use them."""

import os
import re
import shutil
from pathlib import Path

from mirrorchat.hardware.bounded_run import run_bounded

PROC = Path("/proc/driver/nvidia/gpus")
_QUERY = ("--query-gpu=name", "--format=csv,noheader")
_LIMIT_S = 5.0  # nvidia-smi takes up to 2 s when the driver must wake the GPUs
_LIMIT_BYTES = 64 * 1024
_WSL = "/usr/lib/wsl/lib"  # Windows puts nvidia-smi here, but not every shell of WSL has it in its PATH


def driver_gpus(proc: Path = PROC) -> list[str]:
    """Return the names of the GPUs that NVIDIA's driver shows, in its order; an empty list without a driver.

    `nvidia-smi` lists them, in at most 5 s. If it does not work, the driver's files in `proc` are read.
    """
    return _from_nvidia_smi() or _from_proc(proc)


def _from_nvidia_smi() -> list[str]:
    program = shutil.which("nvidia-smi", path=os.pathsep.join((os.environ.get("PATH", os.defpath), _WSL)))
    if program is None:
        return []
    try:
        ended = run_bounded([program, *_QUERY], limit_s=_LIMIT_S, limit_bytes=_LIMIT_BYTES)
    except OSError:
        return []
    lines = ended.output.decode(errors="replace").splitlines() if ended.status == 0 else []
    return [_printable(line) for line in lines if line.strip()]


def _from_proc(proc: Path) -> list[str]:
    """Return the models that the driver's files name. A GPU whose file cannot be read is named by its bus address."""
    names = []
    for folder in sorted(proc.glob("*")):
        try:
            text = (folder / "information").read_bytes()[:_LIMIT_BYTES].decode(errors="replace")
        except OSError:
            text = ""
        model = re.search(r"^Model:\s*(\S.*)$", text, re.MULTILINE)
        names.append(_printable(model[1]) if model else f"GPU at {folder.name}")
    return names


def _printable(text: str) -> str:
    return "".join(letter for letter in text.strip() if letter.isprintable())[:100]
