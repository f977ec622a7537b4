"""Measures torch's own CPU kernels for matrix products with few rows, on the four matrices of XTTS's layers.

Each kernel computes the matrices of all layers in sequence, each with the output of the previous one, over more copies
than fit in the caches. The lower bound is the time to read the bytes of the kernel once.
"""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.side_process import Side
from benchmarks.xtts_sides import BANDWIDTH_BYTES, read_bandwidth

ROWS = (1, 8)
REPEATS = 5
MOST_COPIES = 8  # of the whole model; only tiny models would need more
# Without VNNI, fbgemm and oneDNN add pairs of products in 16 bits, which saturate. 7-bit weights prevent it.
LARGEST_FACTOR = 127 if torch.cpu._is_vnni_supported() else 63
GROUP = 32  # 4-bit weights that share a scale

Linear = Callable[[Tensor], Tensor]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """`prepare` makes a layer of a float32 weight (outputs, inputs). Its inputs and outputs have `dtype`."""

    name: str
    bytes_each: float  # weight
    prepare: Callable[[Tensor], Linear]
    dtype: torch.dtype = torch.float32


def _cast(weight: Tensor, dtype: torch.dtype) -> Linear:
    kept = weight.to(dtype, copy=True)
    return lambda x: F.linear(x, kept)


def _half(weight: Tensor) -> Linear:
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def _int8_dynamic(weight: Tensor, engine: str) -> Linear:
    """Return a layer with a weight scale per output. Inputs are quantized to 8 bits dynamically."""
    whole, scale = _whole(weight, LARGEST_FACTOR)
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    quantized = torch._make_per_channel_quantized_tensor(whole, scale, zeros, 0)
    usual = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    finally:
        torch.backends.quantized.engine = usual  # it is a setting of the whole process
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, False)


def _int8_pack(weight: Tensor, dtype: torch.dtype) -> Linear:
    whole, scale = _whole(weight, 127)
    kept = scale.to(dtype)
    return lambda x: torch.ops.aten._weight_int8pack_mm(x, whole, kept)


def _int4_pack(weight: Tensor, dtype: torch.dtype) -> Linear:
    """Return a layer with weights from 0 to 15 (zero point 8), and a scale per group."""
    outputs, inputs = weight.shape
    whole, scale = _whole(weight.reshape(-1, GROUP), 7)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu((whole.int() + 8).reshape(outputs, inputs), 1)
    by_group = scale.reshape(outputs, -1).t()
    scales = torch.stack([by_group, torch.zeros_like(by_group)], 2).to(dtype).contiguous()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales)


def _onednn(weight: Tensor) -> Linear:
    """Return a layer of oneDNN's 8-bit product. Its rows are quantized here, each with its own scale."""
    whole, scale = _whole(weight, LARGEST_FACTOR)
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    packed = torch.ops.onednn.qlinear_prepack(whole, [1, weight.shape[1]])

    def linear(x: Tensor) -> Tensor:
        unit = x.abs().amax(1, keepdim=True) / 127
        rounded = (x / unit).round_().to(torch.int8)
        return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
            rounded, 1.0, 0, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        ).mul_(unit)

    return linear


