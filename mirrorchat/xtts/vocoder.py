"""XTTS's vocoder as a stream: it takes the GPT's latents while they are decoded, and returns samples in blocks.

The network is the generator of HiFi-GAN (Kong et al., arXiv 2010.05646), conditioned on a speaker as in coqui-tts's
`HifiDecoder`. `HifiDecoder.forward` interpolates all latents linearly to frames of 256 samples, in two passes, and
convolves all frames; coqui-tts's streaming starts again from the first latent for each chunk. This vocoder computes
each frame once, together with the few frames on either side that its samples depend on. No sample depends on frames
further away, so the blocks of a stream have the same numbers as the whole utterance in one piece.
"""

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mirrorchat.audio.samples import Samples
from mirrorchat.hardware import native as native_library
from mirrorchat.xtts.generator import Generator, Window
from mirrorchat.xtts.native_vocoder import NativeGenerator

if TYPE_CHECKING:  # its module needs torchaudio, this one does not
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

FIRST_FRAMES, GROWTH, MOST_FRAMES = 19, 1.7, 152
BATCH_MOST = 16  # windows computed at once, to bound the memory
FADE_MS = 10.0
LATENTS_MOST = 1 << 10  # more than any utterance has
NO_END = 1 << 30  # a number of frames for an utterance whose end is unknown

Positions = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Stretch:
    """`F.interpolate(..., scale_factor=factor, mode="linear")` for any range of its output frames."""

    factor: float

    def length(self, inputs: int) -> int:
        """Return the number of output frames for `inputs` frames."""
        return math.floor(inputs * self.factor)

    def certain(self, inputs: int) -> int:
        """Return how many output frames are final once `inputs` frames are known, whatever follows."""
        if self.length(inputs) == inputs:
            return 0  # torch copies them if they are all
        positions = self._positions(0, self.length(inputs), NO_END)
        return int(np.searchsorted(positions, inputs - 1))

    def reach(self, start: int, stop: int, inputs: int) -> tuple[int, int]:
        """Return the range of input frames that output frames `start` to `stop` need; there are `inputs` in all."""
        first, last = self._positions(start, stop, inputs)[[0, -1]].astype(np.int64)
        return min(int(first), inputs - 1), min(int(last) + 2, inputs)

    def apply(self, x: Tensor, offset: int, start: int, stop: int, inputs: int) -> Tensor:
        """Return output frames `start` to `stop`, (stop - start, D).

        There are `inputs` input frames in all; `x` (n, D) has those from `offset` on.
        """
        positions = self._positions(start, stop, inputs)
        left = positions.astype(np.int64)
        weight = torch.from_numpy(positions - left.astype(np.float32)).to(x.device)[:, None]
        right = torch.from_numpy(np.minimum(left + 1, inputs - 1) - offset).to(x.device)
        return x[torch.from_numpy(left - offset).to(x.device)] * (1.0 - weight) + x[right] * weight

    def _positions(self, start: int, stop: int, inputs: int) -> Positions:
        """Return the positions of output frames among the inputs, with the rounding of torch.

        Torch rounds once, from a float32 step, so late in a long utterance its positions are off by 1e-3. It copies the
        inputs if their number does not change.
        """
        frames = np.arange(start, stop)
        if self.length(inputs) == inputs:
            return frames.astype(np.float32)
        step = np.float64(np.float32(1.0 / self.factor))
        return np.maximum((step * (frames + 0.5) - 0.5).astype(np.float32), np.float32(0.0))


@dataclass
class VocoderStream:
    """The state of one utterance. `StreamingVocoder.open` makes it, and only that vocoder may use it."""

    conditions: list[Tensor]  # the speaker's conditioning of the layers, computed once
    latents: Tensor  # (n, D) float32, the newest latents, which are still needed
    stretches: tuple[_Stretch, ...]  # from latents to frames, in order
    dropped: int = 0  # latents before `latents`
    frames: int = 0  # frames of 256 samples returned so far
    blocks: int = 0  # blocks returned so far
    ended: bool = False


