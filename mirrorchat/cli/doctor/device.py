"""The device as `mirrorchat doctor` sees it: what torch can use, what the driver shows, memory, the C++ libraries.

It runs as a process of its own: torch, and a GPU's driver, can crash or hang.
"""

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.cli.doctor.finding_process import Say, hand_over
from mirrorchat.cli.doctor.findings import Finding, ok, problem, warning
from mirrorchat.errors import ConfigurationError, MirrorChatError
from mirrorchat.hardware.gpu_driver import driver_gpus
from mirrorchat.hardware.host_memory import free_host_bytes
from mirrorchat.models.progress import size_text
from mirrorchat.settings import Settings, load_settings

_DEV = Path("/dev")
_CUDA_BUILD = "`.venv/bin/pip install --force-reinstall torch=={}` from an index that has the CUDA build, as PyPI does"
_BUILD = "`apt install g++`, then `rm -f .venv/installed; scripts/environment`"


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch sees; `fault` is what keeps it from computing, if anything."""

    name: str
    free_bytes: int
    total_bytes: int
    fault: str = ""


@dataclass(frozen=True)
class Torch:
    """What torch says of itself. `cuda` is the version that it was built for, or empty; `complaint` of the driver."""

    version: str
    cuda: str
    gpus: Sequence[Gpu]
    complaint: str = ""


def device_findings(say: Say) -> Iterator[Finding]:
    """Yield what there is to say of the device."""
    try:
        settings = load_settings()
    except MirrorChatError:  # which the section on the configuration says
        settings = Settings()
    say("asking NVIDIA's driver")
    shown = driver_gpus()
    yield memory_finding()
    if importlib.util.find_spec("torch") is None:
        yield ok("torch", "not installed: it comes with the models, and nothing runs on a GPU without it")
        yield from gpu_findings(settings.device, None, shown, os.environ)
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
            return Gpu(name, free_bytes, total_bytes, "it adds wrongly")
    except RuntimeError as error:  # out of memory, no code for this kind of GPU, a broken driver
        return Gpu(name, 0, 0, " ".join(str(error).split())[:200])
    return Gpu(name, free_bytes, total_bytes)


def gpu_findings(
    device: str, torch: Torch | None, shown: Sequence[str], environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield a finding for each GPU that torch sees, for those that it does not see, and for the setting `device`.

    `shown` are the GPUs of the driver; `environ` tells whether some are hidden on purpose.
    """
    gpus = torch.gpus if torch else ()
    for index, gpu in enumerate(gpus):
        yield _seen(f"GPU {index}", gpu)
    if len(shown) > len(gpus):
        yield _unseen(device, torch, shown, environ)
    number = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
    if number >= len(gpus):
        found = f"device is {device!r}, and torch can use {len(gpus)} GPUs"
        yield problem("device", found, "set device to auto, cpu, or a GPU that is there, in config.py", device=device)
        return
    used = device if device != "auto" else ("cuda" if gpus else "cpu")
    yield ok("device", f"{device}: models run on {'the CPU' if used == 'cpu' else used}", device=used)


def _seen(subject: str, gpu: Gpu) -> Finding:
    if gpu.fault:
        remedy = "update NVIDIA's driver, and install a torch that was built for this GPU; until then device = 'cpu'"
        return problem(subject, f"{gpu.name} cannot be used: {gpu.fault}", remedy)
    found = f"{gpu.name}, {size_text(gpu.free_bytes)} of {size_text(gpu.total_bytes)} free"
    return ok(subject, found, free_bytes=gpu.free_bytes, total_bytes=gpu.total_bytes)


