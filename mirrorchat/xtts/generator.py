"""The generator of HiFi-GAN in torch, which turns the frames of XTTS's vocoder into samples.

The network is that of Kong et al. (arXiv 2010.05646), conditioned on a speaker as in coqui-tts's `HifiDecoder`. It runs
on any device and is the reference for the generator in C++ (xtts/native_vocoder.py).

Convolutions over time are computed as 2-D convolutions of height 1 with channels last, which is oneDNN's own layout.
They are up to 1.6 times as fast as `conv1d` in float32. bfloat16 takes a third of the time of float32 on a CPU with
AMX.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.1  # of the leaky ReLUs in the generator
LAST_SLOPE = 0.01  # of the one before the last convolution, which has torch's default


@dataclass(frozen=True)
class Window:
    """Frames of an utterance. The first `skipped` are context; the next `kept` become samples."""

    frames: Tensor  # (n, D) float32
    conditions: list[Tensor]  # of the speaker, from `condition` of the same generator
    skipped: int
    kept: int


class _Convolution:
    """A copy of a 1-D convolution without weight norm, with weights (out, in, 1, kernel), channels last."""

    def __init__(self, module: nn.Conv1d, dtype: torch.dtype) -> None:
        # Reading `weight` computes the weight norm; the tensors of the module are neither changed nor shared.
        self._weight = _channels_last(module.weight, dtype)
        self._bias = None if module.bias is None else module.bias.detach().to(dtype, copy=True)
        self._padding, self._dilation = int(module.padding[0]), module.dilation[0]
        self._span = self._dilation * (module.kernel_size[0] - 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (B, in, 1, T)."""
        x = x.to(self._weight.dtype)
        return F.conv2d(x, self._weight, self._bias, padding=(0, self._padding), dilation=(1, self._dilation))

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input frame that outputs `first` to `last` depend on."""
        return first - self._padding, last - self._padding + self._span


class _Upsampling:
    """A copy of a transposed 1-D convolution without weight norm, computed as a plain convolution.

    Each input gives `stride` outputs. With channels last, these are the channels of a convolution over the inputs, in
    the right order in memory. oneDNN's transposed convolution is many times slower with few channels.
    """

    def __init__(self, module: nn.ConvTranspose1d, dtype: torch.dtype) -> None:
        self.stride, self._padding, self._kernel = module.stride[0], int(module.padding[0]), module.kernel_size[0]
        first, last = self.inputs_of(0, self.stride - 1)
        self._reach = max(-first, last)
        weight = module.weight.detach()  # (in, out, kernel), with the weight norm
        taps = weight.new_zeros(self.stride, weight.shape[1], weight.shape[0], 2 * self._reach + 1)
        for phase in range(self.stride):
            for tap in range(taps.shape[-1]):
                index = phase + self._padding + self.stride * (self._reach - tap)
                if 0 <= index < self._kernel:
                    taps[phase, :, :, tap] = weight[:, :, index].T
        self._weight = _channels_last(taps.flatten(0, 1), dtype)
        assert module.bias is not None
        self._bias = module.bias.detach().to(dtype).repeat(self.stride)

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` (B, in, 1, T), upsampled to (B, out, 1, stride T)."""
        y = F.conv2d(x.to(self._weight.dtype), self._weight, self._bias, padding=(0, self._reach)).permute(0, 2, 3, 1)
        return y.reshape(len(x), 1, self.stride * x.shape[-1], -1).permute(0, 3, 1, 2)

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input frame that outputs `first` to `last` depend on."""
        earliest = first + self._padding - self._kernel + 1
        return -(-earliest // self.stride), (last + self._padding) // self.stride


def _channels_last(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of `weight` (out, in, kernel) for a 2-D convolution of height 1."""
    return weight.detach().to(dtype, copy=True).unsqueeze(2).contiguous(memory_format=torch.channels_last)


ResidualBlock = list[tuple[_Convolution, _Convolution]]


