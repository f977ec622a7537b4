"""Tensors on the simulated devices: what they say, and where their numbers lie."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from support.simulated_cuda.state import current
from support.simulated_cuda.streams import Memory, current_stream

NO_NUMBER = -(1 << 40)  # what integers hold until they are computed: no index and no token


class SimulatedTensor(Tensor):
    """A tensor that says `cuda:N`; `numbers` lie in the host's memory."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    numbers: Tensor
    memory: Memory

    @staticmethod
    def __new__(cls, numbers: Tensor, index: int, memory: Memory) -> Self:
        with torch.inference_mode(False):  # a view of an inference tensor could not be written to outside that mode
            made: Self = Tensor._make_wrapper_subclass(
                cls,
                numbers.shape,
                strides=numbers.stride(),
                storage_offset=numbers.storage_offset(),
                dtype=numbers.dtype,
                device=torch.device("cuda", index),
            )
        made.numbers, made.memory = numbers, memory
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        from support.simulated_cuda.operations import dispatch

        return dispatch(func, args, kwargs or {})

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"SimulatedTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    def __getitem__(self, index: Any) -> Tensor:
        from support.simulated_cuda.indexing import get

        return get(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        from support.simulated_cuda.indexing import put

        put(self, index, value)

    def copy_(self, source: Any, non_blocking: bool = False) -> Tensor:
        copied: Tensor = torch.ops.aten.copy_.default(self, source, non_blocking)
        return copied

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        laid_out: Tensor = torch.ops.aten.contiguous.default(self, memory_format=memory_format)
        return laid_out

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        found = torch.ops.aten.nonzero.default(self)
        return found.unbind(1) if as_tuple else found

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, dtype=dtype or self.dtype).to(self.device)

    def record_stream(self, stream: Any) -> None:
        self.memory.recorded.add(stream)

    def __invert__(self) -> Tensor:
        return self.bitwise_not()

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: object) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: object, **__: object) -> Any:
        return self.numpy()


@dataclass(frozen=True)
class Form:
    """What a tensor is but for its numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    @property
    def nbytes(self) -> int:
        if 0 in self.shape:
            return 0
        return self.dtype.itemsize * (1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)))

    def empty(self, device: str) -> Tensor:
        with torch.inference_mode(False):
            return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=device)


def not_yet_computed(form: Form) -> Tensor:
    """Return host memory for a tensor, filled with what no computation should meet."""
    made = form.empty("cpu")
    if made.is_floating_point() or made.is_complex():
        return made.fill_(math.nan)
    if made.dtype is torch.bool:
        return made.fill_(True)
    return made.fill_(NO_NUMBER if made.dtype is torch.int64 else torch.iinfo(made.dtype).max)


def on_device(form: Form, index: int, numbers: Tensor | None = None) -> SimulatedTensor:
    """Return a new tensor on a device, with memory from the thread's stream; without `numbers` it is not computed."""
    memory = Memory(current_stream(torch.device("cuda", index)), form.nbytes)
    return SimulatedTensor(not_yet_computed(form) if numbers is None else numbers, index, memory)


def numbers_of(value: Any) -> Any:
    return value.numbers if isinstance(value, SimulatedTensor) else value


def is_pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in current().pinned


def pin(tensor: Tensor) -> Tensor:
    """Note that the memory of `tensor`, which nothing else has, can be read and written by devices."""
    storage = tensor.untyped_storage()
    current().pinned[storage.data_ptr()] = storage
    return tensor
