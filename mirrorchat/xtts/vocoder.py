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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mirrorchat.audio.samples import Samples
from mirrorchat.hardware import native as native_library
from mirrorchat.hardware.devices import SPEECH_PRIORITY, uploaded
from mirrorchat.xtts.generator import Generator, Window
from mirrorchat.xtts.native_vocoder import NativeGenerator
from mirrorchat.xtts.stretch import Stretch, first_input, known_frames, stretched

if TYPE_CHECKING:  # its module needs torchaudio, this one does not
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

FIRST_FRAMES, GROWTH, MOST_FRAMES = 19, 1.7, 152
BATCH_MOST = 16  # windows computed at once, a power of 2, to bound the memory
FADE_MS = 10.0
LATENTS_MOST = 1 << 10  # more than any utterance has

Work = Sequence[tuple["VocoderStream", Sequence[Tensor], bool]]


@dataclass
class VocoderStream:
    """The state of one utterance. `StreamingVocoder.open` makes it, and only that vocoder may use it."""

    conditions: list[Tensor]  # the speaker's conditioning of the layers, computed once
    latents: Tensor  # (n, D) float32, the newest latents, which are still needed
    stretches: tuple[Stretch, ...]  # from latents to frames, in order
    dropped: int = 0  # latents before `latents`
    frames: int = 0  # frames of 256 samples returned so far
    blocks: int = 0  # blocks returned so far
    ended: bool = False

    def become(self, other: "VocoderStream") -> None:
        vars(self).update(vars(other))


@dataclass(frozen=True)
class LaunchedSamples:
    """Samples that the vocoder was told to compute, and may still be computing."""

    flat: Tensor  # 1-D float32 on the host: the samples of all streams
    lengths: Sequence[int]
    copied: torch.cuda.Event | None  # None if the samples are there

    @property
    def ready(self) -> bool:
        """Return whether `collect` need not wait."""
        return self.copied is None or bool(self.copied.query())  # type: ignore[no-untyped-call]

    def collect(self) -> list[Samples]:
        """Wait for the samples; return those of each stream."""
        if self.copied is not None:
            self.copied.synchronize()
        return [samples.clone().numpy() for samples in torch.split(self.flat, list(self.lengths))]


