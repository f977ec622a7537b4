"""Checks the device for `mirrorchat doctor`: the GPUs of torch and of the driver, memory, and the C++ libraries.

It runs in a separate process: torch and a GPU's driver can crash or hang.
"""

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.cli.doctor.finding_process import Say
from mirrorchat.cli.doctor.findings import Finding, ok, problem, warning
from mirrorchat.errors import ConfigurationError, MirrorChatError
from mirrorchat.hardware.gpu_driver import DriverGpu, nvidia_gpus
from mirrorchat.hardware.host_memory import free_host_bytes
from mirrorchat.hardware.torch_build import remedy
from mirrorchat.models.progress import size_text
from mirrorchat.settings import Settings, load_settings

_DEV = Path("/dev")
_BUILD = "`sudo apt install g++ && rm -f .venv/installed && scripts/environment`"


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch detects. `fault` is the reason why it cannot compute, or empty."""

    name: str
    free_bytes: int
    total_bytes: int
    fault: str = ""


@dataclass(frozen=True)
class Torch:
    """A torch installation. `cuda` is the version of its CUDA build, or empty; `complaint` is about the driver."""

    version: str
    cuda: str
    gpus: Sequence[Gpu]
    complaint: str = ""


def findings(say: Say) -> Iterator[Finding]:
    """Yield the findings about memory, torch, GPUs, models and libraries."""
    try:
        settings = load_settings()
    except MirrorChatError:  # the section on the configuration reports it
        settings = Settings()
    say("asking NVIDIA's driver")
    shown = nvidia_gpus()
    yield memory_finding()
    if importlib.util.find_spec("torch") is None:
        yield ok("torch", "not installed: it is installed with the models, and GPUs need it")
        yield from gpu_findings(settings.device, None, shown, os.environ)
        yield from plan_findings(settings)
        return
    say("loading torch")
    torch = _torch()
    yield ok("torch", f"{torch.version}, {f'for CUDA {torch.cuda}' if torch.cuda else 'without CUDA'}", cuda=torch.cuda)
    yield from gpu_findings(settings.device, torch, shown, os.environ)
    say("reading the sizes of the models")
    yield from plan_findings(settings)
    say("opening the C++ libraries")
    yield from native_findings()


def _torch() -> Torch:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    complaint = " ".join(str(caught[0].message).split())[:200] if caught else ""
    return Torch(torch.__version__, torch.version.cuda or "", [_gpu(index) for index in range(count)], complaint)


def _gpu(index: int) -> Gpu:
    import torch

    name = torch.cuda.get_device_name(index)
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        if torch.ones(8, device=f"cuda:{index}").sum().item() != 8:
            return Gpu(name, free_bytes, total_bytes, "its sums are wrong")
    except RuntimeError as error:  # out of memory, no code for this kind of GPU, a broken driver
        return Gpu(name, 0, 0, " ".join(str(error).split())[:200])
    return Gpu(name, free_bytes, total_bytes)


def gpu_findings(
    device: str, torch: Torch | None, shown: Sequence[DriverGpu], environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield a finding for each GPU that torch detects, for undetected ones, and for the setting `device`.

    `shown` are the GPUs that the driver shows; `environ` may hide some on purpose.
    """
    gpus = torch.gpus if torch else ()
    if torch:
        yield from (_detected(f"GPU {index}", gpu, torch, shown) for index, gpu in enumerate(gpus))
    if len(shown) > len(gpus):
        yield _undetected(device, torch, shown, environ)
    number = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
    if number >= len(gpus):
        found = f"device is {device!r}, and torch can use {len(gpus)} GPUs"
        yield problem("device", found, "set device in config.py to auto, cpu, or an existing GPU", device=device)
        return
    used = device if device != "auto" else ("cuda" if gpus else "cpu")
    yield ok("device", f"{device}: models run on {'the CPU' if used == 'cpu' else used}", device=used)


def _detected(subject: str, gpu: Gpu, torch: Torch, shown: Sequence[DriverGpu]) -> Finding:
    if gpu.fault:
        same = [each for each in shown if each.name == gpu.name] or [DriverGpu(gpu.name)]
        advice = f"{remedy(same, torch.version, torch.cuda)}; until then set device = 'cpu'"
        return problem(subject, f"{gpu.name} cannot be used: {gpu.fault}", advice)
    found = f"{gpu.name}, {size_text(gpu.free_bytes)} of {size_text(gpu.total_bytes)} free"
    return ok(subject, found, free_bytes=gpu.free_bytes, total_bytes=gpu.total_bytes)


