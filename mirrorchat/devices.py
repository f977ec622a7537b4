"""Which device computes: what the setting `device` means to torch."""

import torch

from mirrorchat.errors import ConfigurationError


def is_gpu(name: str) -> bool:
    """Tell whether `auto`, `cpu`, `cuda` or `cuda:1` means a GPU, be it there or not."""
    return torch.cuda.is_available() if name == "auto" else name.startswith("cuda")


def usable_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu`, `cuda` or `cuda:1`. Raises ConfigurationError where torch cannot use it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device {name!r} is not one that torch knows") from error
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigurationError(f"device {name!r} cannot be used: torch {torch.__version__} finds {gpus} GPUs")
    return device
