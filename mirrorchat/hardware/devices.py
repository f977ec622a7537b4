"""The device of the setting `device`: what torch uses, its free memory, and why a GPU is not used."""

import os
import re
from collections.abc import Sequence

import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.gpu_driver import driver_gpus
from mirrorchat.hardware.host_memory import free_host_bytes

DRIVER_HINT = "update NVIDIA's driver; in a container, give it the GPU (docker run --gpus all)"


def is_gpu(name: str) -> bool:
    """Return whether `auto`, `cpu`, `cuda` or `cuda:1` means a GPU, whether or not it exists."""
    return _gpu_works() if name == "auto" else name.startswith("cuda")


def usable_device(name: str) -> torch.device:
    """Return the torch device for `auto`, `cpu`, `cuda` or `cuda:1`.

    Raises ConfigurationError if torch cannot use it. If NVIDIA's driver shows a GPU, the message says what to do.
    """
    if name == "auto":
        name = "cuda" if _gpu_works() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device {name!r} is not one that torch knows") from error
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        trouble = gpu_trouble()
        found = f"device {name!r} cannot be used: torch {torch.__version__} finds {gpus} GPUs"
        raise ConfigurationError(f"{found}; {trouble}" if trouble else found)
    if device.type == "cuda" and not _has_code_for(device.index or 0):
        raise ConfigurationError(f"device {name!r} cannot be used: {_no_code(device.index or 0)}")
    return device


def free_bytes(name: str) -> int:
    """Return the free bytes of the device `cpu`, `cuda` or `cuda:1`; a GPU's are those that its driver states."""
    return free_host_bytes() if name == "cpu" else torch.cuda.mem_get_info(name)[0]


def gpu_trouble() -> str:
    """Return why torch cannot use a GPU that NVIDIA's driver shows, and what to do; "" if nothing is wrong."""
    shown = driver_gpus()
    if not shown or _gpu_works():
        return ""
    return f"NVIDIA's driver shows {', '.join(shown)}, which torch cannot use: {_why_unusable()}"


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Return whether torch, built for `architectures` (`sm_80`, `compute_90`), has code for a GPU of `capability`.

    Binary code (`sm`) runs on later GPUs with the same major version, PTX (`compute`) on all later GPUs.
    """
    for architecture in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", architecture)
        if found is None:
            continue
        kind, major, minor = found[1], int(found[2]), int(found[3])
        if capability >= (major, minor) and (kind == "compute" or capability[0] == major):
            return True
    return False


def _gpu_works() -> bool:
    return torch.cuda.is_available() and _has_code_for(0)


def _has_code_for(index: int) -> bool:
    architectures = torch.cuda.get_arch_list()
    return not architectures or runs_on(torch.cuda.get_device_capability(index), architectures)


def _no_code(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    built = f"torch {torch.__version__} has no code for GPUs of compute capability {major}.{minor}"
    return f"{built}; install a build of torch that has, or set device = 'cpu'"


def _why_unusable() -> str:
    if torch.cuda.is_available():
        return _no_code(0)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        version = torch.__version__.partition("+")[0]
        install = f".venv/bin/pip install --force-reinstall torch=={version}"
        return f"torch {torch.__version__} is built without CUDA; {install} from PyTorch's index for your CUDA"
    if hidden is not None:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides it; unset it"
    return f"torch {torch.__version__} is built for CUDA {torch.version.cuda}; {DRIVER_HINT}"
