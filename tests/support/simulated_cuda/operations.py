"""What an operation does on a simulated device: it joins the queue of a stream, or makes the host wait."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from support.simulated_cuda.attention import attention
from support.simulated_cuda.copies import copy_, to_copy
from support.simulated_cuda.state import current, device_index
from support.simulated_cuda.streams import Memory, current_stream
from support.simulated_cuda.tensors import Form, SimulatedTensor, numbers_of, on_device, pin
from support.simulated_cuda.tensors import is_pinned as pinned

aten = torch.ops.aten
META = torch.device("meta")
CPU = torch.device("cpu")
# What torch would compose of parts that fit a CPU alone, or a device alone.
WHOLE = {aten.lstm.input, aten.gru.input, aten.stft.default, aten.stft.center}
INDEXED = ("index.", "index_put", "_index_put")  # operations that take indices from the host


class Factories(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees operations that take no tensor, such as torch.zeros, and those on the host's tensors."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch's compiler, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, dict(kwargs or {}))


def factories() -> Factories:
    return Factories()  # type: ignore[no-untyped-call]


def dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    index = _device(func, args, kwargs)
    if index is None:
        return _on_host(func, args, kwargs)
    current().check(index)
    if func is aten.scaled_dot_product_attention.default:
        with factories():  # its mask is made anew
            return attention(index, *args, **kwargs)
    if _is_composite(func) and func not in WHOLE:
        with factories():  # what it is made of may make tensors
            return func.decompose(*args, **kwargs)
    if func is aten.copy_.default:
        return copy_(args[0], args[1], bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False)))
    if func is aten._to_copy.default:
        return to_copy(args[0], **kwargs)
    if func is aten.is_pinned.default:
        return False
    if func.is_view or func is aten._unsafe_view.default:
        return _viewed(func, index, args, kwargs)
    if torch.Tag.inplace_view in func.tags:
        return _reshaped(func, args, kwargs)
    if _waits(func, args):
        return _at_once(func, index, args, kwargs)
    return launch(func, index, args, kwargs)


def launch(func: Any, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put an operation into its stream's queue; return its outputs, which are not computed yet."""
    numbers, named = _each(lambda x: _operand(func, index, x), args, kwargs)
    _put_on(CPU, named)
    if _takes_generator(func):
        named["generator"] = current().generator
    stream, reads, writes = current_stream(torch.device("cuda", index)), *_memories(func, args, kwargs)
    if _written(func):
        stream.launch(_name(func), lambda: func(*numbers, **named), reads, writes)
        return _results(func, args, kwargs)
    forms = _forms_of_results(func, numbers, named)
    outputs = _map(lambda form: on_device(form, index), forms, Form)
    if _name(func).startswith(("empty", "new_empty")):
        return outputs
    made = list(_tensors((outputs,)))
    targets = [each.numbers for each in made]

    def work() -> None:
        for target, found in zip(targets, _tensors((func(*numbers, **named),)), strict=True):
            if found.numel() or not target.numel():  # the CPU leaves out what only training needs
                target.copy_(found)

    stream.launch(_name(func), work, reads, [each.memory for each in made])
    return outputs


