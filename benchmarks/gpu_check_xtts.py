"""XTTS's parts of benchmarks/gpu_check.py: scores and samples against the CPU's, captured steps, waits, step times."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_check_models import decibels
from benchmarks.gpu_check_report import Report
from benchmarks.xtts_sides import Voice, random_latents, weights_read
from mirrorchat.hardware.devices import urgent_stream
from mirrorchat.synth import weight_mode
from mirrorchat.xtts.cuda_graph import StaticSteps
from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import EagerSteps, Launched, Steps
from mirrorchat.xtts.vocoder import StreamingVocoder
from mirrorchat.xtts.vocoder_type import make_vocoder

CPU = torch.device("cpu")
TEXT_IDS = range(6, 40)
FORCED_TOKENS = 24
POSITIONS = 100  # of a voice and a short text, before the first audio token
BATCHES = (1, 4, 8)
LATENTS, FEW_LATENTS = 64, 8  # 3 s of speech

MakeSteps = Callable[[TorchGpt, Cache], Steps]


def check_scores(folder: Path, device: torch.device, report: Report, *, tiny: bool) -> None:
    """Compare scores in each kind of weights, and samples in each type of the vocoder, with float32 on the CPU."""
    network = load_network(folder / "xtts-v2")
    report.note("weights", str(weight_mode("auto", device)))
    exact, tokens = _forced(TorchGpt(network, WeightMode.FP32, CPU))
    gpu = device.type == "cuda"
    for mode in (WeightMode.FP32, WeightMode.FP16W, *([WeightMode.BF16, WeightMode.FP16] if gpu else [])):
        found, _ = _forced(TorchGpt(network, mode, device), tokens)
        report.note(f"scores_db_{mode}", decibels(exact, found))
        report.note(f"likeliest_tokens_equal_{mode}", float((exact.argmax(1) == found.argmax(1)).float().mean()))
    _check_vocoder(network, device, report, FEW_LATENTS if tiny else LATENTS)


@torch.inference_mode()
def _forced(gpt: TorchGpt, tokens: Sequence[int] | None = None) -> tuple[Tensor, list[int]]:
    """Return the scores (FORCED_TOKENS, V - 1) along `tokens`, by default the likeliest ones, and these tokens.

    They leave out the stop token, whose score is far below all others in these models (`make_tiny_xtts`, endless).
    """
    spoken = [token for token in range(gpt.audio_tokens) if token != gpt.stop_token]
    cache = Cache(1, POSITIONS + FORCED_TOKENS, gpt)
    conditioning = Voice.random(0, gpt.width).conditioning[0].to(gpt.mel_embedding.device)
    prefix = torch.cat([conditioning, gpt.text_prefix(TEXT_IDS)])
    last, scores, taken = gpt.prefill(prefix, cache, 0, 0)[-1:], [], []
    for step in range(FORCED_TOKENS):
        scores.append(gpt.latents_and_scores(last)[1][0].float().cpu()[spoken])
        taken.append(spoken[int(scores[-1].argmax())] if tokens is None else tokens[step])
        last = gpt.step(gpt.audio_inputs([taken[-1]], [step + 1]), cache, [0], [len(prefix) + step])
    return torch.stack(scores), taken


def _check_vocoder(network: Network, device: torch.device, report: Report, count: int) -> None:
    latents, embedding = random_latents(count, network.gpt.model_dim), Voice.random(0, 1).embedding
    exact = _vocoded(StreamingVocoder(network.hifigan_decoder, native=False), latents, embedding, 1)[0]
    decoder = network.hifigan_decoder.to(device)
    types = (torch.float32, torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    vocoders = {
        str(dtype).removeprefix("torch."): StreamingVocoder(decoder, dtype=dtype, native=False) for dtype in types
    }
    vocoders["served"] = make_vocoder(decoder, weight_mode("auto", device), network.gpt.final_norm)
    for name, vocoder in vocoders.items():
        _vocoded(vocoder, latents, embedding, 1)  # warms up
        start = time.perf_counter()
        alone = _vocoded(vocoder, latents, embedding, 1)[0]
        seconds = time.perf_counter() - start
        report.note(f"vocoder_db_{name}", decibels(exact, alone))
        report.note(f"vocoder_ms_a_second_{name}", 1e3 * seconds / (len(alone) / vocoder.sample_rate))
        report.note(f"vocoder_db_one_of_8_{name}", decibels(alone, _vocoded(vocoder, latents, embedding, 8)[3]))


def _vocoded(vocoder: StreamingVocoder, latents: Tensor, embedding: Tensor, count: int) -> list[Tensor]:
    """Return the samples of `count` equal utterances, computed together."""
    work = [(vocoder.open(embedding), latents, True) for _ in range(count)]
    return [torch.from_numpy(samples) for samples in vocoder.advance(work)]


def check_steps(folder: Path, device: torch.device, report: Report, *, tiny: bool) -> None:
    """Compare captured steps with plain ones, count waits, and time steps beside the floor of the bandwidth."""
    network = load_network(folder / "xtts-v2")
    with torch.inference_mode(), urgent_stream(device):
        if device.type == "cuda":
            _check_captured(TorchGpt(network, WeightMode.FP32, device), report, 12 if tiny else 40)
        bandwidth = _read_bandwidth(device, 1 << 24 if tiny else 1 << 30)
        report.note("bandwidth_gb_s", bandwidth / 1e9)
        mode = weight_mode("auto", device) if device.type == "cuda" else WeightMode.FP32
        gpt, count = TorchGpt(network, mode, device), 10 if tiny else 96
        weight_bytes = weights_read(network, mode)
        position_bytes = int(np.prod(gpt.cache_shape(1))) * gpt.cache_dtype.itemsize
        report.note("weights_gb", weight_bytes / 1e9)
        report.note("position_bytes", position_bytes)
        steps = _started(gpt, max(BATCHES), partial(StaticSteps, capture=device.type == "cuda"))
        filled = [POSITIONS] * max(BATCHES)
        for batch in BATCHES:
            positions = sum(filled[:batch]) + batch * count / 2  # that a step reads, on an average
            floor_ms = 1e3 * (weight_bytes + positions * position_bytes) / bandwidth
            step_ms = _step_ms(steps, range(batch), count)
            filled[:batch] = [each + count for each in filled[:batch]]
            report.note(f"step_ms_{batch}", step_ms)
            report.note(f"floor_ms_{batch}", floor_ms)
            report.note(f"step_over_floor_{batch}", step_ms / floor_ms)


def _started(gpt: TorchGpt, slots: int, make: MakeSteps) -> Steps:
    """Return steps over `slots` sequences, each with POSITIONS random positions and its first token."""
    cache = Cache(slots, POSITIONS + gpt.token_limit + 1, gpt)
    steps, generator = make(gpt, cache), torch.Generator().manual_seed(0)
    for slot in range(slots):
        filled = cache.data[slot, :, :, :, :POSITIONS]
        filled.copy_(torch.randn(filled.shape, generator=generator))
        last = torch.randn(1, gpt.width, generator=generator).to(cache.data.device)
        steps.start(slot, last, positions=POSITIONS, sampling=Sampling(), seed=slot).collect()
    return steps


def _check_captured(gpt: TorchGpt, report: Report, count: int) -> None:
    """Compare the tokens of captured steps with those of the same steps run one by one, and of eager ones."""
    slots, captured = [0, 2], _started(gpt, 3, partial(StaticSteps, capture=True))
    tokens = _tokens(captured, slots, count)
    report.note("captured_tokens", len(tokens))
    others: dict[str, MakeSteps] = {"plain": partial(StaticSteps, capture=False), "eager": EagerSteps}
    for name, make in others.items():
        pairs = zip(tokens, _tokens(_started(gpt, 3, make), slots, count), strict=True)
        report.note(f"captured_differ_from_{name}", sum(one != other for one, other in pairs))
    report.note("step_waits", _waits_of(captured, slots, count // 2))


def _tokens(steps: Steps, slots: Sequence[int], count: int) -> list[int | None]:
    launched = [steps.launch(slots) for _ in range(count)]
    return [sampled.token for each in launched for sampled in each.collect()]


def _waits_of(steps: Steps, slots: Sequence[int], count: int) -> int:
    """Return how many of `count` steps wait for the device while they are launched."""
    waits = 0
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(count):
            try:
                steps.launch(slots)
            except RuntimeError as error:
                print(f"  a step waits: {str(error)[:200]}")
                waits += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return waits


def _step_ms(steps: Steps, slots: Sequence[int], count: int) -> float:
    """Return the median time of a step, each launched before the last one is read, as in the engine."""
    times, before = [], steps.launch(slots)
    for _ in range(count - 1):
        start = time.perf_counter()
        before = _next(steps, slots, before)
        times.append(time.perf_counter() - start)
    before.collect()
    return 1e3 * median(times)


def _next(steps: Steps, slots: Sequence[int], before: Launched) -> Launched:
    launched = steps.launch(slots)
    before.collect()
    return launched


def _read_bandwidth(device: torch.device, size: int) -> float:
    """Return the bytes per second of the fastest of several sums over `size` bytes, with one wait for eight sums."""
    block, seconds = torch.ones(size // 4, device=device), []
    for _ in range(5):
        block.sum().item()  # nothing is left to be done
        start = time.perf_counter()
        for _ in range(8):
            total = block.sum()
        total.item()
        seconds.append(time.perf_counter() - start)
    return 8 * size / min(seconds)
