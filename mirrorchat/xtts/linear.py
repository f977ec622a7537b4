"""The linear layers of XTTS's GPT in torch, with weights of different types.

The number of bytes that a token reads limits the speed of decoding. The C++ library computes the modes with fewer bits
on the CPUs that it supports (`native_gpt`). This module has the reference, the modes of the GPU, and half precision for
other CPUs.
"""

import enum
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.errors import ConfigurationError

Linear = Callable[[Tensor], Tensor]  # (rows, inputs) -> (rows, outputs) of the same type, float32 or that of the mode


class WeightMode(enum.StrEnum):
    """The type of the GPT's weights. The first three run on a CPU, all but `int8` on a GPU.

    `fp32` is the reference. `fp16w`, the default on a CPU, has 16 bits and computes in float32: two planes of integers
    with the C++ library, half-precision numbers without it. `int8` has 8 bits and a scale for each output, and needs
    the library. `bf16` and `fp16` compute in these types, too.
    """

    FP32 = "fp32"
    FP16W = "fp16w"
    INT8 = "int8"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of torch's activations, keys and values: that of the weights in `bf16` and `fp16`."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.value, torch.float32)


def make_linear(weight: Tensor, bias: Tensor, mode: WeightMode) -> Linear:
    """Return x -> x @ weight.T + bias, with the weights converted to `mode`.

    `weight` is (outputs, inputs) and `bias` (outputs,), both float32. Raises ConfigurationError if the CPU cannot
    compute in `mode`.
    """
    if mode is WeightMode.FP32:
        return lambda x: F.linear(x, weight, bias)
    if mode in (WeightMode.BF16, WeightMode.FP16):
        return _cast_linear(weight, bias, mode.dtype)
    if mode is WeightMode.FP16W:
        return _half_linear(weight, bias)
    raise ConfigurationError(
        "int8 weights need a CPU with AVX512-VNNI, and a C++ compiler when MirrorChat is installed; choose fp16w"
    )


def _half_linear(weight: Tensor, bias: Tensor) -> Linear:
    """Return a layer with half-precision weights and float32 activations; FBGEMM computes it on a CPU."""
    if weight.device.type == "cuda":
        kept = weight.half().contiguous()
        return lambda x: F.linear(x, kept.float(), bias)
    packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias.contiguous())
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def _cast_linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Linear:
    kept, added = weight.to(dtype).contiguous(), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), kept, added).to(x.dtype)
