"""The device of the setting `device`: what torch uses, its free memory, and why a GPU is not used."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.gpu_driver import DriverGpu, nvidia_gpus
from mirrorchat.hardware.host_memory import free_host_bytes
from mirrorchat.hardware.torch_build import remedy

SPEECH_PRIORITY = -1  # of CUDA streams: a GPU begins their work before that of usual ones, 0


def is_gpu(name: str) -> bool:
    """Return whether `auto`, `cpu`, `cuda` or `cuda:1` means a GPU, whether or not it exists."""
    return _first_gpu() is not None if name == "auto" else name.startswith("cuda")


def usable_device(name: str) -> torch.device:
    """Return the torch device for `auto`, `cpu`, `cuda` or `cuda:1`; a GPU with its index.

    `auto` is the first GPU that torch has code for, else the CPU. Raises ConfigurationError if torch cannot use the
    device. If NVIDIA's driver shows a GPU, the message says what to do.
    """
    if name == "auto":
        first = _first_gpu()
        return torch.device("cpu") if first is None else torch.device("cuda", first)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device {name!r} is not one that torch knows") from error
    if device.type != "cuda":
        return device
    index, gpus = device.index or 0, torch.cuda.device_count()
    if index >= gpus:
        trouble = gpu_trouble()
        found = f"device {name!r} cannot be used: torch {torch.__version__} finds {gpus} GPUs"
        raise ConfigurationError(f"{found}; {trouble}" if trouble else found)
    if not _has_code_for(index):
        raise ConfigurationError(f"device {name!r} cannot be used: {_no_code(index, nvidia_gpus())}")
    return torch.device("cuda", index)


def gpu_weights(device: torch.device) -> str:
    """Return the weights with which the GPU `device` computes fastest: `bf16`, `fp16` or `fp16w`.

    From compute capability 8.0 on, GPUs multiply bfloat16 in hardware; those of 7.x only float16. Most earlier ones
    compute in float16 far slower than in float32: they keep 16 bits of each weight and compute in float32 (`fp16w`).
    """
    major, _ = torch.cuda.get_device_capability(device)
    return "bf16" if major >= 8 else "fp16" if major == 7 else "fp16w"


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which `device` is the thread's current one: torch makes streams and captures on that."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def urgent_stream(device: torch.device) -> Iterator[None]:
    """Compute on a stream of speech, after all that was launched on `device` before."""
    if device.type != "cuda":
        yield
        return
    with current_device(device):
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream(device, priority=SPEECH_PRIORITY)):  # type: ignore[no-untyped-call]
            yield


def uploaded(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor`, which is on the CPU, on `device`. The host does not wait for the copy to a GPU."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # from other memory the host would wait


def free_bytes(name: str) -> int:
    """Return the free bytes of the device `cpu`, `cuda` or `cuda:1`; a GPU's are those that its driver states."""
    return free_host_bytes() if name == "cpu" else torch.cuda.mem_get_info(name)[0]


def gpu_trouble() -> str:
    """Return why torch cannot use a GPU that NVIDIA's driver shows, and what to do; "" if nothing is wrong."""
    if _first_gpu() is not None:
        return ""
    # In a container torch can see a GPU without the driver's own program and files.
    shown = nvidia_gpus() or [DriverGpu(torch.cuda.get_device_name(index)) for index in _visible_gpus()]
    names = ", ".join(gpu.name for gpu in shown)
    return f"NVIDIA's driver shows {names}, which torch cannot use: {_why_unusable(shown)}" if shown else ""


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Return whether torch, built for `architectures` (`sm_80`, `compute_90`), has code for a GPU of `capability`.

    Binary code (`sm`) runs on later GPUs with the same major version, PTX (`compute`) on all later GPUs. With an `f` at
    its end PTX is as bound as binary code, and code with an `a` runs on GPUs of just this capability.
    """
    for architecture in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d{1,3})(\d)([af]?)", architecture)
        if found is None:
            continue
        built, suffix = (int(found[2]), int(found[3])), found[4]
        any_later = found[1] == "compute" and not suffix
        if capability == built or (suffix != "a" and capability > built and (any_later or capability[0] == built[0])):
            return True
    return False


def _visible_gpus() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _first_gpu() -> int | None:
    """Return the index of the first GPU that torch sees and has code for, None if there is none."""
    return next(filter(_has_code_for, _visible_gpus()), None)


def _has_code_for(index: int) -> bool:
    architectures = torch.cuda.get_arch_list()
    return not architectures or runs_on(torch.cuda.get_device_capability(index), architectures)


def _no_code(index: int, shown: Sequence[DriverGpu]) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    built = f"torch {torch.__version__} has no code for GPUs of compute capability {major}.{minor}"
    driver = next((gpu.driver for gpu in shown), "")
    return f"{built}; {_remedy([DriverGpu(f'GPU {index}', driver, (major, minor))])}"


def _why_unusable(shown: Sequence[DriverGpu]) -> str:
    if torch.cuda.is_available():
        return _no_code(0, shown)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; {_remedy(shown)}"
    if hidden is not None:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides it; `unset CUDA_VISIBLE_DEVICES`"
    return f"torch {torch.__version__} is built for CUDA {torch.version.cuda}; {_remedy(shown)}"


def _remedy(gpus: Sequence[DriverGpu]) -> str:
    return remedy(gpus, torch.__version__, torch.version.cuda or "")
