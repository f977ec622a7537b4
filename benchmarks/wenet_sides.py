"""The sides of benchmarks/wenet.py: our network in each weight mode, and WeNet's runtime format.

Each side runs in a process of side_process.py. Weights are random numbers in the sizes of the releases. The time does
not depend on their values, except for beam search and rescoring, whose work follows the number of tokens. So the bias
of the blank is raised until 5 s of noise give as many tokens as 5 s of speech (25). All sides have the same model.
"""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mirrorchat.asr import WenetWeights
from mirrorchat.hardware import native
from mirrorchat.hardware.native_layers import PackedLinears
from mirrorchat.wenet.batch import ScriptOneByOne, U2Batches
from mirrorchat.wenet.ctc.plain import PlainSearch
from mirrorchat.wenet.ctc.search import BEAM, FloatArray, Hypothesis, prefix_beam_search
from mirrorchat.wenet.hypothesis_tree import rescore
from mirrorchat.wenet.int8 import quantize
from mirrorchat.wenet.model import GlobalCMVN, U2Config, U2Model
from mirrorchat.wenet.native import Backend, Product
from mirrorchat.wenet.rescoring import attention_rescoring

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "wenetspeech": U2Config(
        5537, 5536, 5536, width=512, heads=8, kernel=15, decoder_heads=8, encoder_units=2048, decoder_units=2048
    ),
    "librispeech": U2Config(5002, 2, 2, width=256, heads=4, kernel=15, decoder_heads=4),
    "tiny": U2Config(  # for the test of this benchmark
        50, 49, 49, width=64, encoder_units=64, encoder_blocks=2, decoder_units=64, decoder_blocks=1, reverse_blocks=1
    ),
}
BLANK_RAISED = {"wenetspeech": 3.45, "librispeech": 3.25, "tiny": 2.0}
BINS = 80


def draw_model(size: str) -> U2Model:
    """Return a network of one of SIZES with random weights, the same each time."""
    torch.manual_seed(0)
    model = U2Model(SIZES[size], GlobalCMVN(torch.full((BINS,), 10.0), torch.full((BINS,), 0.3))).eval()
    with torch.no_grad():
        model.ctc.ctc_lo.bias[SIZES[size].blank] += BLANK_RAISED[size]
    return model.requires_grad_(False)


def draw_features(frames: int, seed: int = 0) -> FloatArray:
    """Return random features (frames, 80), the same for the same seed."""
    return (10 + 3 * np.random.default_rng(seed).standard_normal((frames, BINS))).astype(np.float32)


@dataclass(frozen=True)
class Stages:
    """The times of the parts of a recognition."""

    encoder_s: float
    search_s: float
    rescoring_s: float


