"""What makes torch see simulated devices, in the thread that installs them and in all that start after it."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from support.simulated_cuda import graphs, streams
from support.simulated_cuda.operations import factories
from support.simulated_cuda.state import Gpu, SimulatedCuda, current, device_index, set_current
from support.simulated_cuda.tensors import pin

_installed: list[ExitStack] = []


class _Names(TorchFunctionMode):
    """Gives `cuda` its number, and makes tensors of Python's numbers: C++ would ask CUDA for both."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0].to(torch.device("cuda", device_index(*args[1:])))
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], int):
            return args[0].to(torch.device("cuda", args[1]), *args[2:], **kwargs)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _numbered(kwargs["device"])}
        if func in (torch.tensor, torch.as_tensor):
            return _made(func, args, kwargs)
        if func is not torch.device:
            args = [_numbered(each) if type(each) in (str, torch.device) else each for each in args]
        return func(*args, **kwargs)


def _numbered(device: Any) -> Any:
    """Return a device with its number, which is the thread's own one where there is none."""
    if isinstance(device, int):
        return torch.device("cuda", device)
    return torch.device("cuda", current().thread.device) if str(device) == "cuda" else device


def _made(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Make a tensor in the host's memory, and only then pin it or copy it to a device."""
    options = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory")}
    made = func(*args, **options)
    if kwargs.get("device") is not None:
        return made.to(kwargs["device"])
    return pin(made) if kwargs.get("pin_memory") else made


def install(*gpus: Gpu) -> SimulatedCuda:
    """Let torch see `gpus`, two of the usual ones if none are given."""
    set_current(SimulatedCuda(list(gpus) or [Gpu(), Gpu()]))
    _install()
    return current()


def uninstall() -> None:
    """Take the devices away that were installed last. Threads that still compute on them go on doing so."""
    _installed.pop().close()


def _install() -> None:
    stack = ExitStack()
    _installed.append(stack)
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else a module keeps its own tensor objects
    stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
    stack.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)  # tests compute little at a time, and several processes of them share the cores
    for owner, name, value in _replacements():
        _replace(stack, owner, name, value)
    stack.enter_context(torch.no_grad())  # gradients would need a device that C++ knows
    stack.enter_context(_Names())
    stack.enter_context(factories())


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    missing = object()
    before = owner.__dict__.get(name, missing)
    setattr(owner, name, value)
    if before is missing:
        stack.callback(delattr, owner, name)
    else:
        stack.callback(setattr, owner, name, before)


def _replacements() -> list[tuple[Any, str, Any]]:
    run = threading.Thread.run

    def run_on_devices(self: threading.Thread) -> None:
        with torch.no_grad(), _Names(), factories():
            run(self)

    functions = {**_device_functions(), **_memory_functions()}
    return [
        (threading.Thread, "run", run_on_devices),
        (torch._C, "_host_emptyCache", lambda: None),
        (torch.backends.cudnn, "is_acceptable", lambda tensor: False),
        (torch.cuda.graph, "default_capture_stream", None),
        *((torch.cuda, name, function) for name, function in functions.items()),
    ]


def _device_functions() -> dict[str, Any]:
    return {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_available": lambda: bool(current().gpus),
        "is_initialized": lambda: True,
        "device_count": lambda: len(current().gpus),
        "current_device": lambda: current().thread.device,
        "set_device": streams.set_device,
        "device": streams.DeviceContext,
        "Stream": streams.Stream,
        "Event": streams.Event,
        "stream": streams.StreamContext,
        "set_stream": streams.set_stream,
        "current_stream": streams.current_stream,
        "default_stream": streams.default_stream,
        "synchronize": streams.synchronize,
        "CUDAGraph": graphs.CUDAGraph,
        "graph_pool_handle": graphs.graph_pool_handle,
        "is_current_stream_capturing": lambda: streams.current_stream().graph is not None,
        "set_sync_debug_mode": lambda mode: setattr(current(), "synchronizing", mode),
        "get_sync_debug_mode": lambda: ["default", "warn", "error"].index(current().synchronizing),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_arch_list": lambda: list(current().architectures),
        "get_device_capability": lambda device=None: _gpu(device).capability,
        "get_device_name": lambda device=None: _gpu(device).name,
        "get_device_properties": _properties,
        "is_bf16_supported": lambda including_emulation=True: including_emulation or _gpu(None).capability >= (8, 0),
    }


def _memory_functions() -> dict[str, Any]:
    return {
        "mem_get_info": lambda device=None: (_gpu(device).free_bytes, _gpu(device).total_bytes),
        "empty_cache": _empty_cache,
        "memory_allocated": lambda device=None: _gpu(device).allocator.allocated,
        "memory_reserved": lambda device=None: _gpu(device).allocator.reserved,
        "max_memory_allocated": lambda device=None: _gpu(device).allocator.peak_allocated,
        "max_memory_reserved": lambda device=None: _gpu(device).allocator.peak_reserved,
        "reset_peak_memory_stats": lambda device=None: _gpu(device).allocator.reset_peaks(),
        "set_per_process_memory_fraction": _set_fraction,
    }


def _gpu(device: object) -> Gpu:
    cuda, index = current(), device_index(device)
    cuda.check(index)
    cuda.gpus[index].allocator.settle()
    return cuda.gpus[index]


def _empty_cache() -> None:
    for gpu in current().gpus:
        gpu.allocator.empty_cache()


def _set_fraction(fraction: float, device: object = None) -> None:
    _gpu(device).fraction = fraction


def _properties(device: object = None) -> SimpleNamespace:
    gpu = _gpu(device)
    major, minor = gpu.capability
    return SimpleNamespace(
        name=gpu.name,
        major=major,
        minor=minor,
        total_memory=gpu.total_bytes,
        multi_processor_count=gpu.multi_processor_count,
    )