def _device(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Return the device of an operation, None for the host. Raises RuntimeError for a mix of devices."""
    found = {x.memory.stream.device_index for x in _tensors((*args, *kwargs.values())) if type(x) is SimulatedTensor}
    if len(found) > 1 and func is not aten.copy_.default:
        raise RuntimeError(f"Expected all tensors to be on the same device, found {sorted(found)} ({_name(func)})")
    if found:
        return args[0].memory.stream.device_index if type(args[0]) is SimulatedTensor else found.pop()
    asked = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)), None)
    return device_index(asked) if asked is not None and asked.type == "cuda" else None


def _on_host(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do what the CPU does; memory is only said to be pinned."""
    if func in (aten.is_pinned.default, aten.pin_memory.default, aten._pin_memory.default):
        if func is aten.is_pinned.default or pinned(args[0]):
            return pinned(args[0]) if func is aten.is_pinned.default else args[0]
        return pin(args[0].clone())
    asked = kwargs.pop("pin_memory", None)
    found = func(*args, **kwargs)
    return pin(found) if asked else found


def _viewed(func: Any, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    numbers, named = _each(numbers_of, args, kwargs)
    memory = args[0].memory
    return _map(lambda found: SimulatedTensor(found, index, memory), func(*numbers, **named))


def _reshaped(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Give a tensor another shape in place, as `squeeze_` does; queued work keeps the numbers in the one before."""
    tensor = args[0]
    tensor.numbers = tensor.numbers.detach()
    func(tensor.numbers, *args[1:], **kwargs)
    with no_dispatch():  # what the tensor itself says
        func(*args, **kwargs)
    return tensor


def _waits(func: Any, args: tuple[Any, ...]) -> bool:
    """Say whether the host needs what the operation finds: a number, or a shape."""
    if _name(func).startswith(INDEXED):
        return any(isinstance(x, Tensor) and x.dtype is torch.bool for x in args[1] or ())
    return _depends_on_numbers(func)


def _at_once(func: Any, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    current().wait(_name(func), index)
    stream, reads, writes = current_stream(torch.device("cuda", index)), *_memories(func, args, kwargs)
    stream.launch(_name(func), lambda: None, reads, writes)
    stream.run()
    numbers, named = _each(numbers_of, args, kwargs)
    found = func(*numbers, **named)
    return args[0] if _written(func) else _map(lambda x: on_device(Form.of(x), index, x), found)


def _operand(func: Any, index: int, value: Any) -> Any:
    """Return the numbers of an argument. Raises RuntimeError for a tensor of the host."""
    if isinstance(value, SimulatedTensor):
        return value.numbers
    if value.dim() and _name(func).startswith(INDEXED):
        current().wait("indices on the CPU", index)
    elif value.dim():
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:{index} and cpu! "
            f"({_name(func)} of {tuple(value.shape)})"
        )
    return value.clone()  # it is read at the launch


_known_forms: dict[object, Any] = {}


def _forms_of_results(func: Any, numbers: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the forms of what an operation gives, which are found out once for each form of its arguments."""
    key = func, _key(numbers), tuple((name, _key(value)) for name, value in named.items() if name != "generator")
    if key not in _known_forms:
        numbers, named = _each(lambda x: Form.of(x).empty("meta"), numbers, named)
        _put_on(META, named)
        named.pop("generator", None)
        _known_forms[key] = _map(Form.of, func(*numbers, **named))
    return _known_forms[key]


def _key(value: Any) -> object:
    """Return what tells arguments apart; of a tensor its form, and of a number its type, too."""
    if isinstance(value, Tensor):
        return Form.of(value)
    return tuple(map(_key, value)) if type(value) in (list, tuple) else (type(value), value)


def _put_on(device: torch.device, named: dict[str, Any]) -> None:
    if "device" in named:
        named["device"] = device
    named.pop("pin_memory", None)


def _memories(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Memory], list[Memory]]:
    """Return the memory that an operation reads, and what it writes."""
    written = [x.memory for x in _tensors(_targets(func, args, kwargs)) if isinstance(x, SimulatedTensor)]
    taken = [x.memory for x in _tensors((*args, *kwargs.values())) if isinstance(x, SimulatedTensor)]
    return taken, written


def _targets(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments that an operation writes to."""
    return [args[place] if place < len(args) else kwargs.get(name) for place, name in _written(func)]


def _results(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    targets = _targets(func, args, kwargs)
    count = len(func._schema.returns)
    return None if count == 0 else targets[0] if count == 1 else tuple(targets)


@cache
def _written(func: Any) -> list[tuple[int, str]]:
    """Return the places and names of the arguments that an operation writes to."""
    named = enumerate(func._schema.arguments)
    return [(place, each.name) for place, each in named if each.alias_info is not None and each.alias_info.is_write]


@cache
def _depends_on_numbers(func: Any) -> bool:
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


@cache
def _takes_generator(func: Any) -> bool:
    return any(each.name == "generator" for each in func._schema.arguments)


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@cache
def _name(func: Any) -> str:
    return str(func).removeprefix("aten.").removesuffix(".default")


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)


def _map(change: Callable[[Any], Any], value: Any, kind: type = Tensor) -> Any:
    """Change what is of a kind in an argument or a result."""
    if isinstance(value, kind):
        return change(value)
    sequence = type(value)
    return sequence([_map(change, each, kind) for each in value]) if sequence in (list, tuple) else value


def _each(
    change: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Change the tensors of all arguments."""
    return tuple(_map(change, x) for x in args), {name: _map(change, x) for name, x in kwargs.items()}