def _unseen(device: str, torch: Torch | None, shown: Sequence[str], environ: Mapping[str, str]) -> Finding:
    """Say why torch does not see every GPU that the driver shows, and what to do."""
    seen = len(torch.gpus) if torch else 0
    found = f"the driver shows {', '.join(shown)}; torch can use {seen or 'none'}"
    if hidden := environ.get("CUDA_VISIBLE_DEVICES"):
        return ok("GPU", f"{found}: CUDA_VISIBLE_DEVICES={hidden} hides the others")
    if "CUDA_VISIBLE_DEVICES" in environ:
        return warning("GPU", f"{found}: CUDA_VISIBLE_DEVICES is empty", "`unset CUDA_VISIBLE_DEVICES`")
    if torch is None:
        return ok("GPU", f"the driver shows {', '.join(shown)}: used once torch and the models are installed")
    if seen:
        return warning("GPU", found, "`nvidia-smi` says more of the others: broken, or too old for torch")
    report = warning if device == "cpu" else problem
    if not torch.cuda:
        remedy = _CUDA_BUILD.format(torch.version.partition("+")[0])
        return report("GPU", f"{found}: torch {torch.version} is a build without CUDA", remedy)
    complaint = f": {torch.complaint}" if torch.complaint else ""
    if not any(_DEV.glob("nvidia[0-9]*")):
        remedy = "give the container its GPUs (docker run --gpus all), or load the driver (modprobe nvidia-uvm)"
        return report("GPU", f"{found}, and there is no /dev/nvidia0{complaint}", remedy)
    if not os.access(_DEV / "nvidiactl", os.R_OK | os.W_OK):
        remedy = "let the server's user read and write /dev/nvidia*: `usermod -a -G video,render USER`"
        return report("GPU", f"{found}, and /dev/nvidiactl cannot be opened{complaint}", remedy)
    remedy = (
        f"install a driver for CUDA {torch.cuda} or later, and start the machine again; `nvidia-smi` shows which it is"
    )
    return report("GPU", f"{found}, built for CUDA {torch.cuda}{complaint}", remedy)


def memory_finding(root: Path = Path("/")) -> Finding:
    """Return what processes can still take of the machine's memory, or of a container's."""
    free = free_host_bytes(root)
    return ok("memory", f"{size_text(free)} free", free_bytes=free)


def plan_findings(settings: Settings) -> Iterator[Finding]:
    """Yield whether the models that will be loaded fit into memory, where there are any."""
    try:
        from mirrorchat.startup.memory_plan import plan_memory
    except ImportError:  # a package is broken, which the section on packages says
        return
    try:
        plan = plan_memory(settings)
        plan.require_fit()
    except ConfigurationError as error:
        yield problem("models in memory", error.message, "change the settings that are named, in config.py")
        return
    lines = [line for line in plan.lines() if " needed, " in line]
    if not plan.parts:
        return
    found = "; ".join([*(line.removeprefix("memory on ") for line in lines), *plan.steps])
    if plan.steps:
        yield warning("models in memory", found, "free some memory, for what was stepped down to fit")
    else:
        yield ok("models in memory", found)


def native_findings() -> Iterator[Finding]:
    """Yield whether the libraries in C++ are there, or why not."""
    from mirrorchat.hardware import native

    if native.search_library():
        yield ok("search in C++", "loaded")
    else:
        yield warning("search in C++", "not compiled: Python searches, many times slower", _BUILD)
    import torch

    capabilities = torch.cpu.get_capabilities()
    lacking = {name: [need for need in needs if not capabilities.get(need)] for name, needs in native.VARIANTS}
    runnable = [name for name, lacks in lacking.items() if not lacks]
    loaded = next((name for name, _ in native.VARIANTS if native.variant(name)), "")
    if loaded and loaded == runnable[0]:
        yield ok("networks in C++", f"{loaded.removeprefix('_native_')} loaded", variant=loaded)
    elif not runnable:
        lacks = ", ".join(lacking[native.VARIANTS[-1][0]])
        yield ok("networks in C++", f"not for this CPU, which has no {lacks}: torch does the work", variant="")
    elif native.compiled(runnable[0]) is None:
        yield warning("networks in C++", f"{runnable[0].removeprefix('_native_')} is not compiled: slower", _BUILD)
    else:
        found = f"{runnable[0].removeprefix('_native_')} does not open: {loaded or 'torch'} does the work"
        remedy = "`rm -f .venv/installed; scripts/environment`; where AMX is kept from a virtual machine, from its host"
        yield warning("networks in C++", found, remedy, variant=loaded)


if __name__ == "__main__":
    hand_over("device", device_findings)
