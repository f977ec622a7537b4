"""The streaming vocoder against coqui-tts's own, which vocodes an utterance in one piece.

Both with the generator in torch and with the one in C++, where the CPU has AMX; `native` says which.
"""

import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts
from support.native_variants import tiles_or_skip
from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

from mirrorchat.audio.samples import Samples
from mirrorchat.xtts.model import load_network
from mirrorchat.xtts.vocoder import StreamingVocoder, VocoderStream, fade_out

FRAME = 256
FIRST_LATENTS = 8  # after which the first 19 frames are certain
LENGTHS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 30, 37, 90)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> HifiDecoder:
    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    torch.manual_seed(0)  # biases come from the global random generator
    make_tiny_xtts.make_checkpoint(folder)
    return load_network(folder).hifigan_decoder


@pytest.fixture(scope="module", params=[False, True], ids=["torch", "native"])
def native(request: pytest.FixtureRequest) -> bool:
    if request.param:
        tiles_or_skip()
    return bool(request.param)


@pytest.fixture(scope="module")
def vocoder(decoder: HifiDecoder, native: bool) -> StreamingVocoder:
    return StreamingVocoder(decoder, native=native)


@pytest.fixture(scope="module")
def torch_vocoder(decoder: HifiDecoder) -> StreamingVocoder:
    return StreamingVocoder(decoder, native=False)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_latents(count: int, seed: int = 0, width: int = 64) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def random_voice(seed: int = 0) -> torch.Tensor:
    voice = torch.randn(1, 512, 1, generator=torch.Generator().manual_seed(1000 + seed))
    return torch.nn.functional.normalize(voice, dim=1)


def stock(decoder: HifiDecoder, latents: torch.Tensor, voice: torch.Tensor) -> Samples:
    with torch.inference_mode():
        samples: Samples = decoder(latents[None], g=voice).reshape(-1).numpy()
    return samples


def streamed(
    vocoder: StreamingVocoder, latents: torch.Tensor, voice: torch.Tensor, sizes: Sequence[int], speed: float = 1.0
) -> Samples:
    """Return the samples of `latents` in chunks of `sizes`, repeated as often as needed."""
    stream, parts, rest = vocoder.open(voice, speed), [], latents
    for size in itertools.cycle(sizes):
        chunk, rest = rest[:size], rest[size:]
        parts += vocoder.advance([(stream, chunk, not len(rest))])
        if not len(rest):
            return np.concatenate(parts)
    raise AssertionError


def snr_db(reference: Samples, samples: Samples) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - samples).sum()))


@pytest.mark.parametrize("length", LENGTHS)
def test_whole_utterance_is_what_coqui_tts_gives(decoder: HifiDecoder, vocoder: StreamingVocoder, length: int) -> None:
    latents, voice = random_latents(length), random_voice()
    expected, samples = stock(decoder, latents, voice), vocoder.vocode(latents, voice)
    assert samples.shape == expected.shape and samples.dtype == np.float32
    assert np.abs(expected).max() > 1e-3  # else the bound below says little
    np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-5)


def test_longest_utterance_is_what_coqui_tts_gives(decoder: HifiDecoder, vocoder: StreamingVocoder) -> None:
    latents, voice = random_latents(605), random_voice()
    np.testing.assert_allclose(vocoder.vocode(latents, voice), stock(decoder, latents, voice), rtol=0, atol=1e-5)


def stock_at_speed(decoder: HifiDecoder, latents: torch.Tensor, voice: torch.Tensor, speed: float) -> Samples:
    """Return what `Xtts.inference` makes of the latents."""
    scale = 1.0 / speed
    stretched = torch.nn.functional.interpolate(latents.T[None], scale_factor=scale, mode="linear")[0].T
    return stock(decoder, stretched, voice)


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 0.95, 0.99, 1.01, 1.25, 1.7, 2.0, 4.0])
@pytest.mark.parametrize("length", [8, 12, 19, 20, 37, 90])
def test_speeds_are_those_of_coqui_tts(
    decoder: HifiDecoder, vocoder: StreamingVocoder, speed: float, length: int
) -> None:
    """Torch stretches nothing where the number of latents would stay, which only the end of an utterance tells."""
    latents, voice = random_latents(length), random_voice()
    expected = stock_at_speed(decoder, latents, voice, speed)
    whole = streamed(vocoder, latents, voice, [length], speed)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5)
    for sizes in ([1], [7, 3]):
        assert np.array_equal(streamed(vocoder, latents, voice, sizes, speed), whole)