def _whole(weight: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Return `weight` as integers up to `largest`, and the scale of each row."""
    scale = weight.abs().amax(1) / largest
    return (weight / scale[:, None]).round().to(torch.int8), scale


KERNELS = (
    Kernel("float32 F.linear", 4, functools.partial(_cast, dtype=torch.float32)),
    Kernel("bfloat16 F.linear", 2, functools.partial(_cast, dtype=torch.bfloat16), torch.bfloat16),
    Kernel("float16 F.linear", 2, functools.partial(_cast, dtype=torch.float16), torch.float16),
    Kernel("linear_dynamic_fp16", 2, _half),
    Kernel("linear_dynamic int8, x86", 1, functools.partial(_int8_dynamic, engine="x86")),
    Kernel("linear_dynamic int8, onednn", 1, functools.partial(_int8_dynamic, engine="onednn")),
    Kernel("onednn.qlinear_pointwise int8", 1, _onednn),
    Kernel("_weight_int8pack_mm, bfloat16", 1, functools.partial(_int8_pack, dtype=torch.bfloat16), torch.bfloat16),
    Kernel("_weight_int8pack_mm, float32", 1, functools.partial(_int8_pack, dtype=torch.float32)),
    Kernel(
        f"_weight_int4pack_mm_for_cpu, groups of {GROUP}, bfloat16",
        0.5 + 4 / GROUP,  # a scale and a zero point per group
        functools.partial(_int4_pack, dtype=torch.bfloat16),
        torch.bfloat16,
    ),
    Kernel(
        f"_weight_int4pack_mm_for_cpu, groups of {GROUP}, float32",
        0.5 + 8 / GROUP,
        functools.partial(_int4_pack, dtype=torch.float32),
    ),
)


class Bench:
    """The random matrices of one layer of `width`."""

    def __init__(self, width: int, layers: int) -> None:
        self._width, self._layers = width, layers
        generator = torch.Generator().manual_seed(0)
        shapes = ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width))
        self._weights = [torch.randn(shape, generator=generator) * shape[1] ** -0.5 for shape in shapes]
        self._inputs = {inputs: torch.randn(8, inputs, generator=generator) for inputs in (width, 4 * width)}

    def bandwidth(self) -> float:
        return read_bandwidth()

    @torch.inference_mode()
    def measure(self, name: str) -> Figures:
        """Return the error, bytes and seconds by rows of a kernel over all layers, or the reason why it is missing."""
        kernel = next(kernel for kernel in KERNELS if kernel.name == name)
        layer_bytes = kernel.bytes_each * sum(weight.numel() for weight in self._weights)
        copies = min(math.ceil(BANDWIDTH_BYTES / layer_bytes), MOST_COPIES * self._layers)
        try:
            error = self._error(kernel)
            layers = [[kernel.prepare(w) for w in self._weights] for _ in range(max(self._layers, copies))]
            seconds = {rows: self._seconds(kernel, layers, rows) for rows in ROWS}
        except (AttributeError, RuntimeError) as problem:  # this torch or this CPU lacks it
            return {"missing": str(problem).splitlines()[0]}
        return {"bytes": layer_bytes * self._layers, "error": error, "seconds": seconds}

    def _error(self, kernel: Kernel) -> float:
        """Return the largest relative error of the four products."""
        errors = []
        for weight in self._weights:
            x = self._inputs[weight.shape[1]]
            expected = F.linear(x, weight)
            found = kernel.prepare(weight)(x.to(kernel.dtype)).float()
            errors.append(float((found - expected).norm() / expected.norm()))
        return max(errors)

    def _seconds(self, kernel: Kernel, layers: list[list[Linear]], rows: int) -> float:
        """Return the shortest time of all layers. Each has the same inputs, which keeps numbers in range."""
        x = self._inputs[self._width][:rows].to(kernel.dtype).contiguous()
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            for qkv, out, widen, narrow in layers:
                attended = qkv(x)[:, : self._width].contiguous()  # instead of attention
                narrow(widen(out(attended)))
            times.append(time.perf_counter() - start)
        return min(times) * self._layers / len(layers)


def measure_kernels(threads: int, width: int, layers: int) -> list[Figures]:
    """Print and return a row for each kernel: its milliseconds, and their ratio to the lower bound."""
    measured, bandwidth = {}, 0.0
    with Side("kernels", threads, Bench, width, layers) as side:
        for kernel in KERNELS:
            bandwidth = max(bandwidth, side.ask(Bench.bandwidth))
            measured[kernel.name] = side.ask(Bench.measure, kernel.name)
    return [_row(name, each, bandwidth) for name, each in measured.items()]  # one bound for all


def _row(name: str, measured: Figures, bandwidth: float) -> Figures:
    if "missing" in measured:
        print(f"kernel {name}: missing ({measured['missing']})", flush=True)
        return {"name": name, **measured}
    floor_s = measured["bytes"] / bandwidth
    times = {rows: (seconds * 1e3, seconds / floor_s) for rows, seconds in measured["seconds"].items()}
    shown = ", ".join(f"{rows} rows {ms:.1f} ms ({ratio:.2f}x)" for rows, (ms, ratio) in times.items())
    print(f"kernel {name}: {shown}, floor {floor_s * 1e3:.1f} ms, error {measured['error']:.1e}", flush=True)
    return {
        "name": name,
        "ms": {str(rows): ms for rows, (ms, _) in times.items()},
        "vs_floor": {str(rows): ratio for rows, (_, ratio) in times.items()},
        "floor_ms": floor_s * 1e3,
        "error": measured["error"],
    }
