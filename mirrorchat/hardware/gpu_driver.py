"""The GPUs that NVIDIA's driver shows, whatever torch makes of them."""

import os
import re
import shutil
from pathlib import Path

from mirrorchat.hardware.bounded_run import run_bounded

PROC = Path("/proc/driver/nvidia/gpus")
_QUERY = ("--query-gpu=name", "--format=csv,noheader")
_LIMIT_S = 5.0  # it takes up to 2 s where the driver must wake the GPUs
_LIMIT_BYTES = 64 * 1024
_WSL = "/usr/lib/wsl/lib"  # where Windows puts nvidia-smi, which not every shell of WSL has in its PATH


def driver_gpus(proc: Path = PROC) -> list[str]:
    """Return the names of the GPUs that NVIDIA's driver shows, in its order; none where there is no driver.

    `nvidia-smi` is asked, for 5 s at most; where it does not work, the driver's files in `proc` are read.
    """
    return _asked_for() or _listed_in(proc)


def _asked_for() -> list[str]:
    program = shutil.which("nvidia-smi", path=os.pathsep.join((os.environ.get("PATH", os.defpath), _WSL)))
    if program is None:
        return []
    try:
        ended = run_bounded([program, *_QUERY], limit_s=_LIMIT_S, limit_bytes=_LIMIT_BYTES)
    except OSError:
        return []
    lines = ended.output.decode(errors="replace").splitlines() if ended.status == 0 else []
    return [_printable(line) for line in lines if line.strip()]


def _listed_in(proc: Path) -> list[str]:
    """Return the models that the driver's files name; a GPU whose file cannot be read has its place on the bus."""
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
