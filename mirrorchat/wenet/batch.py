"""The two-pass recognition of U2++, for both of WeNet's formats: a batch of utterances gives their best hypotheses.

The encoder reads Kaldi filter banks, CTC prefix beam search finds the n-best hypotheses, and attention rescoring
chooses one of them (Wu et al., arXiv 2106.05642).
"""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.devices import uploaded
from mirrorchat.wenet.ctc.search import ContextGraph, FloatArray, Hypothesis, prefix_beam_search
from mirrorchat.wenet.frame_scores import FrameScores
from mirrorchat.wenet.hypothesis_tree import rescore
from mirrorchat.wenet.model import U2Model
from mirrorchat.wenet.rescoring import attention_rescoring

CPU = torch.device("cpu")
NOTHING = Hypothesis((), 0.0, (), ())


class U2Batches:
    """The recognition of batches with our own network, on any device.

    `device_lock` is held while `device` computes, and not during the search, which runs on the CPU. The encoder takes
    at most `rows` utterances and `frames` feature frames, padding included. The first convolution of the subsampling
    bounds its memory: 40 KB for each frame at width 512 in float32.
    """

    rows = 8
    frames = 8_000

    def __init__(
        self, model: U2Model, *, device: torch.device = CPU, device_lock: AbstractContextManager[object] | None = None
    ) -> None:
        self.model = model
        self._device = device
        self._device_lock = device_lock or nullcontext()

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best hypothesis of each utterance.

        `features` are (T, 80) float32. An utterance that is too short for one encoder frame gives an empty hypothesis.
        """
        shortest = self.model.right_context() + 1
        found = [NOTHING] * len(features)
        long_enough = [index for index, each in enumerate(features) if len(each) >= shortest]
        if long_enough:
            output, log_probs = self.encode([features[index] for index in long_enough])
            hypotheses = self.search(log_probs, [graphs[index] for index in long_enough])
            sizes = [len(each) for each in log_probs]
            best = rescore(self.model, hypotheses, output, sizes, device_lock=self._device_lock)
            for index, hypothesis in zip(long_enough, best, strict=True):
                found[index] = hypothesis
        return found

    def encode(self, features: Sequence[FloatArray]) -> tuple[torch.Tensor, list[FloatArray]]:
        """Return the encoder's output (B, S, D) and the CTC log probabilities (S, V) of each utterance on the CPU."""
        lengths = torch.tensor([len(each) for each in features])
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(each) for each in features], batch_first=True)
        with self._device_lock:
            output, mask = self.model.encoder(uploaded(padded, self._device), uploaded(lengths, self._device))
            scores = FrameScores.fetched(self.model.ctc_activation(output))
            sizes = mask.sum(-1).flatten().tolist()
        log_probs = scores.for_search()
        return output, [np.ascontiguousarray(log_probs[index, :size]) for index, size in enumerate(sizes)]

    @staticmethod
    def search(log_probs: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[list[Hypothesis]]:
        """Return the n-best hypotheses of each utterance, given its CTC log probabilities (S, V)."""
        return [prefix_beam_search(each, graph=graph) for each, graph in zip(log_probs, graphs, strict=True)]


class ScriptOneByOne:
    """The recognition with WeNet's runtime format (TorchScript): one utterance at a time, on the CPU.

    `tokens` is the number of tokens in `units.txt`. `recognize` raises ValueError if the last layer has another number.
    """

    rows = 1
    frames = 1

    def __init__(self, model: torch.jit.ScriptModule, tokens: int) -> None:
        self.model = model
        self._tokens = tokens
        self._shortest = int(model.right_context()) + 1

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best hypothesis of each utterance.

        `features` are (T, 80) float32. An utterance that is too short for one encoder frame gives an empty hypothesis.
        """
        return [self._recognize(*each) for each in zip(features, graphs, strict=True)]

    def _recognize(self, features: FloatArray, graph: ContextGraph | None) -> Hypothesis:
        if len(features) < self._shortest:
            return NOTHING
        output, log_probs = encode(self.model, features)
        if log_probs.shape[1] != self._tokens:
            raise ValueError(f"it knows {log_probs.shape[1]} tokens and units.txt lists {self._tokens}")
        return attention_rescoring(self.model, prefix_beam_search(log_probs, graph=graph), output)


def encode(model: torch.jit.ScriptModule | U2Model, features: FloatArray) -> tuple[torch.Tensor, FloatArray]:
    """Return the encoder's output (1, S, D) and CTC log probabilities (S, V) of one utterance's features (T, 80)."""
    encoded, _, _ = model.forward_encoder_chunk(torch.from_numpy(features).unsqueeze(0), 0, -1)
    log_probs: FloatArray = model.ctc_activation(encoded)[0].numpy()
    return encoded, log_probs


@torch.inference_mode()
def warm_up(model: U2Batches | ScriptOneByOne) -> None:
    """Recognize noise twice, because the first runs are slow: TorchScript optimizes the network in its second run."""
    noise = np.random.default_rng(0).standard_normal((100, 80), dtype=np.float32)
    for _ in range(2):
        model.recognize([noise], [None])


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Return the TorchScript model in `path`, on the CPU. Raises ConfigurationError if the file holds none."""
    with warnings.catch_warnings():
        # PyTorch calls TorchScript deprecated, but WeNet's releases have this format.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        try:
            model = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read as TorchScript: {brief(error)}") from error
    return cast(torch.jit.ScriptModule, model.eval())


def brief(error: Exception) -> str:
    """Return the first line of a PyTorch error, at most 200 characters; the rest is its C++ stack."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