def _undetected(device: str, torch: Torch | None, shown: Sequence[DriverGpu], environ: Mapping[str, str]) -> Finding:
    """Return the reason why torch does not detect every GPU of the driver, and its remedy."""
    seen = len(torch.gpus) if torch else 0
    names = ", ".join(gpu.name for gpu in shown)
    found = f"the driver shows {names}; torch can use {seen or 'none'}"
    if hidden := environ.get("CUDA_VISIBLE_DEVICES"):
        return ok("GPU", f"{found}: CUDA_VISIBLE_DEVICES={hidden} hides the others")
    if "CUDA_VISIBLE_DEVICES" in environ:
        return warning("GPU", f"{found}: CUDA_VISIBLE_DEVICES is empty", "`unset CUDA_VISIBLE_DEVICES`")
    if torch is None:
        return ok("GPU", f"the driver shows {names}: to use them, `scripts/serve --models`")
    if seen:
        return warning("GPU", found, "`nvidia-smi`: the other GPUs are broken, or too old for torch")
    report = warning if device == "cpu" else problem
    advice = remedy(shown, torch.version, torch.cuda)
    if not torch.cuda:
        return report("GPU", f"{found}: torch {torch.version} is a build without CUDA", advice)
    complaint = f": {torch.complaint}" if torch.complaint else ""
    if not any(_DEV.glob("nvidia[0-9]*")):
        advice = "`sudo modprobe nvidia-uvm`; in a container, `docker run --gpus all`"
        return report("GPU", f"{found}, and there is no /dev/nvidia0{complaint}", advice)
    if not os.access(_DEV / "nvidiactl", os.R_OK | os.W_OK):
        advice = "`sudo usermod -a -G video,render $USER` as the server's user, and log in again"
        return report("GPU", f"{found}, and /dev/nvidiactl cannot be opened{complaint}", advice)
    return report("GPU", f"{found}, built for CUDA {torch.cuda}{complaint}", advice)


def memory_finding(root: Path = Path("/")) -> Finding:
    """Return the free memory of this computer or container."""
    free = free_host_bytes(root)
    return ok("memory", f"{size_text(free)} free", free_bytes=free)


def plan_findings(settings: Settings) -> Iterator[Finding]:
    """Yield whether the models to load fit into memory, if there are any."""
    try:
        from mirrorchat.startup.memory_plan import plan_memory
    except ImportError:  # the section on packages reports broken ones
        return
    try:
        plan = plan_memory(settings)
        plan.require_fit()
    except ConfigurationError as error:
        yield problem("models in memory", error.message, "change the named settings in config.py")
        return
    lines = [line for line in plan.lines() if " needed, " in line]
    if not plan.parts:
        return
    found = "; ".join([*(line.removeprefix("memory on ") for line in lines), *plan.steps])
    if plan.steps:
        yield warning("models in memory", found, "free memory to avoid these reductions")
    else:
        yield ok("models in memory", found)


def native_findings() -> Iterator[Finding]:
    """Yield whether the C++ libraries are loaded, or the reason why not."""
    from mirrorchat.hardware import native

    if native.search_library():
        yield ok("search in C++", "loaded")
    else:
        yield warning("search in C++", "not compiled: the search in Python is many times slower", _BUILD)
    import torch

    capabilities = torch.cpu.get_capabilities()
    lacking = {name: [need for need in needs if not capabilities.get(need)] for name, needs in native.VARIANTS}
    runnable = [name for name, lacks in lacking.items() if not lacks]
    loaded = next((name for name, _ in native.VARIANTS if native.variant(name)), "")
    if loaded and loaded == runnable[0]:
        yield ok("networks in C++", f"{loaded.removeprefix('_native_')} loaded", variant=loaded)
    elif not runnable:
        lacks = ", ".join(lacking[native.VARIANTS[-1][0]])
        yield ok("networks in C++", f"this CPU has no {lacks}: torch computes instead", variant="")
    elif native.compiled(runnable[0]) is None:
        yield warning("networks in C++", f"{runnable[0].removeprefix('_native_')} is not compiled: slower", _BUILD)
    else:
        found = f"{runnable[0].removeprefix('_native_')} does not load: {loaded or 'torch'} computes instead"
        remedy = "`rm -f .venv/installed && scripts/environment`; in a virtual machine, the host must expose AMX"
        yield warning("networks in C++", found, remedy, variant=loaded)