class StreamingVocoder:
    """The vocoder with the weights of `decoder`, which it copies, on their device.

    `dtype` is the type of the convolutions. On a CPU, float32 gives samples within 1e-5 of `HifiDecoder.forward`, and
    bfloat16 has a signal-to-noise ratio of about 45 dB to it. On a CPU with AMX, the generator in C++ computes the
    convolutions with `threads` threads (by default torch's number), unless `native` is false: float32 then has 100 dB,
    or errors of 5e-5 at full volume, and bfloat16 has 43 to 55 dB.

    Every utterance is cut into the same blocks, for any chunks of latents (see `block_after`). A CPU computes each
    block on its own, so the samples are the same to the last bit for any chunks and any other streams; in windows of
    other lengths, oneDNN's float32 sums would differ by 1e-6.

    A GPU computes blocks of the same length as one batch, on a CUDA stream of the vocoder's own, so that decode steps
    run meanwhile. There float16 has a signal-to-noise ratio of about 60 dB to float32 on a CPU, and so has float32,
    since cuDNN computes its convolutions in TF32 on GPUs of compute capability 8.0 or higher. cuDNN chooses its
    kernels by the size of the batch: a block alone and in a batch differ by as little as that, not by nothing.

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
        self.dtype = dtype
        self._device = next(decoder.waveform_decoder.parameters()).device
        self._generator = _make_generator(decoder.waveform_decoder, dtype, native=native, threads=threads)
        self._width = int(decoder.waveform_decoder.conv_pre.in_channels)
        self._stretches = (
            Stretch(decoder.ar_mel_length_compression / decoder.output_hop_length),
            Stretch(decoder.output_sample_rate / decoder.input_sample_rate),
        )
        self._context = self._generator.context()
        self._batches = self._device.type != "cpu"
        self._lengths = self._window_lengths() if self._batches else []
        self._spare = max((longer - shorter - 1 for shorter, longer in pairwise(self._lengths)), default=0)
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device, SPEECH_PRIORITY)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(self._device))  # for the weights

    @torch.inference_mode()
    def open(self, speaker_embedding: Tensor, speed: float = 1.0) -> VocoderStream:
        """Return the state of a new utterance.

        Arguments:
            speaker_embedding: that of the speaker, (1, 512, 1) float32 on the CPU.
            speed: the speech becomes so many times as fast: as in coqui-tts, the latents are stretched first.
        """
        pace = () if speed == 1.0 else (Stretch(1.0 / speed),)
        with self._on_stream():
            conditions = self._generator.condition(uploaded(speaker_embedding, self._device))
            empty = torch.empty(0, self._width, device=self._device)
        return VocoderStream(conditions, empty, (*pace, *self._stretches))

    def advance(self, work: Sequence[tuple[VocoderStream, Tensor, bool]]) -> list[Samples]:
        """Return the new samples of each stream: those of `launch` with one tensor of latents each."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return self.launch([(stream, [latents], is_last) for stream, latents, is_last in work]).collect()

    @torch.inference_mode()
    def launch(self, work: Work) -> LaunchedSamples:
        """Begin to compute the new samples of each stream. A CPU has finished when this returns.

        `work` has a stream, its new latents, and whether they are the last ones. Latents are (n, D) float32 on any
        device, and computed: the vocoder's CUDA stream waits for no other. n may be 0. Samples are 1-D float32 in
        [-1, 1]; there are none if the latents are too few for a block. NaN in the latents of one stream does not affect
        the others. Raises ValueError for a stream that has ended or is in `work` twice, and for latents of another
        shape. After any error the streams are as they were before.
        """
        self._check(work)
        with self._on_stream():
            advanced = [replace(stream) for stream, _, _ in work]
            taken = [self._take(own, *item[1:]) for own, item in zip(advanced, work, strict=True)]
            computed = self._compute([window for windows in taken for window in windows])
            lengths = [self._generator.hop * sum(window.kept for window in windows) for windows in taken]
            launched = _launched(torch.cat([torch.empty(0, device=self._device), *computed]), lengths)
        for (stream, _, _), own in zip(work, advanced, strict=True):
            stream.become(own)
        return launched

    def vocode(self, latents: Tensor, speaker_embedding: Tensor) -> Samples:
        """Return the samples of the whole utterance `latents` (n, D), equal to those of `advance` for any chunks."""
        return self.advance([(self.open(speaker_embedding), latents, True)])[0]

    def latents_needed(self, stream: VocoderStream) -> int:
        """Return how many more latents `stream` needs before `advance` returns samples; 0 if it has enough."""
        have = stream.dropped + len(stream.latents)
        end = stream.frames + block_after(stream.blocks) + self._context
        counts = range(have, have + LATENTS_MOST)
        return bisect.bisect_left(counts, end, key=lambda latents: known_frames(stream.stretches, latents, ended=False))

    def warm_up(self, batch: int) -> None:
        """Compute windows of all lengths, alone and in batches of up to `batch`, on a GPU.

        Libraries prepare for each shape at its first use, and allocate their workspace.
        """
        sizes = [1 << power for power in range(min(batch, BATCH_MOST).bit_length())]
        with torch.inference_mode(), self._on_stream():
            conditions = self._generator.condition(torch.zeros(1, 512, 1, device=self._device))
            for length in self._lengths:
                frames = torch.zeros(length, self._width, device=self._device)
                for size in sizes:
                    self._generator.samples([Window(frames, conditions, 0, 1)] * size)

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _check(self, work: Work) -> None:
        if len({id(stream) for stream, _, _ in work}) < len(work):
            raise ValueError("a stream is in the work twice")
        for stream, parts, _ in work:
            if stream.ended:
                raise ValueError("the stream has ended")
            for latents in parts:
                if latents.dim() != 2 or latents.shape[1] != self._width:
                    raise ValueError(f"latents are {tuple(latents.shape)}, not (n, {self._width})")

    def _take(self, stream: VocoderStream, latents: Sequence[Tensor], is_last: bool) -> list[Window]:
        """Add new latents, return the windows that can be computed now, and drop latents that no later window needs."""
        for each in latents:
            if self._stream is not None and each.device.type == "cuda":
                each.record_stream(self._stream)  # whoever frees them knows nothing of this CUDA stream
        new = [each.to(self._device, torch.float32) for each in latents]
        stream.latents = torch.cat([stream.latents, *new])
        stream.ended = is_last
        windows = list(self._windows(stream))
        oldest = len(stream.latents) if is_last else self._first_latent(stream) - stream.dropped
        stream.latents = stream.latents[oldest:].clone()  # a view would keep all of them in memory
        stream.dropped += oldest
        return windows

    def _windows(self, stream: VocoderStream) -> Iterator[Window]:
        known = known_frames(stream.stretches, stream.dropped + len(stream.latents), ended=stream.ended)
        while stream.frames < known:
            first, last = stream.frames, stream.frames + block_after(stream.blocks)
            if last + self._context > known and not stream.ended:
                return
            last, stop = min(last, known), min(last + self._context, known)
            start = self._start(first, stop)
            stream.frames, stream.blocks = last, stream.blocks + 1
            frames = self._frames(stream, start, stop)
            yield Window(frames, stream.conditions, first - start, last - first)

    def _start(self, first: int, stop: int) -> int:
        """Return the first frame of the window up to `stop` whose samples begin at frame `first`.

        On a GPU the last window of an utterance begins earlier than it must, to have the length of a usual one: cuDNN
        prepares for each new length, and the allocator keeps memory for it.
        """
        needed = stop - max(0, first - self._context)
        return max(0, stop - next((length for length in self._lengths if length >= needed), needed))

    def _window_lengths(self) -> list[int]:
        """Return the lengths of the windows of whole blocks, the first of which has nothing before it."""
        blocks = [block_after(0)]
        while blocks[-1] < MOST_FRAMES:
            blocks.append(block_after(len(blocks)))
        return [blocks[0] + self._context, *(block + 2 * self._context for block in blocks[1:])]

    def _frames(self, stream: VocoderStream, start: int, stop: int) -> Tensor:
        """Return frames `start` to `stop`, (stop - start, D): the latents after every stretch."""
        inputs = stream.dropped + len(stream.latents)
        return stretched(stream.latents, stream.dropped, inputs, stream.stretches, start, stop)

    def _first_latent(self, stream: VocoderStream) -> int:
        """Return the first latent that a later frame and its context need."""
        first = max(0, stream.frames - self._context - self._spare)
        return min(first_input(stream.stretches, first), stream.dropped + len(stream.latents))

    def _compute(self, windows: list[Window]) -> list[Tensor]:
        """Return the samples of each window. A CPU computes no batches: they are no faster, and round otherwise."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            groups[len(window.frames) if self._batches else -index].append(index)
        samples: dict[int, Tensor] = {}
        for group in groups.values():
            for batch in _powers_of_2(group):
                samples |= zip(batch, self._generator.samples([windows[index] for index in batch]), strict=True)
        return [samples[index] for index in range(len(windows))]


def _powers_of_2(group: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield `group` in batches of 16, 8, 4, 2 and 1: few sizes, for the same reason as few lengths."""
    while group:
        size = min(BATCH_MOST, 1 << (len(group).bit_length() - 1))
        yield group[:size]
        group = group[size:]


def _launched(flat: Tensor, lengths: Sequence[int]) -> LaunchedSamples:
    """Begin one copy of `flat` to the host, for all streams."""
    if flat.device.type != "cuda":
        return LaunchedSamples(flat, lengths, None)
    host = torch.empty(len(flat), pin_memory=True).copy_(flat, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # the thread sleeps while it waits
    copied.record()
    return LaunchedSamples(host, lengths, copied)


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
