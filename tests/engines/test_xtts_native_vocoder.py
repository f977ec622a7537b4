"""The vocoder's generator in C++ against torch's: what test_xtts_vocoder.py, which runs both, does not see."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.native_variants import tiles_or_skip

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

from mirrorchat.hardware import native as native_library
from mirrorchat.hardware.native import Library
from mirrorchat.xtts.generator import Generator, Window
from mirrorchat.xtts.native_vocoder import NativeGenerator
from mirrorchat.xtts.vocoder import StreamingVocoder

TINY = {"decoder_input_dim": 64, "upsample_initial_channel_decoder": 32}
HOP, CONTEXT = 256, 13
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module")
def library() -> Library:
    return tiles_or_skip()


@pytest.fixture(scope="module")
def tiny() -> HifiDecoder:
    return random_decoder(**TINY)


@pytest.fixture(scope="module")
def released() -> HifiDecoder:
    return random_decoder()


def random_decoder(**sizes: int) -> HifiDecoder:
    torch.manual_seed(0)
    return HifiDecoder(**sizes).train(False).requires_grad_(False)


def random_frames(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_voice(seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(random_frames(1, 512, 1, seed=1000 + seed), dim=1)


@torch.inference_mode()
def generate(
    generator: Generator | NativeGenerator, frames: torch.Tensor, kept: tuple[int, int] | None = None, seed: int = 0
) -> torch.Tensor:
    """Return the samples of the frames from `kept[0]` to `kept[1]`, or of all."""
    first, last = kept or (0, len(frames))
    (samples,) = generator.samples([Window(frames, generator.condition(random_voice(seed)), first, last - first)])
    return samples


def make(
    decoder: HifiDecoder, library: Library, dtype: torch.dtype = torch.float32, threads: int = 2
) -> NativeGenerator:
    with torch.inference_mode():
        return NativeGenerator(decoder.waveform_decoder, dtype, library, threads)


def snr_db(reference: torch.Tensor, samples: torch.Tensor) -> float:
    return float(10 * torch.log10(reference.square().sum() / (reference - samples).square().sum()))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 15, 16, 17, 31, 33, 50])
def test_window_is_what_torch_gives(tiny: HifiDecoder, library: Library, length: int) -> None:
    frames = random_frames(length, 64)
    expected = generate(Generator(tiny.waveform_decoder, torch.float32), frames)
    exact = generate(make(tiny, library), frames)
    assert exact.shape == expected.shape and expected.abs().max() > 1e-3
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-5)
    assert 40 < snr_db(expected, generate(make(tiny, library, torch.bfloat16), frames)) < 80  # more: not bfloat16


def test_released_sizes_are_what_torch_gives(released: HifiDecoder, library: Library) -> None:
    frames = random_frames(45, 1024)
    expected = generate(Generator(released.waveform_decoder, torch.float32), frames)
    torch.testing.assert_close(generate(make(released, library), frames), expected, rtol=0, atol=2e-6)
    assert snr_db(expected, generate(make(released, library), frames)) > 100
    assert snr_db(expected, generate(make(released, library, torch.bfloat16), frames)) > 50


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_same_on_any_number_of_threads(
    released: HifiDecoder, library: Library, dtype: torch.dtype
) -> None:
    frames = random_frames(60, 1024)
    alone = generate(make(released, library, dtype, threads=1), frames)
    for threads in (2, 3):
        assert torch.equal(generate(make(released, library, dtype, threads=threads), frames), alone)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_same_wherever_a_window_is_cut(tiny: HifiDecoder, library: Library, dtype: torch.dtype) -> None:
    generator, frames = make(tiny, library, dtype), random_frames(90, 64)
    whole = generate(generator, frames)
    for first, last in ((0, 1), (0, 19), (1, 2), (13, 32), (14, 15), (20, 77), (40, 90), (89, 90)):
        start, stop = max(0, first - CONTEXT), min(len(frames), last + CONTEXT)
        samples = generate(generator, frames[start:stop], (first - start, last - start))
        assert torch.equal(samples, whole[first * HOP : last * HOP]), (first, last)


def test_context_and_hop_are_torch_s(released: HifiDecoder, tiny: HifiDecoder, library: Library) -> None:
    for decoder in (released, tiny):
        native, expected = make(decoder, library), Generator(decoder.waveform_decoder, torch.float32)
        assert (native.context(), native.hop) == (expected.context(), expected.hop) == (CONTEXT, HOP)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_where_it_is(
    tiny: HifiDecoder, library: Library, dtype: torch.dtype, value: float
) -> None:
    generator, frames = make(tiny, library, dtype), random_frames(60, 64)
    clean = generate(generator, frames)
    frames[30, 5] = value
    spoilt = generate(generator, frames)
    around = slice((30 - CONTEXT) * HOP, (31 + CONTEXT) * HOP)
    marked = spoilt.isnan()
    assert marked[30 * HOP : 31 * HOP].all()
    assert not marked[: around.start].any() and not marked[around.stop :].any()
    assert torch.equal(spoilt[~marked][: around.start], clean[: around.start])
    assert torch.equal(generate(generator, random_frames(60, 64)), clean)  # nothing is left in the generator's memory


@torch.inference_mode()
def test_spoilt_samples_are_those_that_depend_on_it(tiny: HifiDecoder, library: Library) -> None:
    frames = random_frames(40, 64)
    frames[20] = float("nan")
    depends = tiny.waveform_decoder(frames.T[None], g=random_voice()).flatten().isnan()
    assert depends.any() and not depends.all()
    assert torch.equal(generate(make(tiny, library), frames).isnan(), depends)


def test_windows_of_other_lengths_and_voices_leave_nothing_behind(tiny: HifiDecoder, library: Library) -> None:
    generator = make(tiny, library)
    windows = [(random_frames(length, 64, seed=length), length) for length in (50, 3, 90, 20)]
    first = [generate(generator, frames, seed=seed) for frames, seed in windows]
    assert all(torch.equal(generate(generator, f, seed=s), each) for (f, s), each in zip(windows, first, strict=True))
    assert all(
        torch.equal(generate(make(tiny, library), f, seed=s), each) for (f, s), each in zip(windows, first, strict=True)
    )


def test_one_generator_serves_several_threads(tiny: HifiDecoder, library: Library) -> None:
    generator, windows = make(tiny, library), [random_frames(40, 64, seed=seed) for seed in range(12)]
    expected = [generate(generator, frames) for frames in windows]
    with ThreadPoolExecutor(3) as pool:
        for samples, each in zip(pool.map(lambda frames: generate(generator, frames), windows), expected, strict=True):
            assert torch.equal(samples, each)


def test_streaming_costs_in_proportion_to_the_audio(tiny: HifiDecoder, library: Library) -> None:
    vocoder = StreamingVocoder(tiny)

    def frames(length: int) -> int:
        """Return how many frames are computed, with those on either side of a block."""
        computed: list[int] = []
        generator = _Counting(make(tiny, library), computed)
        vocoder._generator = generator
        stream, latents = vocoder.open(random_voice()), random_frames(length, 64)
        for start in range(0, length, 8):
            vocoder.advance([(stream, latents[start : start + 8], start + 8 >= length)])
        return sum(computed)

    assert frames(600) / frames(150) == pytest.approx(4, rel=0.1)


class _Counting(NativeGenerator):
    """A generator that notes how many frames its windows have."""

    def __init__(self, generator: NativeGenerator, computed: list[int]) -> None:
        self._counted, self._computed, self.hop = generator, computed, generator.hop

    def condition(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        return self._counted.condition(embedding)

    def samples(self, windows: Sequence[Window]) -> list[torch.Tensor]:
        self._computed += [len(window.frames) for window in windows]
        return self._counted.samples(windows)


def test_unknown_convolution_is_refused(library: Library) -> None:
    decoder = random_decoder(**TINY)
    decoder.waveform_decoder.conv_pre.padding = (2,)
    with pytest.raises(ValueError, match="unknown kind of convolution"):
        make(decoder, library)


def test_without_the_library_torch_computes(tiny: HifiDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, voice = random_frames(20, 64), random_voice()
    expected = StreamingVocoder(tiny, native=False).vocode(latents, voice)
    monkeypatch.setattr(native_library, "library", lambda: None)
    assert np.array_equal(StreamingVocoder(tiny).vocode(latents, voice), expected)


def test_library_without_tiles_leaves_it_to_torch(tiny: HifiDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    library = native_library.variant("_native_avx512")
    monkeypatch.setattr(native_library, "library", lambda: library)
    assert isinstance(StreamingVocoder(tiny)._generator, Generator)