@dataclass(frozen=True)
class _Stage:
    """One upsampling of the generator, followed by the mean of its residual blocks."""

    up: _Upsampling
    blocks: list[ResidualBlock]

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.up(F.leaky_relu_(x, SLOPE)) + condition
        total = _residual(x, self.blocks[0])
        for block in self.blocks[1:]:
            total.add_(_residual(x, block))
        return total.div_(len(self.blocks))

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input frame that outputs `first` to `last` depend on."""
        reaches = []
        for block in self.blocks:
            reach = first, last
            for pair in reversed(block):
                reach = pair[0].inputs_of(*pair[1].inputs_of(*reach))
            reaches.append(reach)
        return self.up.inputs_of(min(reach[0] for reach in reaches), max(reach[1] for reach in reaches))


def _residual(x: Tensor, block: ResidualBlock) -> Tensor:
    for first, second in block:
        x = x + second(F.leaky_relu_(first(F.leaky_relu(x, SLOPE)), SLOPE))
    return x


class Generator:
    """The generator of HiFi-GAN with computed weight norms. It shares no memory with `module`.

    Convolutions round their inputs to `dtype`. The sums stay float32, which improves bfloat16 by 4 dB, but for float16:
    its sums are float16, 61 dB from float32 instead of 68, and a GPU moves half the bytes.
    """

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self.first = _Convolution(module.conv_pre, dtype)
        count = len(module.resblocks) // len(module.ups)
        blocks = [_block(block, dtype) for block in module.resblocks]
        self.stages = [
            _Stage(_Upsampling(up, dtype), blocks[index * count : (index + 1) * count])
            for index, up in enumerate(module.ups)
        ]
        self.last = _Convolution(module.conv_post, torch.float32)  # its rounding errors would be audible
        self._sums = torch.float16 if dtype is torch.float16 else torch.float32
        layers = [module.cond_layer, *module.conds]
        self._condition_layers = [(each.weight.detach().clone(), each.bias.detach().clone()) for each in layers]

    def samples(self, windows: Sequence[Window]) -> list[Tensor]:
        """Return the samples of the kept frames of each window, 1-D float32. All windows have the same length."""
        frames = torch.stack([window.frames.T.unsqueeze(1) for window in windows])  # (B, D, 1, n)
        conditions = [torch.cat(each) for each in zip(*(window.conditions for window in windows), strict=True)]
        rows = self._compute(frames.contiguous(memory_format=torch.channels_last), conditions)
        starts = [window.skipped * self.hop for window in windows]
        return [
            row[start : start + window.kept * self.hop]
            for row, start, window in zip(rows, starts, windows, strict=True)
        ]

    def _compute(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """Return the samples (B, 256 n) float32 of the frames `x` (B, D, 1, n), with `conditions` from `condition`."""
        x = self.first(x) + conditions[0]
        for stage, condition in zip(self.stages, conditions[1:], strict=True):
            x = stage(x, condition)
        return self.last(F.leaky_relu_(x, LAST_SLOPE)).tanh_()[:, 0, 0]

    def condition(self, embedding: Tensor) -> list[Tensor]:
        """Return the conditioning of each layer for a speaker `embedding` (1, 512, 1), in the type of the sums."""
        return [F.conv1d(embedding, *layer).unsqueeze(2).to(self._sums) for layer in self._condition_layers]

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(stage.up.stride for stage in self.stages)

    def context(self) -> int:
        """Return the number of frames on either side that the samples of a frame depend on: 13 in XTTS v2."""
        first, last = self.last.inputs_of(0, self.hop - 1)
        for stage in reversed(self.stages):
            first, last = stage.inputs_of(first, last)
        first, last = self.first.inputs_of(first, last)
        return max(-first, last)


def _block(module: Any, dtype: torch.dtype) -> ResidualBlock:
    pairs = zip(module.convs1, module.convs2, strict=True)
    return [(_Convolution(first, dtype), _Convolution(second, dtype)) for first, second in pairs]