@pytest.mark.parametrize("speed", [0.25, 0.9, 1 - 1e-12, 1 + 1e-12, 1.25, 4.0])
def test_latents_needed_at_a_speed(vocoder: StreamingVocoder, speed: float) -> None:
    stream, latents = vocoder.open(random_voice(), speed), random_latents(600)
    begun = time.monotonic()
    while len(latents) > (needed := vocoder.latents_needed(stream)):
        if needed > 1:
            assert not len(vocoder.advance([(stream, latents[: needed - 1], False)])[0])
            latents = latents[needed - 1 :]
        assert len(vocoder.advance([(stream, latents[:1], False)])[0])
        latents = latents[1:]
    assert time.monotonic() - begun < 20.0  # no speed makes the search for their number long


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_chunk_size_gives_the_same_bits(
    decoder: HifiDecoder, native: bool, length: int, dtype: torch.dtype
) -> None:
    vocoder = StreamingVocoder(decoder, dtype=dtype, native=native)
    latents, voice = random_latents(length), random_voice()
    whole = vocoder.vocode(latents, voice)
    for size in sorted({1, 2, 3, 5, 8, 20, 33, max(1, length - 1), length}):
        assert np.array_equal(streamed(vocoder, latents, voice, [size]), whole), size


def test_uneven_and_empty_chunks_give_the_same_bits(vocoder: StreamingVocoder) -> None:
    latents, voice = random_latents(90), random_voice()
    whole = vocoder.vocode(latents, voice)
    assert np.array_equal(streamed(vocoder, latents, voice, [0, 1, 8, 0, 0, 30, 2]), whole)
    stream = vocoder.open(voice)
    parts = vocoder.advance([(stream, latents, False)]) + vocoder.advance([(stream, latents[:0], True)])
    assert len(parts[1]) and np.array_equal(np.concatenate(parts), whole)


def test_utterance_without_latents_is_without_samples(vocoder: StreamingVocoder) -> None:
    assert len(vocoder.vocode(random_latents(0), random_voice())) == 0
    assert vocoder.advance([]) == []


@pytest.mark.parametrize("spoilt", range(0, 60, 5))
def test_each_sample_is_computed_from_all_it_depends_on(
    decoder: HifiDecoder, vocoder: StreamingVocoder, spoilt: int
) -> None:
    latents, voice = random_latents(60), random_voice()
    latents[spoilt] = float("nan")  # marks all that depends on it, however little
    depends, marked = np.isnan(stock(decoder, latents, voice)), np.isnan(vocoder.vocode(latents, voice))
    assert depends.any() and not depends.all()
    assert marked[depends].all()


def test_first_samples_are_out_as_soon_as_they_are_certain(decoder: HifiDecoder, vocoder: StreamingVocoder) -> None:
    latents, voice = random_latents(40), random_voice()
    latents[FIRST_LATENTS:] = float("nan")
    certain = int(np.isnan(stock(decoder, latents, voice)).argmax())
    stream = vocoder.open(voice)
    assert vocoder.latents_needed(stream) == FIRST_LATENTS
    assert len(vocoder.advance([(stream, latents[: FIRST_LATENTS - 1], False)])[0]) == 0
    assert vocoder.latents_needed(stream) == 1
    first = vocoder.advance([(stream, latents[FIRST_LATENTS - 1 : FIRST_LATENTS], False)])[0]
    assert certain - FRAME < len(first) <= certain


def test_wanted_latents_give_samples_and_one_less_none(vocoder: StreamingVocoder) -> None:
    stream, latents, given = vocoder.open(random_voice()), random_latents(300), 0
    while given < 250:
        wanted = vocoder.latents_needed(stream)
        assert len(vocoder.advance([(stream, latents[given : given + wanted - 1], False)])[0]) == 0
        given += wanted
        assert len(vocoder.advance([(stream, latents[given - 1 : given], False)])[0]) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_change_nothing(decoder: HifiDecoder, native: bool, dtype: torch.dtype) -> None:
    vocoder = StreamingVocoder(decoder, dtype=dtype, native=native)
    latents = [random_latents(length, seed) for seed, length in enumerate((50, 50, 21, 37, 50))]
    voices = [random_voice(seed) for seed in range(5)]
    latents[3][5:] = float("nan")
    together = advance_together(vocoder, [vocoder.open(voice) for voice in voices], latents, chunk=9)
    for place, (own, voice) in enumerate(zip(latents, voices, strict=True)):
        assert np.array_equal(together[place], vocoder.vocode(own, voice), equal_nan=True)
    assert [bool(np.isnan(samples).any()) for samples in together] == [False, False, False, True, False]


def advance_together(
    vocoder: StreamingVocoder, streams: list[VocoderStream], latents: list[torch.Tensor], *, chunk: int
) -> list[Samples]:
    """Return each stream's samples; all advance at once, those that have ended no longer."""
    parts: list[list[Samples]] = [[] for _ in streams]
    for start in range(0, max(map(len, latents)), chunk):
        places = [place for place, own in enumerate(latents) if start < len(own)]
        work = [(streams[p], latents[p][start : start + chunk], start + chunk >= len(latents[p])) for p in places]
        for place, samples in zip(places, vocoder.advance(work), strict=True):
            parts[place].append(samples)
    return [np.concatenate(own) for own in parts]


def test_rows_of_one_batch_are_what_they_are_alone(
    torch_vocoder: StreamingVocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocoder = torch_vocoder
    latents, voices = [random_latents(40, seed) for seed in range(3)], [random_voice(seed) for seed in range(3)]
    alone = [vocoder.vocode(own, voice) for own, voice in zip(latents, voices, strict=True)]
    monkeypatch.setattr(vocoder, "_batches", True)  # as on a GPU
    together = vocoder.advance([(vocoder.open(v), own, True) for v, own in zip(voices, latents, strict=True)])
    assert len(vocoder.advance([(vocoder.open(voices[0]), latents[0], True)])[0]) == len(alone[0])
    for samples, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-6)


