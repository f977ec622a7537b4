"""XTTS's vocoder as a stream: GPT latents go in as they are decoded, samples come out once they are certain.

The network is HiFi-GAN's generator (Kong et al., 2020, arXiv:2010.05646) as coqui-tts's `HifiDecoder` conditions it on
a speaker. `HifiDecoder.forward` stretches all latents to frames of 256 samples by linear interpolation, twice, and
convolves them all; coqui-tts's streaming does so from the start again for each chunk. Here each chunk costs only its
own frames and the few on either side that its samples depend on: an output depends on nothing further away, so the
chunks put together are the same numbers as the whole utterance in one piece.
"""

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

if TYPE_CHECKING:  # the module that defines it needs torchaudio, this one does not
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

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


@dataclass
class VocoderStream:
    """The state of one utterance, made by `StreamingVocoder.open` and used with that vocoder only."""

    conditions: list[Tensor]  # what the speaker adds in the network, computed once
    latents: Tensor  # (n, D) float32, the last ones received: as many as are still needed
    dropped: int = 0  # latents before those
    frames: int = 0  # frames of 256 samples given out
    blocks: int = 0  # in so many blocks
    ended: bool = False


class StreamingVocoder:
    """Speaks with the weights of `decoder`, which it copies, on the device they are on.

    `dtype` is what the convolutions compute in: with float32 on a CPU samples are within 1e-5 of
    `HifiDecoder.forward`, with bfloat16 about 45 dB from it. On a CPU with AMX the generator in C++ computes them on
    `threads` threads (by default as many as torch takes), unless `native` is false: with float32 100 dB, or 5e-5 at
    full volume, from `HifiDecoder.forward`, with bfloat16 43 to 55 dB.

    An utterance is always cut at the same frames, whatever the chunks it arrives in (see `block_after`), and on a CPU
    each of these blocks is computed on its own: so samples are the same to the last bit for all chunks and all
    neighbours. Torch's are not otherwise: oneDNN's float32 sums differ by 1e-6 between windows of other lengths. On a
    GPU blocks of the same length are one batch, and samples are within 1e-5 of those computed alone.

    May be used by several threads at once as long as each stream is used by one at a time.
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
        """Return the whole utterance of `latents` (n, D), equal to what `advance` gives for any chunks of them."""
        return self.advance([(self.open(speaker_embedding), latents, True)])[0]

    def latents_needed(self, stream: VocoderStream) -> int:
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

    def _take(self, stream: VocoderStream, latents: Tensor, is_last: bool) -> list[Window]:
        """Take new latents in and return the windows that can be computed now; forget what no later one needs."""
        stream.latents = torch.cat([stream.latents, latents.to(self._device, torch.float32)])
        stream.ended = is_last
        windows = list(self._windows(stream))
        oldest = len(stream.latents) if is_last else self._first_latent(stream) - stream.dropped
        stream.latents = stream.latents[oldest:].clone()  # a view would keep them all in memory
        stream.dropped += oldest
        return windows

    def _windows(self, stream: VocoderStream) -> Iterator[Window]:
        known = self._known(stream.dropped + len(stream.latents), ended=stream.ended)
        while stream.frames < known:
            first, last = stream.frames, stream.frames + block_after(stream.blocks)
            if last + self._context > known and not stream.ended:
                return
            start, last, stop = max(0, first - self._context), min(last, known), min(last + self._context, known)
            stream.frames, stream.blocks = last, stream.blocks + 1
            frames = self._frames(stream, start, stop)
            yield Window(frames, stream.conditions, first - start, last - first)

    def _known(self, latents: int, *, ended: bool) -> int:
        """Return how many frames of `latents` there are, or if more may follow, are certain to stay as they are."""
        if ended:
            return self._fine.length(self._coarse.length(latents))
        return self._fine.certain(self._coarse.certain(latents))

    def _frames(self, stream: VocoderStream, start: int, stop: int) -> Tensor:
        """Return frames `start` to `stop`, (stop - start, D): the latents they are made of, stretched twice."""
        latents = stream.dropped + len(stream.latents)
        points = self._coarse.length(latents)
        lowest, highest = self._fine.reach(start, stop, points)
        x = self._coarse.apply(stream.latents, stream.dropped, lowest, highest, latents)
        return self._fine.apply(x, lowest, start, stop, points)

    def _first_latent(self, stream: VocoderStream) -> int:
        """Return the first latent that frames not given out yet will need with their context."""
        start = max(0, stream.frames - self._context)
        point, _ = self._fine.reach(start, start + 1, NO_END)
        return min(self._coarse.reach(point, point + 1, NO_END)[0], stream.dropped + len(stream.latents))

    def _compute(self, windows: list[Window]) -> list[Tensor]:
        """Return the samples of each window. On a CPU a batch is no faster and its sums may be in another order."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            groups[len(window.frames) if self._batches else -index].append(index)
        samples: dict[int, Tensor] = {}
        for group in groups.values():
            for batch in (group[i : i + BATCH_MOST] for i in range(0, len(group), BATCH_MOST)):
                samples |= zip(batch, self._generator.samples([windows[index] for index in batch]), strict=True)
        return [samples[index] for index in range(len(windows))]


def _make_generator(
    module: nn.Module, dtype: torch.dtype, *, native: bool, threads: int | None
) -> Generator | NativeGenerator:
    """Return the generator in C++ where it runs, else torch's."""
    library = native_library.library() if native and next(module.parameters()).device.type == "cpu" else None
    if library is None or not library.tiles or dtype not in (torch.float32, torch.bfloat16):
        return Generator(module, dtype)
    return NativeGenerator(module, dtype, library, threads or torch.get_num_threads())


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
