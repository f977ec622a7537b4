"""XTTS's matrix products with weights kept in fewer bits: what bounds decoding is how many bytes a token reads.

On a CPU the weights are whole numbers in one or two planes of 8 bits, multiplied exactly (in 32 bits) by oneDNN with
AVX512-VNNI or AMX. Two planes keep 16 bits of each weight, `w = scale * (high + low / 254)`; one plane keeps 8. The
activations always have two planes, scaled for each row by itself: the second costs nothing while the weights' bytes
are what is waited for. As the sums are exact and no row's scale depends on another, a row's result is the same to the
last bit in whatever batch it is computed.
"""

import enum
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.errors import ConfigurationError

Linear = Callable[[Tensor], Tensor]  # (rows, inputs) float32 -> (rows, outputs) float32

_LARGEST = 127.0  # of a signed 8-bit number, used symmetrically
_PLANE_RATIO = 254.0  # a low plane's unit is this part of the high one's: the rounding error (at most 1/2) fills it

_SMALLEST = 1e-30  # keeps a row of zeros from dividing by zero
_BLOCK = 256  # outputs that are converted at once: what stays in a core's cache


class WeightMode(enum.StrEnum):
    """How the GPT's weights are kept. The first three run on a CPU, the last two on a GPU.

    `fp32` is the reference. `fp16w` keeps 16 bits (the CPU's default): two planes of whole numbers where the CPU
    multiplies them exactly, else half-precision numbers. `int8` keeps 8 bits with a scale for each output.
    """

    FP32 = "fp32"
    FP16W = "fp16w"
    INT8 = "int8"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of activations and cache in the GPU's modes, float32 in the CPU's."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.value, torch.float32)


def make_linear(weight: Tensor, bias: Tensor, mode: WeightMode) -> Linear:
    """Return x -> x @ weight.T + bias with `weight` (outputs, inputs) and `bias` (outputs,), float32, kept in `mode`.

    Raises ConfigurationError where the CPU cannot compute in it.
    """
    if mode is WeightMode.FP32:
        return lambda x: F.linear(x, weight, bias)
    if mode in (WeightMode.BF16, WeightMode.FP16):
        return _cast_linear(weight, bias, mode.dtype)
    if exact_products():
        return PlanesLinear(weight, bias, planes=2 if mode is WeightMode.FP16W else 1)
    if mode is WeightMode.FP16W:
        return _half_linear(weight, bias)
    raise ConfigurationError("int8 weights need a CPU with AVX512-VNNI or AMX; choose fp16w")


def exact_products() -> bool:
    """Tell whether this CPU multiplies 8-bit numbers fast and without saturating (AVX512-VNNI and AMX do)."""
    onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return onednn and bool(torch.cpu.get_capabilities().get("avx512_vnni"))


class PlanesLinear:
    """A linear layer whose weights are one or two planes of signed 8-bit numbers, with a scale for each output.

    It is called with float32 rows (n, inputs) and returns float32 (n, outputs). The relative error on normally
    distributed weights is 8e-3 with one plane, 4e-5 with two (half precision: 2e-4).
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, planes: int) -> None:
        self._outputs = len(weight)
        self._planes = planes
        self._bias = bias.clone()
        kept = torch.empty(planes, *weight.shape, dtype=torch.int8)
        scales = torch.empty(planes, len(weight))
        for start in range(0, len(weight), _BLOCK):
            block = slice(start, start + _BLOCK)
            # Outputs in memory one after another first: narrow numbers are slow to transpose.
            _into_planes(weight[block].contiguous(), kept[:, block], scales[:, block])
        self._scale = scales.flatten()
        self._zero = torch.zeros(len(self._scale), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(kept.flatten(0, 1), [2, weight.shape[1]])

    def __call__(self, x: Tensor) -> Tensor:
        rows = len(x)
        planes, unit = _split(x)
        sums = torch.ops.onednn.qlinear_pointwise(
            planes, 1.0, 0, self._packed, self._scale, self._zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        both = sums[:rows].add_(sums[rows:], alpha=1 / _PLANE_RATIO)
        if self._planes == 2:
            both = both[:, : self._outputs] + both[:, self._outputs :]
        return torch.add(both.mul_(unit), self._bias)


def _into_planes(weight: Tensor, planes: Tensor, scales: Tensor) -> None:
    """Write `weight` (n, k) into `planes` (1 or 2, n, k) int8 and the value of each plane's unit into `scales`."""
    scale = weight.abs().amax(1).clamp_min_(_SMALLEST).div_(_LARGEST)
    exact = weight / scale[:, None]
    high = exact.round()
    planes[0] = high
    scales[0] = scale
    if len(planes) == 2:
        planes[1] = exact.sub_(high).mul_(_PLANE_RATIO).round_()
        scales[1] = scale / _PLANE_RATIO


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (n, k) float32 as planes (2n, k) int8, the high ones first, and each row's unit (n, 1) float32."""
    unit = x.abs().amax(-1, keepdim=True).clamp_min_(_SMALLEST).div_(_LARGEST)
    exact = x / unit
    high = exact.round()
    low = exact.sub_(high).mul_(_PLANE_RATIO).round_()
    return torch.cat([high, low]).to(torch.int8), unit


def _half_linear(weight: Tensor, bias: Tensor) -> Linear:
    """Return a layer with half-precision weights and float32 activations (FBGEMM)."""
    packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias.contiguous())
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def _cast_linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Linear:
    kept, added = weight.to(dtype).contiguous(), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), kept, added).float()