class Ours:
    """Our network in one weight mode, and our search."""

    def __init__(self, size: str, weights: WenetWeights, threads: int) -> None:
        model = draw_model(size)
        self._threads, self._width, self._inner = threads, SIZES[size].width, SIZES[size].encoder_units
        self._batches = U2Batches(quantize(model, threads) if weights is WenetWeights.INT8 else model)

    @torch.inference_mode()
    def seconds(self, frames: int, count: int, *, together: bool) -> float:
        """Return the time from features to the best hypotheses of `count` utterances."""
        features = [draw_features(frames, seed) for seed in range(count)]
        start = time.perf_counter()
        groups = [features] if together else [[each] for each in features]
        for group in groups:
            self._batches.recognize(group, [None] * len(group))
        return time.perf_counter() - start

    @torch.inference_mode()
    def stages(self, frames: int) -> Stages:
        """Return the time of each part for one utterance. The encoder includes the CTC layer."""
        times = [time.perf_counter()]
        output, log_probs = self._batches.encode([draw_features(frames)])
        times.append(time.perf_counter())
        hypotheses = self._batches.search(log_probs, [None])
        times.append(time.perf_counter())
        rescore(self._batches.model, hypotheses, output, [len(log_probs[0])])
        times.append(time.perf_counter())
        return Stages(*np.diff(times).tolist())

    @torch.inference_mode()
    def hypotheses(self, frames: int, count: int) -> list[tuple[int, ...]]:
        """Return the best hypothesis of each of `count` utterances."""
        return [self._batches.recognize([draw_features(frames, seed)], [None])[0].tokens for seed in range(count)]

    @torch.inference_mode()
    def product_gmac_s(self, rows: int) -> float | None:
        """Return the rate of a feed-forward product of some rows, or None without the C++ library."""
        library, layer = native.library(), torch.nn.Linear(self._width, self._inner)
        if library is None:
            return None
        backend = Backend(library, self._threads, PackedLinears.room_for(self._width, self._inner, 1))
        product, x = Product(backend, [layer]), torch.randn(rows, self._width)
        product(x)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            product(x)
            times.append(time.perf_counter() - start)
        return rows * self._width * self._inner / min(times) / 1e9

    @torch.inference_mode()
    def search_seconds(self, frames: int) -> tuple[float, float]:
        """Return the time of the prefix beam search for an utterance, and its time in plain Python."""
        model = self._batches.model
        output, _ = model.encoder(torch.from_numpy(draw_features(frames)).unsqueeze(0), torch.tensor([frames]))
        log_probs = model.ctc_activation(output)[0].numpy()
        start = time.perf_counter()
        prefix_beam_search(log_probs)
        middle = time.perf_counter()
        plain_search(log_probs)
        return middle - start, time.perf_counter() - middle

    def peak_mb(self) -> float:
        """Return the peak memory of this process."""
        return _memory_mb("VmHWM")

    def now_mb(self) -> float:
        """Return the present memory of this process."""
        return _memory_mb("VmRSS")


def quantized_script(model: U2Model) -> torch.jit.ScriptModule:
    """Return `model` in WeNet's runtime format, quantized as the releases are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of torch about its own formats
        quantized = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {torch.nn.Linear}, dtype=torch.qint8
        )
        script: torch.jit.ScriptModule = torch.jit.script(quantized)
    return script


class Runtime:
    """WeNet's runtime format of the releases, int8 TorchScript, with the search in plain Python."""

    def __init__(self, size: str) -> None:
        self._model = quantized_script(draw_model(size))
        self._tokens = SIZES[size].vocabulary

    @torch.inference_mode()
    def stages(self, frames: int) -> Stages:
        """Return the time of each part for an utterance, from features to the best hypothesis."""
        features = torch.from_numpy(draw_features(frames)).unsqueeze(0)
        times = [time.perf_counter()]
        output, _, _ = self._model.forward_encoder_chunk(features, 0, -1)
        log_probs = self._model.ctc_activation(output)[0].numpy()
        times.append(time.perf_counter())
        hypotheses = plain_search(log_probs)
        times.append(time.perf_counter())
        attention_rescoring(self._model, hypotheses, output)
        times.append(time.perf_counter())
        return Stages(*np.diff(times).tolist())

    @torch.inference_mode()
    def hypotheses(self, frames: int, count: int) -> list[tuple[int, ...]]:
        """Return the best hypothesis of each of `count` utterances."""
        model = ScriptOneByOne(self._model, self._tokens)
        return [model.recognize([draw_features(frames, seed)], [None])[0].tokens for seed in range(count)]

    @torch.inference_mode()
    def seconds_with_our_search(self, frames: int) -> float:
        """Return the same with the search of the server."""
        features, model = draw_features(frames), ScriptOneByOne(self._model, self._tokens)
        start = time.perf_counter()
        model.recognize([features], [None])
        return time.perf_counter() - start

    def peak_mb(self) -> float:
        """Return the peak memory of this process."""
        return _memory_mb("VmHWM")

    def now_mb(self) -> float:
        """Return the present memory of this process."""
        return _memory_mb("VmRSS")


def plain_search(log_probs: FloatArray) -> list[Hypothesis]:
    """Return the result of `prefix_beam_search`, computed in plain Python."""
    search = PlainSearch(BEAM, None)
    search.advance(log_probs)
    return [Hypothesis(tokens, score, frames, ()) for tokens, score, frames, _ in search.prefixes()]


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))