class StreamingVocoder:
    """The vocoder with the weights of `decoder`, which it copies, on their device.

    `dtype` is the type of the convolutions. On a CPU, float32 gives samples within 1e-5 of `HifiDecoder.forward`, and
    bfloat16 has a signal-to-noise ratio of about 45 dB to it. On a CPU with AMX, the generator in C++ computes the
    convolutions with `threads` threads (by default torch's number), unless `native` is false: float32 then has 100 dB,
    or errors of 5e-5 at full volume, and bfloat16 has 43 to 55 dB.

    Every utterance is cut into the same blocks, for any chunks of latents (see `block_after`). A CPU computes each
    block on its own, so the samples are the same to the last bit for any chunks and any other streams; in windows of
    other lengths, oneDNN's float32 sums would differ by 1e-6. A GPU computes blocks of the same length as one batch,
    and the samples are within 1e-5 of those computed alone.

    Several threads may use a vocoder at once if each stream has one thread at a time.

    Example:
        stream = vocoder.open(speaker_embedding)
        (samples,) = vocoder.advance([(stream, latents, True)])
    """

    def __init__(
        self,
        decoder: "HifiDecoder",
        *,
        dtype: torch.dtype = torch.float32,
        native: bool = True,
        threads: int | None = None,
    ) -> None:
        self.sample_rate = int(decoder.output_sample_rate)
        self._device = next(decoder.waveform_decoder.parameters()).device
        self._generator = _make_generator(decoder.waveform_decoder, dtype, native=native, threads=threads)
        self._width = int(decoder.waveform_decoder.conv_pre.in_channels)
        self._stretches = (
            _Stretch(decoder.ar_mel_length_compression / decoder.output_hop_length),
            _Stretch(decoder.output_sample_rate / decoder.input_sample_rate),
        )
        self._context = self._generator.context()
        self._batches = self._device.type != "cpu"

    @torch.inference_mode()
    def open(self, speaker_embedding: Tensor, speed: float = 1.0) -> VocoderStream:
        """Return the state of a new utterance.

        Arguments:
            speaker_embedding: that of the speaker, (1, 512, 1) float32 on any device.
            speed: the speech becomes so many times as fast: as in coqui-tts, the latents are stretched first.
        """
        conditions = self._generator.condition(speaker_embedding.to(self._device, torch.float32))
        pace = () if speed == 1.0 else (_Stretch(1.0 / speed),)
        empty = torch.empty(0, self._width, device=self._device)
        return VocoderStream(conditions, empty, (*pace, *self._stretches))

    @torch.inference_mode()
    def advance(self, work: Sequence[tuple[VocoderStream, Tensor, bool]]) -> list[Samples]:
        """Return the new samples of each stream.

        `work` has a stream, its new latents, and whether they are the last ones. Latents are (n, D) float32 on any
        device; n may be 0. Samples are 1-D float32 in [-1, 1]; there are none if the latents are too few for a block.
        NaN in the latents of one stream does not affect the others. Raises ValueError, before any change, for a stream
        that has ended or is in `work` twice, and for latents of another shape.
        """
        self._check(work)
        windows = [(place, window) for place, item in enumerate(work) for window in self._take(*item)]
        parts: list[list[Tensor]] = [[torch.empty(0, device=self._device)] for _ in work]
        computed = self._compute([window for _, window in windows])
        for (place, _), samples in zip(windows, computed, strict=True):
            parts[place].append(samples)
        joined = [torch.cat(own) for own in parts]
        lengths = [len(samples) for samples in joined]
        flat = torch.cat(joined).cpu() if joined else torch.empty(0)  # one transfer from a GPU for all
        return [samples.clone().numpy() for samples in torch.split(flat, lengths)]

    def vocode(self, latents: Tensor, speaker_embedding: Tensor) -> Samples:
        """Return the samples of the whole utterance `latents` (n, D), equal to those of `advance` for any chunks."""
        return self.advance([(self.open(speaker_embedding), latents, True)])[0]

    def latents_needed(self, stream: VocoderStream) -> int:
        """Return how many more latents `stream` needs before `advance` returns samples; 0 if it has enough."""
        have = stream.dropped + len(stream.latents)
        end = stream.frames + block_after(stream.blocks) + self._context
        counts = range(have, have + LATENTS_MOST)
        return bisect.bisect_left(counts, end, key=lambda latents: _known(stream, latents, ended=False))

    def _check(self, work: Sequence[tuple[VocoderStream, Tensor, bool]]) -> None:
        if len({id(stream) for stream, _, _ in work}) < len(work):
            raise ValueError("a stream is in the work twice")
        for stream, latents, _ in work:
            if stream.ended:
                raise ValueError("the stream has ended")
            if latents.dim() != 2 or latents.shape[1] != self._width:
                raise ValueError(f"latents are {tuple(latents.shape)}, not (n, {self._width})")

    def _take(self, stream: VocoderStream, latents: Tensor, is_last: bool) -> list[Window]:
        """Add new latents, return the windows that can be computed now, and drop latents that no later window needs."""
        stream.latents = torch.cat([stream.latents, latents.to(self._device, torch.float32)])
        stream.ended = is_last
        windows = list(self._windows(stream))
        oldest = len(stream.latents) if is_last else self._first_latent(stream) - stream.dropped
        stream.latents = stream.latents[oldest:].clone()  # a view would keep all of them in memory
        stream.dropped += oldest
        return windows

    def _windows(self, stream: VocoderStream) -> Iterator[Window]:
        known = _known(stream, stream.dropped + len(stream.latents), ended=stream.ended)
        while stream.frames < known:
            first, last = stream.frames, stream.frames + block_after(stream.blocks)
            if last + self._context > known and not stream.ended:
                return
            start, last, stop = max(0, first - self._context), min(last, known), min(last + self._context, known)
            stream.frames, stream.blocks = last, stream.blocks + 1
            frames = self._frames(stream, start, stop)
            yield Window(frames, stream.conditions, first - start, last - first)

    def _frames(self, stream: VocoderStream, start: int, stop: int) -> Tensor:
        """Return frames `start` to `stop`, (stop - start, D): the latents after every stretch."""
        inputs = stream.dropped + len(stream.latents)
        return _stretched(stream.latents, stream.dropped, inputs, stream.stretches, start, stop)

    def _first_latent(self, stream: VocoderStream) -> int:
        """Return the first latent that a later frame and its context need."""
        first = max(0, stream.frames - self._context)
        for stretch in reversed(stream.stretches):
            first, _ = stretch.reach(first, first + 1, NO_END)
        return min(first, stream.dropped + len(stream.latents))

    def _compute(self, windows: list[Window]) -> list[Tensor]:
        """Return the samples of each window. A CPU computes no batches: they are no faster, and round otherwise."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            groups[len(window.frames) if self._batches else -index].append(index)
        samples: dict[int, Tensor] = {}
        for group in groups.values():
            for batch in (group[i : i + BATCH_MOST] for i in range(0, len(group), BATCH_MOST)):
                samples |= zip(batch, self._generator.samples([windows[index] for index in batch]), strict=True)
        return [samples[index] for index in range(len(windows))]


def _known(stream: VocoderStream, latents: int, *, ended: bool) -> int:
    """Return the number of frames for `latents`; the number of final ones if more latents may follow."""
    count = latents
    for stretch in stream.stretches:
        count = stretch.length(count) if ended else stretch.certain(count)
    return count


def _stretched(x: Tensor, offset: int, inputs: int, stretches: Sequence[_Stretch], start: int, stop: int) -> Tensor:
    """Return outputs `start` to `stop`, (stop - start, D), of all `stretches` in order; the rest is as for `apply`."""
    if not stretches:
        return x[start - offset : stop - offset]
    *earlier, last = stretches
    count = inputs
    for stretch in earlier:
        count = stretch.length(count)
    first, end = last.reach(start, stop, count)
    return last.apply(_stretched(x, offset, inputs, earlier, first, end), first, start, stop, count)


def _make_generator(
    module: nn.Module, dtype: torch.dtype, *, native: bool, threads: int | None
) -> Generator | NativeGenerator:
    """Return the generator in C++ if it runs on this CPU, otherwise that in torch."""
    library = native_library.library() if native and next(module.parameters()).device.type == "cpu" else None
    if library is None or not library.tiles or dtype not in (torch.float32, torch.bfloat16):
        return Generator(module, dtype)
    return NativeGenerator(module, dtype, library, threads or torch.get_num_threads())


def block_after(blocks: int) -> int:
    """Return the number of frames (256 samples) of the block after `blocks` others.

    The first block (0.2 s) is final after 8 latents. Longer blocks cost less, as each block needs its context. So each
    later block is longer, up to 1.6 s; a decoder that runs at 1.5 times real time fills it before the last one ends.
    """
    return min(MOST_FRAMES, math.floor(FIRST_FRAMES * GROWTH**blocks))


def fade_out(samples: Samples, sample_rate: int, milliseconds: float = FADE_MS) -> Samples:
    """Return a copy of `samples` (1-D float32) whose last `milliseconds` fade to 0 along a quarter of a cosine.

    This avoids a click where speech is cut off. The fade has equal power: with another sound that rises along the sine,
    the sum keeps its loudness. Shorter samples fade over their whole length.
    """
    length = min(len(samples), round(sample_rate * milliseconds / 1000))
    faded = np.array(samples, dtype=np.float32)
    faded[len(faded) - length :] *= np.cos(np.linspace(0.0, np.pi / 2, length, dtype=np.float32))
    return faded
