"""What the recognition engine computes: a batch of utterances to their best readings, for both of WeNet's formats.

Kaldi filter banks go through the encoder, CTC's prefix beam search finds the n best readings, and both attention
decoders choose among them (U2++: arXiv 2106.05642).
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.wenet.ctc.search import ContextGraph, FloatArray, Hypothesis, prefix_beam_search
from mirrorchat.wenet.hypothesis_tree import rescore
from mirrorchat.wenet.model import U2Model
from mirrorchat.wenet.rescoring import attention_rescoring

FRAME_SHIFT_S = 0.01  # of the filter banks
CPU = torch.device("cpu")
NOTHING = Hypothesis((), 0.0, (), ())


class U2Batches:
    """Batches through a network of our own, on any device; features go in as float32.

    `rows` utterances, or `frames` feature frames with their padding, are encoded at once: what that needs is bounded by
    the subsampling's first convolution, 40 KB a frame at width 512 in float32.
    """

    rows = 8
    frames = 8_000

    def __init__(self, model: U2Model, *, device: torch.device = CPU) -> None:
        self.model = model
        self._device = device

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best reading of each utterance, features (T, 80) float32; nothing where T is too small."""
        shortest = self.model.right_context() + 1
        found = [NOTHING] * len(features)
        heard = [index for index, each in enumerate(features) if len(each) >= shortest]
        if heard:
            output, log_probs = self.encode([features[index] for index in heard])
            hypotheses = self.search(log_probs, [graphs[index] for index in heard])
            best = rescore(self.model, hypotheses, output, [len(each) for each in log_probs])
            for index, hypothesis in zip(heard, best, strict=True):
                found[index] = hypothesis
        return found

    def encode(self, features: Sequence[FloatArray]) -> tuple[torch.Tensor, list[FloatArray]]:
        """Return the encoder's output (B, S, D), and each utterance's CTC log probabilities (S, V) on the CPU."""
        lengths = torch.tensor([len(each) for each in features])
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(each) for each in features], batch_first=True)
        output, mask = self.model.encoder(padded.to(self._device), lengths.to(self._device))
        log_probs = self.model.ctc_activation(output).float().cpu().numpy()
        sizes = mask.sum(-1).flatten().tolist()
        return output, [np.ascontiguousarray(log_probs[index, :size]) for index, size in enumerate(sizes)]

    @staticmethod
    def search(log_probs: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[list[Hypothesis]]:
        """Return the n best readings of each utterance by its CTC log probabilities (S, V)."""
        return [prefix_beam_search(each, graph=graph) for each, graph in zip(log_probs, graphs, strict=True)]


class ScriptOneByOne:
    """WeNet's runtime format, TorchScript: it reads one utterance at a time, on the CPU.

    The last layer must give as many `tokens` as are listed, else recognizing raises ValueError.
    """

    rows = 1
    frames = 1

    def __init__(self, model: torch.jit.ScriptModule, tokens: int) -> None:
        self.model = model
        self._tokens = tokens
        self._shortest = int(model.right_context()) + 1

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best reading of each utterance, features (T, 80) float32; nothing where T is too small."""
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
    """Recognize noise twice: what is slow only at first is over then (TorchScript optimizes on its second run)."""
    noise = np.random.default_rng(0).standard_normal((100, 80), dtype=np.float32)
    for _ in range(2):
        model.recognize([noise], [None])


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Return the TorchScript model in `path`, on the CPU. Raises ConfigurationError when it holds none."""
    with warnings.catch_warnings():
        # PyTorch calls TorchScript deprecated; it is the format of WeNet's releases, and this is where it is read.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        try:
            model = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read as TorchScript: {brief(error)}") from error
    return cast(torch.jit.ScriptModule, model.eval())


def brief(error: Exception) -> str:
    """Return the first line of a PyTorch error; the rest is its C++ stack."""
    return (str(error).splitlines() or [type(error).__name__])[0]
