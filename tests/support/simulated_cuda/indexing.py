"""`tensor[index]` and `tensor[index] = value`, which C++ would do only where a real device is linked."""

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def get(tensor: Tensor, index: Any) -> Tensor:
    view, indices = _split(tensor, index)
    found: Tensor = aten.index.Tensor(view, indices) if indices else view
    return found


def put(tensor: Tensor, index: Any, value: Any) -> None:
    view, indices = _split(tensor, index)
    if indices:
        if not isinstance(value, Tensor):
            value = torch.full([], value, dtype=tensor.dtype, device=tensor.device)
        aten.index_put_.default(view, indices, value.to(tensor.device))
    elif isinstance(value, Tensor) and (value.dim() or value.device == tensor.device):
        view.copy_(value)
    else:
        view.fill_(value)


def _split(tensor: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """Return the view that the numbers and slices of `index` give, and the tensors of `index` by dimension of it."""
    parts = index if isinstance(index, tuple) else (index,)
    spare = tensor.dim() - sum(_dimensions(part) for part in parts)
    dim, indices = 0, dict[int, Tensor]()
    for part in parts:
        if part is None:
            tensor = tensor.unsqueeze(dim)
        elif part is Ellipsis:
            dim += spare - 1
        elif isinstance(part, slice):
            tensor = _sliced(tensor, dim, part)
        elif _is_list(part):
            indices[dim] = part if isinstance(part, Tensor) else torch.tensor(part).to(tensor.device)
            dim += _dimensions(part) - 1
        elif isinstance(part, bool):
            raise NotImplementedError("an index of True or False on a simulated device")
        else:
            tensor = tensor.select(dim, int(part))  # of a tensor on the device, int() waits
            dim -= 1
        dim += 1
    return tensor, [indices.get(number) for number in range(max(indices) + 1)] if indices else []


def _sliced(tensor: Tensor, dim: int, part: slice) -> Tensor:
    if part == slice(None):
        return tensor
    bounds = (None if bound is None else int(bound) for bound in (part.start, part.stop))
    sliced: Tensor = aten.slice.Tensor(tensor, dim, *bounds, 1 if part.step is None else int(part.step))
    return sliced


def _is_list(part: Any) -> bool:
    """Say whether an index picks places one by one: a list, an array, or a tensor that is no plain number."""
    if isinstance(part, Tensor):
        return part.dim() > 0 or part.dtype is torch.bool
    return isinstance(part, list) or getattr(part, "ndim", 0) > 0


def _dimensions(part: Any) -> int:
    """Return how many dimensions of the tensor an index takes."""
    if part is None or part is Ellipsis:
        return 0
    return part.dim() if isinstance(part, Tensor) and part.dtype is torch.bool else 1
