"""WeNet's networks with 8-bit weights on the CPU: every matrix with a scale for each output (dynamic quantisation).

Where the C++ library runs, its linear layers do the work (native/linear.h): weights of 8 bits, activations of 16, exact
sums, and the larger convolution of the subsampling as a product of the same kind. Elsewhere it is torch's own dynamic
quantisation, with activations of 8 bits, as in WeNet's released runtime models.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mirrorchat import native
from mirrorchat.wenet_model import U2Model
from mirrorchat.xtts_native_gpt import DEPTH, PackedLinears

ROWS_AT_ONCE = 4096  # of a convolution's products: bounds the copy of its inputs to some 75 MB


def quantise(model: U2Model, threads: int) -> U2Model:
    """Return `model` (float32, on the CPU) with 8-bit weights, computed by `threads` threads; `model` is used up."""
    library = native.library()
    if library is not None:
        return _in_library(model, library, threads)
    with warnings.catch_warnings():
        # torch would have torchao do it, a package that nothing else here needs.
        warnings.filterwarnings("ignore", message=r".*torch\.ao\.quantization.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*quantize_per_tensor.*")
        quantised: U2Model = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}, dtype=torch.qint8
        )
    return quantised


def _in_library(model: U2Model, library: native.Library, threads: int) -> U2Model:
    layers = list(_layers(model))
    room = sum(PackedLinears.room_for(_whole(matrix.shape[1]), matrix.shape[0], 1) for *_, matrix in layers)
    linears = PackedLinears(library, native.Team(library, threads), planes=1, room=room)
    for parent, name, layer, matrix in layers:
        bias = layer.get_parameter("bias") if layer.bias is not None else None
        product = _Product(linears, matrix, bias)
        setattr(parent, name, _replacement(layer, product))
    return model


def _layers(model: U2Model) -> Iterator[tuple[nn.Module, str, nn.Module, Tensor]]:
    """Yield what is replaced: the module it is in and its name there, itself, and its matrix (outputs, inputs)."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                yield parent, name, layer, layer.weight.detach()
            elif isinstance(layer, nn.Conv1d) and layer.kernel_size == (1,):
                yield parent, name, layer, layer.weight.detach()[:, :, 0]
            elif isinstance(layer, nn.Conv2d) and layer.in_channels > 1:
                yield parent, name, layer, layer.weight.detach().flatten(1)


def _replacement(layer: nn.Module, product: "_Product") -> nn.Module:
    if isinstance(layer, nn.Conv1d):
        return _PointwiseConvolution(product)
    if isinstance(layer, nn.Conv2d):
        return _Convolution(layer, product)
    return product


class _Product(nn.Module):
    """A linear layer in the library. Inputs are padded to what it can pack."""

    def __init__(self, linears: PackedLinears, matrix: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._linears = linears
        self._outputs, inputs = matrix.shape
        self._padding = _whole(inputs) - inputs
        with native.mapped_in(matrix):
            packed = nn.functional.pad(matrix, (0, self._padding)).t()
            added = torch.zeros(self._outputs) if bias is None else bias.detach()
            self._linear = linears.add(packed, added)

    def forward(self, x: Tensor) -> Tensor:
        rows = nn.functional.pad(x.reshape(-1, x.shape[-1]), (0, self._padding))
        out = self._linears.multiply(self._linear, rows)[:, : self._outputs]
        return out.reshape(*x.shape[:-1], self._outputs)


class _PointwiseConvolution(nn.Module):
    """A convolution of one tap, over (B, D, S)."""

    def __init__(self, product: _Product) -> None:
        super().__init__()
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self._product(x.transpose(1, 2))
        return mixed.transpose(1, 2)


class _Convolution(nn.Module):
    """A convolution over (B, D, T, F) as products of its inputs, copied once for each tap that reads them."""

    def __init__(self, layer: nn.Conv2d, product: _Product) -> None:
        super().__init__()
        self._kernel, self._stride = layer.kernel_size, layer.stride
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        (high, wide), (down, across) = self._kernel, self._stride
        windows = x.unfold(2, high, down).unfold(3, wide, across).permute(0, 2, 3, 1, 4, 5)  # (B, T, F, D, taps)
        times = max(1, ROWS_AT_ONCE // (windows.shape[0] * windows.shape[2]))
        parts = [self._product(part.flatten(3)) for part in torch.split(windows, times, dim=1)]
        return torch.cat(parts, dim=1).permute(0, 3, 1, 2)


def _whole(inputs: int) -> int:
    return -(-inputs // DEPTH) * DEPTH
