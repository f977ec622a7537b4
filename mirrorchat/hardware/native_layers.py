"""Layers of the C++ networks: linear layers in planes of 8-bit numbers (native/linear.h), and norms."""

import ctypes
import mmap

import torch
from torch import Tensor

from mirrorchat.hardware import native

STRIP = 32  # outputs that are packed together with one plane; with two planes half as many
DEPTH = 64  # the number of inputs is a multiple of it

Pointer = ctypes.c_void_p
Int = ctypes.c_int64


class LinearFields(ctypes.Structure):
    """A packed layer: `Linear` of native/linear.h."""

    _fields_ = [
        *((name, Int) for name in ("inputs", "outputs", "planes")),
        *((name, Pointer) for name in ("packed", "scales", "totals", "bias")),
    ]


class NormFields(ctypes.Structure):
    """A layer normalization: `Norm` of native/norm.h."""

    _fields_ = [("weight", Pointer), ("bias", Pointer), ("eps", ctypes.c_double)]


class PackedLinears:
    """Linear layers in `planes` planes of 8-bit numbers.

    Their weights fill one block of `room` bytes in order; `used` bytes are taken. The block has huge pages if the
    system supports them.
    """

    def __init__(self, library: native.Library, team: native.Team, *, planes: int, room: int) -> None:
        self._library, self._team, self._planes = library, team, planes
        memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._room = torch.frombuffer(memory, dtype=torch.int8)
        self._kept: list[Tensor] = []
        self.used = 0

    @staticmethod
    def room_for(inputs: int, outputs: int, planes: int) -> int:
        """Return the bytes of the packed weights of one layer."""
        return planes * inputs * _padded(outputs, planes)

    def add(self, weight: Tensor, bias: Tensor) -> LinearFields:
        """Pack `weight`, shape (inputs, outputs), and `bias`, shape (outputs,), both float32.

        The outputs are padded to whole strips.

        Raises ValueError if the number of inputs is no multiple of 64 or the room is too small.
        """
        inputs, outputs = weight.shape
        size = self.room_for(inputs, outputs, self._planes)
        if inputs % DEPTH or self.used + size > len(self._room):
            raise ValueError(f"a layer of {inputs} inputs and {outputs} outputs cannot be packed")
        packed = self._room[self.used : self.used + size]
        self.used += size
        padded = _padded(outputs, self._planes)
        scales, totals = torch.empty(padded), torch.empty(self._planes, padded, dtype=torch.int32)
        added = torch.nn.functional.pad(bias, (0, padded - outputs))
        matrix = weight.contiguous()
        self._kept += [scales, totals, added]
        self._library.functions.gpt_pack(
            Pointer(self._team.pointer),
            at(matrix),
            *map(Int, (inputs, outputs, padded, self._planes)),
            *map(at, (packed, scales, totals)),
        )
        return LinearFields(inputs, padded, self._planes, *(t.data_ptr() for t in (packed, scales, totals, added)))

    def multiply(self, linear: LinearFields, x: Tensor) -> Tensor:
        """Return `x`, shape (n, inputs), times the layer's weights plus its bias: (n, padded outputs), float32."""
        out = torch.empty(len(x), linear.outputs)
        rows = x.contiguous()
        self._library.functions.gpt_linear(
            Pointer(self._team.pointer), ctypes.byref(linear), at(rows), Int(len(x)), at(out)
        )
        return out


def at(tensor: Tensor) -> ctypes.c_void_p:
    """Return the address of the first element of `tensor`, for a call into C++."""
    return Pointer(tensor.data_ptr())


def _padded(outputs: int, planes: int) -> int:
    strip = STRIP // planes
    return -(-outputs // strip) * strip
