"""XTTS's vocoder as a stream: GPT latents go in as they are decoded, samples come out once they are certain.

The network is HiFi-GAN's generator (Kong et al., 2020, arXiv:2010.05646) as coqui-tts's `HifiDecoder` conditions it on
a speaker. `HifiDecoder.forward` stretches all latents to frames of 256 samples by linear interpolation, twice, and
convolves them all; coqui-tts's streaming does so from the start again for each chunk. Here each chunk costs only its
own frames and the few on either side that its samples depend on: an output depends on nothing further away, so the
chunks put together are the same numbers as the whole utterance in one piece.

Convolutions over time are written as 2-D ones of height 1 with channels last, the layout that oneDNN computes in: up
to 1.6 times faster than `conv1d` in float32. bfloat16 takes a third of float32's time on a CPU with AMX.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirrorchat.audio import Samples

if TYPE_CHECKING:  # the module that defines it needs torchaudio, this one does not
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

SLOPE = 0.1  # of the leaky rectifiers inside the generator
LAST_SLOPE = 0.01  # of the one before the last convolution: torch's default
FIRST_FRAMES, GROWTH, MOST_FRAMES = 19, 1.7, 152
BATCH_MOST = 16  # windows computed at once: bounds memory
FADE_MS = 10.0
NO_END = 1 << 30  # as a number of frames: the end is not known yet

Positions = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Stretch:
    """`F.interpolate(..., scale_factor=factor, mode="linear")` for any range of its output frames."""

    factor: float

    def length(self, inputs: int) -> int:
        """Return how many frames come of `inputs` frames."""
        return math.floor(inputs * self.factor)

    def certain(self, inputs: int) -> int:
        """Return how many first frames stay as they are, whatever follows the first `inputs` frames."""
        positions = self._positions(0, self.length(inputs), NO_END)
        return int(np.searchsorted(positions, inputs - 1))

    def reach(self, start: int, stop: int, inputs: int) -> tuple[int, int]:
        """Return the range of inputs that output frames `start` to `stop` are made of, among `inputs` in all."""
        first, last = self._positions(start, stop, inputs)[[0, -1]].astype(np.int64)
        return min(int(first), inputs - 1), min(int(last) + 2, inputs)

    def apply(self, x: Tensor, offset: int, start: int, stop: int, inputs: int) -> Tensor:
        """Return frames `start` to `stop`, (stop - start, D), of `inputs` in all, given as `x` (n, D) from `offset`."""
        positions = self._positions(start, stop, inputs)
        left = positions.astype(np.int64)
        weight = torch.from_numpy(positions - left.astype(np.float32)).to(x.device)[:, None]
        right = torch.from_numpy(np.minimum(left + 1, inputs - 1) - offset).to(x.device)
        return x[torch.from_numpy(left - offset).to(x.device)] * (1.0 - weight) + x[right] * weight

    def _positions(self, start: int, stop: int, inputs: int) -> Positions:
        """Return where output frames lie among the inputs, rounded as torch rounds it: once, from float32's step.

        Late in a long utterance the exact place is 1e-3 away from torch's. Where nothing is added, torch copies.
        """
        frames = np.arange(start, stop)
        if self.length(inputs) == inputs:
            return frames.astype(np.float32)
        step = np.float64(np.float32(1.0 / self.factor))
        return np.maximum((step * (frames + 0.5) - 0.5).astype(np.float32), np.float32(0.0))


class _Convolution:
    """A folded copy of a 1-D convolution with its weight as (out, in, 1, kernel), channels last."""

    def __init__(self, module: nn.Conv1d, dtype: torch.dtype) -> None:
        # Reading `weight` multiplies weight norm out; the module's own tensors are neither changed nor shared.
        self._weight = _channels_last(module.weight, dtype)
        self._bias = None if module.bias is None else module.bias.detach().to(dtype, copy=True)
        self._padding, self._dilation = int(module.padding[0]), module.dilation[0]
        self._span = self._dilation * (module.kernel_size[0] - 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, (B, in, 1, T)."""
        x = x.to(self._weight.dtype)
        return F.conv2d(x, self._weight, self._bias, padding=(0, self._padding), dilation=(1, self._dilation))

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input that the outputs `first` to `last` depend on."""
        return first - self._padding, last - self._padding + self._span


class _Upsampling:
    """A folded copy of a transposed 1-D convolution, computed as a plain one.

    Each input gives `stride` outputs, which with channels last are the channels of a convolution over the inputs, lying
    in memory in the right order. oneDNN's transposed convolution is many times slower when there are few channels.
    """

    def __init__(self, module: nn.ConvTranspose1d, dtype: torch.dtype) -> None:
        self.stride, self._padding, self._kernel = module.stride[0], int(module.padding[0]), module.kernel_size[0]
        first, last = self.inputs_of(0, self.stride - 1)
        self._reach = max(-first, last)
        weight = module.weight.detach()  # (in, out, kernel), weight norm multiplied out
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
        """Return the (B, out, 1, stride T) that `x`, (B, in, 1, T), is stretched to."""
        y = F.conv2d(x.to(self._weight.dtype), self._weight, self._bias, padding=(0, self._reach)).permute(0, 2, 3, 1)
        return y.reshape(len(x), 1, self.stride * x.shape[-1], -1).permute(0, 3, 1, 2)

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input that the outputs `first` to `last` depend on."""
        earliest = first + self._padding - self._kernel + 1
        return -(-earliest // self.stride), (last + self._padding) // self.stride


def _channels_last(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy of `weight`, (out, in, kernel), as one of 2-D convolutions of height 1."""
    return weight.detach().to(dtype, copy=True).unsqueeze(2).contiguous(memory_format=torch.channels_last)


ResidualBlock = list[tuple[_Convolution, _Convolution]]


@dataclass(frozen=True)
class _Stage:
    """One upsampling of the generator and the residual blocks whose mean follows it."""

    up: _Upsampling
    blocks: list[ResidualBlock]

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.up(F.leaky_relu_(x, SLOPE)) + condition
        total = _residual(x, self.blocks[0])
        for block in self.blocks[1:]:
            total.add_(_residual(x, block))
        return total.div_(len(self.blocks))

    def inputs_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the last input that the outputs `first` to `last` depend on."""
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


class _Generator:
    """HiFi-GAN's generator with weight norm folded in; shares nothing with the module it is made from.

    Convolutions round their inputs to `dtype`; what they add up to stays float32, which gains 4 dB in bfloat16.
    """

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.first = _Convolution(module.conv_pre, dtype)
        count = len(module.resblocks) // len(module.ups)
        blocks = [_block(block, dtype) for block in module.resblocks]
        self.stages = [
            _Stage(_Upsampling(up, dtype), blocks[index * count : (index + 1) * count])
            for index, up in enumerate(module.ups)
        ]
        self.last = _Convolution(module.conv_post, torch.float32)  # what it rounds would be heard as it is
        layers = [module.cond_layer, *module.conds]
        self._condition_layers = [(each.weight.detach().clone(), each.bias.detach().clone()) for each in layers]

    def __call__(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """Return the samples, (B, 256 T) float32, of frames `x` (B, D, 1, T) with `conditions` from `condition`."""
        x = self.first(x) + conditions[0]
        for stage, condition in zip(self.stages, conditions[1:], strict=True):
            x = stage(x, condition)
        return self.last(F.leaky_relu_(x, LAST_SLOPE)).tanh_()[:, 0, 0]

    def condition(self, embedding: Tensor) -> list[Tensor]:
        """Return what a speaker `embedding` (1, 512, 1) adds before each stage and after the first convolution."""
        return [F.conv1d(embedding, *layer).unsqueeze(2) for layer in self._condition_layers]

    @property
    def hop(self) -> int:
        """Samples for each frame."""
        return math.prod(stage.up.stride for stage in self.stages)

    def context(self) -> int:
        """Return how many frames on either side a frame's samples depend on: 13 in XTTS v2."""
        first, last = self.last.inputs_of(0, self.hop - 1)
        for stage in reversed(self.stages):
            first, last = stage.inputs_of(first, last)
        first, last = self.first.inputs_of(first, last)
        return max(-first, last)


def _block(module: Any, dtype: torch.dtype) -> ResidualBlock:
    pairs = zip(module.convs1, module.convs2, strict=True)
    return [(_Convolution(first, dtype), _Convolution(second, dtype)) for first, second in pairs]


@dataclass
class VocoderStream:
    """The state of one utterance, made by `StreamingVocoder.open` and used with that vocoder only."""

    conditions: list[Tensor]  # what the speaker adds in the network, computed once
    latents: Tensor  # (n, D) float32, the last ones received: as many as are still needed
    dropped: int = 0  # latents before those
    frames: int = 0  # frames of 256 samples given out
    blocks: int = 0  # in so many blocks
    ended: bool = False


@dataclass(frozen=True)
class _Window:
    """Frames `start` to `stop` of an utterance, of which those from `first` to `last` (exclusive) become samples."""

    place: int  # of the stream in the list of work
    conditions: list[Tensor]
    frames: Tensor  # (D, 1, stop - start)
    skipped: int  # frames before `first`
    kept: int

    def cut(self, samples: Tensor, hop: int) -> Tensor:
        """Return what is kept of the samples of all frames."""
        return samples[self.skipped * hop : (self.skipped + self.kept) * hop]


class StreamingVocoder:
    """Speaks with the weights of `decoder`, which it copies, on the device they are on.

    `dtype` is what the convolutions compute in: with float32 on a CPU samples are within 1e-5 of
    `HifiDecoder.forward`, with bfloat16 about 45 dB from it. An utterance is always cut at the same frames, whatever
    the chunks it arrives in (see `block_after`), and on a CPU each of these blocks is computed on its own: so samples
    are the same to the last bit for all chunks and all neighbours, which no kernel library promises for windows of
    other lengths (oneDNN's float32 sums differ by 1e-6 between them). On a GPU blocks of the same length are one batch,
    and samples are within 1e-5 of those computed alone.

    May be used by several threads at once as long as each stream is used by one at a time.
    """

    def __init__(self, decoder: "HifiDecoder", *, dtype: torch.dtype = torch.float32) -> None:
        self.sample_rate = int(decoder.output_sample_rate)
        self._device = next(decoder.waveform_decoder.parameters()).device
        self._generator = _Generator(decoder.waveform_decoder, dtype)
        self._width = int(decoder.waveform_decoder.conv_pre.in_channels)
        self._coarse = _Stretch(decoder.ar_mel_length_compression / decoder.output_hop_length)
        self._fine = _Stretch(decoder.output_sample_rate / decoder.input_sample_rate)
        self._context = self._generator.context()
        self._batches = self._device.type != "cpu"

    @torch.inference_mode()
    def open(self, speaker_embedding: Tensor) -> VocoderStream:
        """Return the state of a new utterance by a speaker, given as (1, 512, 1) float32 on any device."""
        conditions = self._generator.condition(speaker_embedding.to(self._device, torch.float32))
        return VocoderStream(conditions, torch.empty(0, self._width, device=self._device))

    @torch.inference_mode()
    def advance(self, work: Sequence[tuple[VocoderStream, Tensor, bool]]) -> list[Samples]:
        """Return for each (stream, new latents, whether they are the last) the samples that are now computed.

        Latents are (n, D) float32 on any device, n may be 0; samples are 1-D float32 in [-1, 1], none when too few
        latents are known for a block. What is no number in one stream's latents harms only that stream. Raises
        ValueError, before any stream is changed, for a stream that has ended or is in `work` twice, and for latents
        of another shape.
        """
        self._check(work)
        windows = [window for place, item in enumerate(work) for window in self._take(place, *item)]
        parts: list[list[Tensor]] = [[torch.empty(0, device=self._device)] for _ in work]
        for window, samples in zip(windows, self._compute(windows), strict=True):
            parts[window.place].append(samples)
        joined = [torch.cat(own) for own in parts]
        lengths = [len(samples) for samples in joined]
        flat = torch.cat(joined).cpu() if joined else torch.empty(0)  # one transfer from a GPU for all
        return [samples.clone().numpy() for samples in torch.split(flat, lengths)]

    def vocode(self, latents: Tensor, speaker_embedding: Tensor) -> Samples:
        """Return the whole utterance of `latents` (n, D), equal to what `advance` gives for any chunks of them."""
        return self.advance([(self.open(speaker_embedding), latents, True)])[0]

    def latents_wanted(self, stream: VocoderStream) -> int:
        """Return how many more latents `stream` needs before `advance` gives samples without an end; 0 if none."""
        have = stream.dropped + len(stream.latents)
        end = stream.frames + block_after(stream.blocks) + self._context
        need = have
        while self._known(need, ended=False) < end:
            need += 1
        return need - have

    def _check(self, work: Sequence[tuple[VocoderStream, Tensor, bool]]) -> None:
        if len({id(stream) for stream, _, _ in work}) < len(work):
            raise ValueError("a stream is in the work twice")
        for stream, latents, _ in work:
            if stream.ended:
                raise ValueError("the stream has ended")
            if latents.dim() != 2 or latents.shape[1] != self._width:
                raise ValueError(f"latents are {tuple(latents.shape)}, not (n, {self._width})")

    def _take(self, place: int, stream: VocoderStream, latents: Tensor, is_last: bool) -> list[_Window]:
        """Take new latents in and return the windows that can be computed now; forget what no later one needs."""
        stream.latents = torch.cat([stream.latents, latents.to(self._device, torch.float32)])
        stream.ended = is_last
        windows = list(self._windows(place, stream))
        oldest = len(stream.latents) if is_last else self._first_latent(stream) - stream.dropped
        stream.latents = stream.latents[oldest:].clone()  # a view would keep them all in memory
        stream.dropped += oldest
        return windows

    def _windows(self, place: int, stream: VocoderStream) -> Iterator[_Window]:
        known = self._known(stream.dropped + len(stream.latents), ended=stream.ended)
        while stream.frames < known:
            first, last = stream.frames, stream.frames + block_after(stream.blocks)
            if last + self._context > known and not stream.ended:
                return
            start, last, stop = max(0, first - self._context), min(last, known), min(last + self._context, known)
            stream.frames, stream.blocks = last, stream.blocks + 1
            frames = self._frames(stream, start, stop)
            yield _Window(place, stream.conditions, frames, first - start, last - first)

    def _known(self, latents: int, *, ended: bool) -> int:
        """Return how many frames of `latents` there are, or if more may follow, are certain to stay as they are."""
        if ended:
            return self._fine.length(self._coarse.length(latents))
        return self._fine.certain(self._coarse.certain(latents))

    def _frames(self, stream: VocoderStream, start: int, stop: int) -> Tensor:
        """Return frames `start` to `stop`, (D, 1, stop - start): the latents they are made of, stretched twice."""
        latents = stream.dropped + len(stream.latents)
        points = self._coarse.length(latents)
        lowest, highest = self._fine.reach(start, stop, points)
        x = self._coarse.apply(stream.latents, stream.dropped, lowest, highest, latents)
        x = self._fine.apply(x, lowest, start, stop, points)
        return x.to(self._generator.dtype).T.unsqueeze(1)

    def _first_latent(self, stream: VocoderStream) -> int:
        """Return the first latent that frames not given out yet will need with their context."""
        start = max(0, stream.frames - self._context)
        point, _ = self._fine.reach(start, start + 1, NO_END)
        return min(self._coarse.reach(point, point + 1, NO_END)[0], stream.dropped + len(stream.latents))

    def _compute(self, windows: list[_Window]) -> list[Tensor]:
        """Return the samples of each window. On a CPU a batch is no faster and its sums may be in another order."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            groups[window.frames.shape[-1] if self._batches else -index].append(index)
        samples: dict[int, Tensor] = {}
        for group in groups.values():
            for batch in (group[i : i + BATCH_MOST] for i in range(0, len(group), BATCH_MOST)):
                samples |= zip(batch, self._compute_batch([windows[index] for index in batch]), strict=True)
        return [samples[index] for index in range(len(windows))]

    def _compute_batch(self, windows: list[_Window]) -> list[Tensor]:
        frames = torch.stack([window.frames for window in windows]).contiguous(memory_format=torch.channels_last)
        conditions = [torch.cat(each) for each in zip(*(window.conditions for window in windows), strict=True)]
        rows = self._generator(frames, conditions)
        return [window.cut(row, self._generator.hop) for window, row in zip(windows, rows, strict=True)]


def block_after(blocks: int) -> int:
    """Return how many frames of 256 samples the block after so many others has.

    The first (0.2 s) is certain after 8 latents. Each later one is so much longer that a decoder half as fast again
    as real time fills it while the one before is heard, up to 1.6 s: the longer a block, the less its context costs.
    """
    return min(MOST_FRAMES, math.floor(FIRST_FRAMES * GROWTH**blocks))


def fade_out(samples: Samples, sample_rate: int, milliseconds: float = FADE_MS) -> Samples:
    """Return a copy of `samples` (1-D float32) whose last `milliseconds` fall to 0 along a quarter of a cosine.

    For speech that is cut off in the middle, where it would click. Equal power: faded into another sound that rises
    along the sine, the sum stays as loud. Shorter samples fade over their whole length.
    """
    length = min(len(samples), round(sample_rate * milliseconds / 1000))
    faded = np.array(samples, dtype=np.float32)
    faded[len(faded) - length :] *= np.cos(np.linspace(0.0, np.pi / 2, length, dtype=np.float32))
    return faded
