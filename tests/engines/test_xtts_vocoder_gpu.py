"""The vocoder on a GPU: its own CUDA stream, no wait of the host, few shapes, float16."""

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.simulated_cuda import SimulatedCuda
from support.xtts_requests import ask, assert_same, collect, engines, launches, wait_until

from mirrorchat.audio.samples import Samples
from mirrorchat.errors import SynthesisFailed
from mirrorchat.xtts.generator import Generator, Window
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import StepMode
from mirrorchat.xtts.utterance import FinishReason
from mirrorchat.xtts.vocoder import LaunchedSamples, StreamingVocoder, Work
from mirrorchat.xtts.vocoder_type import make_vocoder, remark_on_type

WIDTH = 64
WINDOWS = [32, 58, 80, 119, 178]  # frames: blocks of 19, 32, 54, 93 and 152, with 13 on each side


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network(xtts_checkpoint: Path) -> Network:
    return load_network(xtts_checkpoint)


@pytest.fixture
def vocoder(network: Network, simulated_cuda: SimulatedCuda) -> StreamingVocoder:
    return on_gpu(network, torch.device("cuda", 1))


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The batch and the frames of all windows from now on."""
    seen: list[tuple[int, int]] = []
    samples = Generator.samples

    def noting(generator: Generator, windows: Sequence[Window]) -> list[torch.Tensor]:
        seen.append((len(windows), len(windows[0].frames)))
        return samples(generator, windows)

    monkeypatch.setattr(Generator, "samples", noting)
    return seen


def latents_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def voice_of(seed: int = 0) -> torch.Tensor:
    voice = torch.randn(1, 512, 1, generator=torch.Generator().manual_seed(1000 + seed))
    return torch.nn.functional.normalize(voice, dim=1)


def snr_db(expected: Samples, found: Samples) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()))


def on_gpu(network: Network, device: torch.device, dtype: torch.dtype = torch.float32) -> StreamingVocoder:
    return StreamingVocoder(network.hifigan_decoder.to(device), dtype=dtype)


def on_cpu(network: Network, *latents: torch.Tensor) -> list[Samples]:
    vocoder = StreamingVocoder(network.hifigan_decoder, native=False)
    return [vocoder.vocode(own, voice_of(place)) for place, own in enumerate(latents)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_same_samples_as_on_a_cpu(network: Network, cuda_device: torch.device, dtype: torch.dtype) -> None:
    """Within 50 dB, alone and in batches, whatever the chunks."""
    latents = [latents_of(length, seed) for seed, length in enumerate((20, 20, 11))]
    expected = on_cpu(network, *latents)
    vocoder = on_gpu(network, cuda_device, dtype)
    streams = [vocoder.open(voice_of(place)) for place in range(3)]
    parts: list[list[Samples]] = [[], [], []]
    for start, end in ((0, 9), (9, 11), (11, 20)):
        places = [place for place in range(3) if start < len(latents[place])]
        work = [(streams[p], latents[p][start:end].to(cuda_device), end == len(latents[p])) for p in places]
        for place, samples in zip(places, vocoder.advance(work), strict=True):
            parts[place].append(samples)
    for own, whole in zip(parts, expected, strict=True):
        assert np.concatenate(own).shape == whole.shape
        assert snr_db(whole, np.concatenate(own)) > 50


@pytest.mark.parametrize("length", [1, 15, 30])
def test_a_longer_last_window_has_the_same_samples(
    network: Network, simulated_cuda: SimulatedCuda, length: int
) -> None:
    (expected,) = on_cpu(network, latents_of(length))
    found = on_gpu(network, torch.device("cuda", 0)).vocode(latents_of(length).to("cuda:0"), voice_of())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_windows_have_few_lengths_and_batches_few_sizes(
    vocoder: StreamingVocoder, shapes: list[tuple[int, int]]
) -> None:
    for length in (14, 24, 35, 50, 71, 100):  # 0.65 s of speech and more
        stream = vocoder.open(voice_of())
        for start in range(0, length, 30):
            vocoder.advance([(stream, latents_of(length)[start : start + 30].to("cuda:1"), start + 30 >= length)])
    assert {frames for _, frames in shapes} <= set(WINDOWS)
    shapes.clear()
    vocoder.advance([(vocoder.open(voice_of()), latents_of(8).to("cuda:1"), False) for _ in range(7)])
    assert shapes == [(4, 32), (2, 32), (1, 32)]


def test_every_shape_is_tried_before_speech_needs_it(
    vocoder: StreamingVocoder, shapes: list[tuple[int, int]], simulated_cuda: SimulatedCuda
) -> None:
    with simulated_cuda.counting() as waits:
        vocoder.warm_up(3)
    assert sorted(shapes) == [(size, length) for size in (1, 2) for length in WINDOWS] and not waits


def test_the_host_waits_only_for_the_samples(vocoder: StreamingVocoder, simulated_cuda: SimulatedCuda) -> None:
    latents = latents_of(30).to("cuda:1")
    with simulated_cuda.counting() as waits:
        stream = vocoder.open(voice_of())
        launched = vocoder.launch([(stream, [latents[:20]], False)])
        launched = vocoder.launch([(stream, [latents[20:24], latents[24:]], True)])
    assert not waits
    assert np.isnan(launched.flat.numpy()).all()  # nothing has been computed yet
    with simulated_cuda.counting() as waits:
        assert np.isfinite(launched.collect()[0]).all()
    assert list(waits.values()) == [1]


def test_out_of_memory_leaves_the_streams_as_they_were(
    vocoder: StreamingVocoder, simulated_cuda: SimulatedCuda
) -> None:
    latents = latents_of(20).to("cuda:1")
    expected = vocoder.vocode(latents, voice_of())
    stream = vocoder.open(voice_of())
    for after in (0, 40, 300):
        simulated_cuda.fail_allocation(after=after)
        with pytest.raises(torch.OutOfMemoryError):
            vocoder.launch([(stream, [latents], True)])
    np.testing.assert_allclose(vocoder.advance([(stream, latents, True)])[0], expected, atol=1e-6)


def test_freed_latents_are_not_overwritten_before_they_are_read(
    vocoder: StreamingVocoder, simulated_cuda: SimulatedCuda
) -> None:
    latents = latents_of(20).to("cuda:1")
    stream = vocoder.open(voice_of())
    launched = vocoder.launch([(stream, [latents], True)])
    del latents
    torch.zeros(20, WIDTH, device="cuda:1")  # gets their memory, unless the vocoder still uses it
    assert np.isfinite(launched.collect()[0]).all()


@pytest.mark.parametrize(
    ("capability", "factor", "dtype"),
    [
        ((8, 9), 1.0, torch.float16),
        ((7, 5), 1.0, torch.float16),
        ((6, 1), 1.0, torch.float32),  # slow in float16
        ((8, 9), 3e4, torch.float32),  # activations out of range
    ],
)
def test_float16_where_activations_stay_in_range(
    network: Network, simulated_cuda: SimulatedCuda, capability: tuple[int, int], factor: float, dtype: torch.dtype
) -> None:
    simulated_cuda.gpus[0].capability = capability
    network.hifigan_decoder.waveform_decoder.conv_pre.weight.mul_(factor)
    vocoder = make_vocoder(network.hifigan_decoder.to("cuda:0"), WeightMode.BF16, network.gpt.final_norm)
    assert vocoder.dtype is dtype
    remark = remark_on_type(vocoder, torch.device("cuda", 0))
    assert ("TF32" in remark) is (factor > 1.0) and bool(remark) is (factor > 1.0)


@pytest.mark.parametrize(("mode", "dtype"), [(WeightMode.FP16W, torch.float32), (WeightMode.INT8, torch.bfloat16)])
def test_a_cpu_computes_in_float32_or_bfloat16(network: Network, mode: WeightMode, dtype: torch.dtype) -> None:
    assert make_vocoder(network.hifigan_decoder, mode, network.gpt.final_norm).dtype is dtype


class TestEngine:
    def test_steps_are_launched_while_the_vocoder_runs(
        self, vocoder: StreamingVocoder, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log: list[str] = []

        def noted(owner: object, name: str, entry: str) -> None:
            called = getattr(owner, name)

            def noting(*arguments: Any) -> Any:
                log.append(entry)
                return called(*arguments)

            monkeypatch.setattr(owner, name, noting)

        with engines(network, device=torch.device("cuda", 1), vocoder=vocoder) as make:
            engine = make(WeightMode.BF16, max_batch=1)
            noted(engine._steps, "launch", "step")
            noted(vocoder, "launch", "vocoder")
            noted(LaunchedSamples, "collect", "samples")
            collect(engine.submit(ask(sampling=Sampling(min_tokens=37))))
        first = log.index("vocoder")
        assert "step" in log[first : log.index("samples")]

    @pytest.mark.parametrize("step_mode", [StepMode.EAGER, StepMode.STATIC])
    def test_late_samples_change_nothing(
        self, network: Network, step_mode: StepMode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sentence may end while the vocoder still works on it: nothing is decoded after its end."""
        requests = [ask(range(6, 10 + seed), speaker=seed % 3, seed=seed) for seed in range(8)]
        with engines(network, step_mode=step_mode) as make:
            engine = make(max_batch=4, queue_chunks=100)
            expected = [collect(engine.submit(request)) for request in requests]
            assert FinishReason.STOP in {spoken.reason for spoken in expected}
            monkeypatch.setattr(LaunchedSamples, "ready", property(lambda _: False))
            slots = launches(engine, monkeypatch)
            for request, alone in zip(requests, expected, strict=True):
                utterance = engine.submit(request)
                wait_until(lambda last=utterance: last.finish_reason is not None)  # type: ignore[misc]
                assert_same(collect(utterance), alone)
            # The first token needs no step, and one step may be launched before the end is known.
            assert sum(map(len, slots)) <= sum(len(spoken.tokens) for spoken in expected)

    def test_out_of_memory_halves_the_batch(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = threading.Lock()
        with engines(network, step_mode=StepMode.STATIC, device_lock=gate) as make:
            engine = make(max_batch=8, queue_chunks=100)
            monkeypatch.setattr(engine, "_on_cpu", False)  # it vocodes batches
            launch, tried, cleared = engine._vocoder.launch, [], []

            def launch_with_little_memory(work: Work) -> LaunchedSamples:
                tried.append(len(work))
                if len(work) > 2:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return launch(work)

            monkeypatch.setattr(engine._vocoder, "launch", launch_with_little_memory)
            monkeypatch.setattr(torch.cuda, "empty_cache", lambda: cleared.append(True))
            with gate:
                utterances = [engine.submit(ask(seed=seed, sampling=Sampling(min_tokens=20))) for seed in range(8)]
            for utterance in utterances:
                collect(utterance)
            assert max(tried) > 2 and cleared
            assert all(after == (size + 1) // 2 for size, after in pairwise(tried) if size > 2)
            assert engine.healthy

    def test_out_of_memory_alone_is_tried_twice(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        with engines(network) as make:
            engine = make(max_batch=1)
            launch, errors = engine._vocoder.launch, [torch.OutOfMemoryError("CUDA out of memory")]

            def launch_with_little_memory(work: Work) -> LaunchedSamples:
                if errors:
                    raise errors.pop()
                return launch(work)

            monkeypatch.setattr(engine._vocoder, "launch", launch_with_little_memory)
            assert len(collect(engine.submit(ask())).samples)
            errors += [torch.OutOfMemoryError("CUDA out of memory")] * 2
            with pytest.raises(SynthesisFailed, match="OutOfMemoryError"):
                collect(engine.submit(ask()))
            assert len(collect(engine.submit(ask())).samples)
