"""The generator of HiFi-GAN in C++ (native/vocoder.cpp), for CPUs with AMX, several times as fast as `generator`.

The sum of each sample has the same order at any position of a window, so the cuts of an utterance do not change a bit.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirrorchat.hardware.native import Library, Team
from mirrorchat.xtts.generator import Window


class _Layer(ctypes.Structure):
    """`LayerSpec` in native/vocoder.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "kernel", "stride", "dilation", "padding")),
    )


class NativeGenerator:
    """The generator `module` with computed weight norms, on `threads` threads. It shares no memory with `module`.

    Sums are float32. With `dtype` float32, each input and weight is rounded to two bfloat16 numbers, a high and a low
    part (16 of 24 bits); with bfloat16, to one. Several threads may use it; one computes at a time.
    """

    def __init__(self, module: Any, dtype: torch.dtype, library: Library, threads: int) -> None:
        _declare(library.functions)
        self._functions = library.functions
        self._team = Team(library, threads)
        self._pointer = self._create(module, exact=dtype == torch.float32)
        self.hop = math.prod(int(up.stride[0]) for up in module.ups)
        layers = [module.cond_layer, *module.conds]
        self._condition_layers = [(each.weight.detach().clone(), each.bias.detach().clone()) for each in layers]

    def __del__(self) -> None:
        if hasattr(self, "_pointer"):
            self._functions.vocoder_destroy(self._pointer)

    def context(self) -> int:
        """Return the number of frames on either side that the samples of a frame depend on: 13 in XTTS v2."""
        return int(self._functions.vocoder_context(self._pointer))

    def condition(self, embedding: Tensor) -> list[Tensor]:
        """Return the conditioning of all layers for a speaker `embedding` (1, 512, 1), as one 1-D tensor."""
        return [torch.cat([F.conv1d(embedding, *layer).flatten() for layer in self._condition_layers])]

    def samples(self, windows: Sequence[Window]) -> list[Tensor]:
        """Return the samples of the kept frames of each window, 1-D float32. Raises MemoryError."""
        return [self._samples(window) for window in windows]

    def _samples(self, window: Window) -> Tensor:
        frames, condition = window.frames.contiguous(), window.conditions[0]
        samples = torch.empty(window.kept * self.hop)
        end = window.skipped + window.kept
        place = (frames.data_ptr(), len(frames), window.skipped, end, condition.data_ptr(), samples.data_ptr())
        if self._functions.vocoder_run(self._pointer, self._team.pointer, *place) != 0:
            raise MemoryError("too little memory for a window of the vocoder")
        return samples

    def _create(self, module: Any, *, exact: bool) -> int:
        """Return a pointer to the C++ object, which copies the weights."""
        tensors: list[Tensor] = []  # alive until they are copied
        layers = [_layer(each, tensors) for each in _layers(module)]
        blocks = len(module.resblocks) // len(module.ups)
        counts = (len(module.ups), blocks, len(module.resblocks[0].convs1))
        array = (_Layer * len(layers))(*layers)
        pointer: int | None = self._functions.vocoder_create(array, *counts, int(exact), self._team.pointer)
        if pointer is None:
            raise MemoryError("too little memory for the vocoder's weights")
        return pointer


def _layers(module: Any) -> Iterator[nn.Module]:
    """Yield the convolutions in the order of their computation."""
    count = len(module.resblocks) // len(module.ups)
    yield module.conv_pre
    for index, up in enumerate(module.ups):
        yield up
        for block in module.resblocks[index * count : (index + 1) * count]:
            for first, second in zip(block.convs1, block.convs2, strict=True):
                yield first
                yield second
    yield module.conv_post


def _layer(module: Any, tensors: list[Tensor]) -> _Layer:
    """Return the description of a convolution, which points to tensors that are appended to `tensors`.

    Raises ValueError for a convolution that does not make `stride` outputs of each input.
    """
    kernel, stride, dilation = module.kernel_size[0], module.stride[0], module.dilation[0]
    if 2 * int(module.padding[0]) != dilation * (kernel - 1) - (stride - 1):
        raise ValueError(f"the vocoder has an unknown kind of convolution: {module}")
    pointers = []
    for tensor in (module.weight, module.bias):  # reading the weight computes the weight norm
        if tensor is not None:
            tensors.append(tensor.detach().to("cpu", torch.float32).contiguous())
        pointers.append(None if tensor is None else tensors[-1].data_ptr())
    sizes = (module.in_channels, module.out_channels, kernel, stride, dilation, int(module.padding[0]))
    return _Layer(*pointers, *sizes)


def _declare(functions: ctypes.CDLL) -> None:
    """Tell ctypes the argument and result types of the functions."""
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    functions.vocoder_create.restype = pointer
    functions.vocoder_create.argtypes = [ctypes.POINTER(_Layer), count, count, count, ctypes.c_int, pointer]
    functions.vocoder_destroy.restype = None
    functions.vocoder_destroy.argtypes = [pointer]
    functions.vocoder_context.restype = count
    functions.vocoder_context.argtypes = [pointer]
    functions.vocoder_run.argtypes = [pointer, pointer, pointer, count, count, count, pointer, pointer]
