"""XTTS's matrix products in torch, with weights kept in as many bits as a mode says.

What bounds decoding is how many bytes a token reads. Where the C++ library runs, it computes the modes of fewer bits
on a CPU (`native_gpt`); these are the reference, the GPU's, and half precision for the other CPUs.
"""

import enum
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.errors import ConfigurationError

Linear = Callable[[Tensor], Tensor]  # (rows, inputs) float32 -> (rows, outputs) float32


class WeightMode(enum.StrEnum):
    """How the GPT's weights are kept. The first three run on a CPU, the last two on a GPU.

    `fp32` is the reference. `fp16w` keeps 16 bits (the CPU's default): two planes of whole numbers where the C++
    library runs, else half-precision numbers. `int8` keeps 8 bits with a scale for each output, with the library only.
    """

    FP32 = "fp32"
    FP16W = "fp16w"
    INT8 = "int8"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of torch's activations, keys and values in the GPU's modes, float32 in the CPU's."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.value, torch.float32)


def make_linear(weight: Tensor, bias: Tensor, mode: WeightMode) -> Linear:
    """Return x -> x @ weight.T + bias with `weight` (outputs, inputs) and `bias` (outputs,), float32, kept in `mode`.

    Raises ConfigurationError where the CPU cannot compute in it.
    """
    if mode is WeightMode.FP32:
        return lambda x: F.linear(x, weight, bias)
    if mode in (WeightMode.BF16, WeightMode.FP16):
        return _cast_linear(weight, bias, mode.dtype)
    if mode is WeightMode.FP16W:
        return _half_linear(weight, bias)
    raise ConfigurationError(
        "int8 weights need a CPU with AVX512-VNNI or AMX, and a C++ compiler when MirrorChat is installed; choose fp16w"
    )


def _half_linear(weight: Tensor, bias: Tensor) -> Linear:
    """Return a layer with half-precision weights and float32 activations (FBGEMM)."""
    packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias.contiguous())
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def _cast_linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Linear:
    kept, added = weight.to(dtype).contiguous(), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), kept, added).float()
