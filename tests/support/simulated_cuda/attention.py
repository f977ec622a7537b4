"""Scaled dot-product attention as torch does it on CUDA: its choice of a kernel, its demands, its mask made anew."""

import math
from typing import Any

import torch
from torch import Tensor

from support.simulated_cuda.state import current
from support.simulated_cuda.streams import current_stream
from support.simulated_cuda.tensors import Form, SimulatedTensor, on_device

HALVES = (torch.float16, torch.bfloat16)


def attention(
    index: int,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p or enable_gqa:
        raise NotImplementedError("dropout and grouped queries on a simulated device")
    _check(index, query, key, value, mask)
    kernel = _kernel(current().gpus[index].capability, query, key, value, mask)
    if mask is not None and mask.dtype is torch.bool:
        mask = _additive(mask, query)
    batch, heads, length, _ = query.shape
    width = value.shape[-1]
    strides = (length * heads * width, width, heads * width, 1)  # as if (batch, length, heads, width), transposed
    out = on_device(Form((batch, heads, length, width), strides, query.dtype), index)
    operands = [each for each in (query, key, value, mask) if each is not None]
    numbers, target = [each.numbers for each in operands], out.numbers
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    current_stream(query.device).launch(
        f"attention ({kernel})",
        lambda: target.copy_(_computed(*numbers, causal=is_causal, scale=scale)),
        [each.memory for each in operands],
        [out.memory],
    )
    return out


def _check(index: int, query: Any, key: Any, value: Any, mask: Any) -> None:
    for each in (query, key, value, mask):
        if each is not None and not isinstance(each, SimulatedTensor):
            raise RuntimeError(f"Expected all tensors on cuda:{index}, but found one on {each.device}")
    if len({query.dtype, key.dtype, value.dtype}) > 1:
        raise RuntimeError("Expected query, key, and value to have the same dtype")
    if mask is not None and mask.dtype not in (torch.bool, query.dtype):
        raise RuntimeError(f"Expected attn_mask dtype to be bool or {query.dtype}, but it is {mask.dtype}")


def _kernel(capability: tuple[int, int], query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> str:
    """Return the kernel that torch prefers for such tensors on such a device."""
    half, aligned = query.dtype in HALVES, all(x.stride(-1) == 1 for x in (query, key, value))
    if not aligned:
        return "math"
    if half and capability[0] in (9, 10):
        return "cudnn"
    if half and mask is None and capability[0] >= 8:
        return "flash"
    return "math" if query.dtype is torch.bfloat16 and capability[0] < 8 else "efficient"


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    """Return a mask of 0 and minus infinity, for which torch launches four kernels each time."""
    hidden = mask.logical_not()
    zero = torch.zeros([], dtype=query.dtype, device=query.device)
    return torch.where(hidden, torch.full([], -math.inf, dtype=query.dtype, device=query.device), zero)


def _computed(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool, scale: float
) -> Tensor:
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask.float()
    if causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -math.inf)
    return (scores.softmax(-1).to(value.dtype).float() @ value.float()).to(value.dtype)