def test_voices_differ(vocoder: StreamingVocoder) -> None:
    latents = random_latents(20)
    difference = vocoder.vocode(latents, random_voice(0)) - vocoder.vocode(latents, random_voice(1))
    assert np.abs(difference).max() > 1e-3


def test_bfloat16_is_within_40_db(decoder: HifiDecoder, native: bool, vocoder: StreamingVocoder) -> None:
    latents, voice = random_latents(90), random_voice()
    coarse = StreamingVocoder(decoder, dtype=torch.bfloat16, native=native).vocode(latents, voice)
    assert coarse.dtype == np.float32
    assert 40 < snr_db(vocoder.vocode(latents, voice), coarse) < 80  # more would not be bfloat16


def test_released_sizes(native: bool) -> None:
    torch.manual_seed(0)
    decoder = HifiDecoder().train(False).requires_grad_(False)
    latents, voice = random_latents(12, width=1024), random_voice()
    vocoder = StreamingVocoder(decoder, native=native)
    whole = vocoder.vocode(latents, voice)
    np.testing.assert_allclose(whole, stock(decoder, latents, voice), rtol=0, atol=1e-5)
    assert np.array_equal(streamed(vocoder, latents, voice, [5]), whole)
    coarse = StreamingVocoder(decoder, dtype=torch.bfloat16, native=native)
    assert snr_db(whole, coarse.vocode(latents, voice)) > 40
    assert np.array_equal(streamed(coarse, latents, voice, [5]), coarse.vocode(latents, voice))


def test_decoder_is_neither_changed_nor_shared(native: bool) -> None:
    own = HifiDecoder(decoder_input_dim=64, upsample_initial_channel_decoder=32).train(False).requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    latents, voice = random_latents(12), random_voice()
    made = StreamingVocoder(own, native=native)
    before = made.vocode(latents, voice)
    assert own.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state_dict().items())
    for tensor in own.waveform_decoder.parameters():
        tensor.zero_()
    assert np.array_equal(made.vocode(latents, voice), before)


def test_cost_is_in_proportion_to_the_audio(torch_vocoder: StreamingVocoder) -> None:
    def operations(length: int) -> int:
        with FlopCounterMode(display=False) as counter:
            streamed(torch_vocoder, random_latents(length), random_voice(), [8])
        return int(counter.get_total_flops())

    assert operations(400) / operations(100) == pytest.approx(4, rel=0.1)


def test_stream_keeps_only_the_latents_still_needed(vocoder: StreamingVocoder) -> None:
    stream = vocoder.open(random_voice())
    for _ in range(100):
        vocoder.advance([(stream, random_latents(6), False)])
        assert len(stream.latents) <= 50  # the longest block, its context on both sides and a chunk
        assert stream.latents.untyped_storage().nbytes() == stream.latents.numel() * 4
    vocoder.advance([(stream, random_latents(0), True)])
    assert len(stream.latents) == 0


def test_misuse_is_refused_before_anything_changes(vocoder: StreamingVocoder) -> None:
    latents, voice = random_latents(20), random_voice()
    stream, ended = vocoder.open(voice), vocoder.open(voice)
    vocoder.advance([(ended, latents, True)])
    with pytest.raises(ValueError, match="has ended"):
        vocoder.advance([(stream, latents, True), (ended, latents, False)])
    with pytest.raises(ValueError, match="twice"):
        vocoder.advance([(stream, latents, False), (stream, latents, False)])
    for wrong in (latents[None], latents[:, :-1]):
        with pytest.raises(ValueError, match=r"not \(n, 64\)"):
            vocoder.advance([(stream, wrong, False)])
    assert np.array_equal(vocoder.advance([(stream, latents, True)])[0], vocoder.vocode(latents, voice))


def test_samples_are_the_callers_own(vocoder: StreamingVocoder) -> None:
    latents, voice = random_latents(20), random_voice()
    first, second = vocoder.advance([(vocoder.open(voice), latents, True) for _ in range(2)])
    first[:] = 0.0
    assert np.array_equal(second, vocoder.vocode(latents, voice))


def test_fade_out_falls_to_silence_with_equal_power() -> None:
    samples = np.ones(1000, np.float32)
    faded = fade_out(samples, 24_000, 10.0)
    assert (samples == 1).all() and faded.dtype == np.float32
    assert (faded[:760] == 1).all() and abs(faded[-1]) < 1e-6 and (np.diff(faded[760:]) < 0).all()
    np.testing.assert_allclose(faded[760:] ** 2 + faded[760:][::-1] ** 2, 1, atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 50])
def test_fade_out_of_less_than_its_length(length: int) -> None:
    faded = fade_out(np.ones(length, np.float32), 24_000)
    assert len(faded) == length and (length < 2 or (faded[0] == 1 and abs(faded[-1]) < 1e-6))
