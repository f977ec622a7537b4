"""The sides that benchmarks/wenet.py compares: our network in each weight mode, and WeNet's runtime format.

Each is held by a process of its own (see xtts_child.py). Weights are random numbers at the sizes of the releases: what
they cost does not depend on their values, but for the search, which has most to do where no unit stands out, as here.
"""

import time
import warnings
from pathlib import Path

import numpy as np
import torch

from mirrorchat.asr import WenetWeights
from mirrorchat.ctc_plain import PlainSearch
from mirrorchat.ctc_search import BEAM, FloatArray, Hypothesis, prefix_beam_search
from mirrorchat.wenet_batch import ScriptOneByOne, U2Batches
from mirrorchat.wenet_int8 import quantise
from mirrorchat.wenet_model import GlobalCMVN, U2Config, U2Model
from mirrorchat.wenet_rescoring import attention_rescoring

SIZES = {
    "wenetspeech": U2Config(
        5537, 5536, 5536, width=512, heads=8, kernel=15, decoder_heads=8, encoder_units=2048, decoder_units=2048
    ),
    "librispeech": U2Config(5002, 2, 2, width=256, heads=4, kernel=15, decoder_heads=4),
}
BINS = 80


def draw_model(size: str) -> U2Model:
    """Return a network of one of SIZES with random weights, the same each time."""
    torch.manual_seed(0)
    return U2Model(SIZES[size], GlobalCMVN(torch.full((BINS,), 10.0), torch.full((BINS,), 0.3))).eval()


def draw_features(frames: int, seed: int = 0) -> FloatArray:
    """Return random features (frames, 80), the same for the same seed."""
    return (10 + 3 * np.random.default_rng(seed).standard_normal((frames, BINS))).astype(np.float32)


class Ours:
    """Our network in one weight mode, and our search."""

    def __init__(self, size: str, weights: WenetWeights, threads: int) -> None:
        model = draw_model(size)
        self._batches = U2Batches(quantise(model, threads) if weights is WenetWeights.INT8 else model)

    @torch.inference_mode()
    def seconds(self, frames: int, count: int, *, together: bool) -> float:
        """Return how long `count` utterances of so many frames take from features to the best readings."""
        features = [draw_features(frames, seed) for seed in range(count)]
        start = time.perf_counter()
        groups = [features] if together else [[each] for each in features]
        for group in groups:
            self._batches.recognise(group, [None] * len(group))
        return time.perf_counter() - start

    @torch.inference_mode()
    def search_seconds(self, frames: int) -> tuple[float, float]:
        """Return how long the prefix beam takes for an utterance, and how long in plain Python."""
        model = self._batches.model
        output, _ = model.encoder(torch.from_numpy(draw_features(frames)).unsqueeze(0), torch.tensor([frames]))
        log_probs = model.ctc_activation(output)[0].numpy()
        start = time.perf_counter()
        prefix_beam_search(log_probs)
        middle = time.perf_counter()
        plain_search(log_probs)
        return middle - start, time.perf_counter() - middle

    def peak_mb(self) -> float:
        """Return the most memory that this process has had at once."""
        return _peak_mb()


class Runtime:
    """WeNet's runtime format as the releases have it, int8 TorchScript, with the search in plain Python."""

    def __init__(self, size: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of its own formats
            quantised = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
                draw_model(size), {torch.nn.Linear}, dtype=torch.qint8
            )
            self._model = torch.jit.script(quantised)
        self._units = SIZES[size].vocabulary

    @torch.inference_mode()
    def seconds(self, frames: int) -> float:
        """Return how long an utterance takes from features to the best reading."""
        features = torch.from_numpy(draw_features(frames)).unsqueeze(0)
        start = time.perf_counter()
        output, _, _ = self._model.forward_encoder_chunk(features, 0, -1)
        hypotheses = plain_search(self._model.ctc_activation(output)[0].numpy())
        attention_rescoring(self._model, hypotheses, output)
        return time.perf_counter() - start

    @torch.inference_mode()
    def seconds_with_our_search(self, frames: int) -> float:
        """Return the same with the search that the server uses."""
        features, model = draw_features(frames), ScriptOneByOne(self._model, self._units)
        start = time.perf_counter()
        model.recognise([features], [None])
        return time.perf_counter() - start

    def peak_mb(self) -> float:
        """Return the most memory that this process has had at once."""
        return _peak_mb()


def plain_search(log_probs: FloatArray) -> list[Hypothesis]:
    """Return what `prefix_beam_search` does, in plain Python."""
    search = PlainSearch(BEAM, None)
    search.advance(log_probs)
    return [Hypothesis(units, score, frames, ()) for units, score, frames, _ in search.readings()]


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
