"""The effect of 8-bit weights on WeNet's hypotheses: the share of tokens that differ from float32."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.wenet_sides import ROOT, quantized_script
from mirrorchat.wenet.batch import ScriptOneByOne, U2Batches
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.ctc.search import FloatArray, Hypothesis
from mirrorchat.wenet.features import fbank
from mirrorchat.wenet.int8 import quantize

Tokens = tuple[int, ...]
Code = Literal["en", "zh"]


def differing_share(found: Sequence[Tokens], expected: Sequence[Tokens]) -> float:
    """Return the edit distance of all hypotheses, divided by the number of expected tokens."""
    distance = sum(edit_distance(one, other) for one, other in zip(found, expected, strict=True))
    return distance / max(1, sum(map(len, expected)))


def edit_distance(one: Tokens, other: Tokens) -> int:
    """Return the Levenshtein distance."""
    costs = np.arange(len(other) + 1)
    for row, token in enumerate(one, 1):
        diagonal, costs[0] = costs[0], row
        for column, wanted in enumerate(other, 1):
            best = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (token != wanted))
            diagonal, costs[column] = costs[column], best
    return int(costs[-1])


class Trained:
    """The trained models of the tests (`tests/data/wenet-tiny`), with sentences that were not in the training."""

    @torch.inference_mode()
    def differing(self, code: Code) -> tuple[float, float]:
        """Return the shares of tokens that differ from float32 with our 8 bits, and with those of TorchScript."""
        for place in ("scripts", "tests"):
            sys.path.insert(0, str(ROOT / place))
        import tiny_wenet_speech as speech
        from support.trained_wenet import write_trained_checkpoint

        features = [fbank(samples) for samples in speech.speak(speech.held_out(code))]
        with tempfile.TemporaryDirectory() as scratch:
            folder = write_trained_checkpoint(Path(scratch) / code, code)

            def model() -> U2Batches:
                return U2Batches(read_checkpoint(folder).model)

            exact = _hypotheses(model().recognize, features)
            ours = _hypotheses(U2Batches(quantize(model().model, 1)).recognize, features)
            script = ScriptOneByOne(quantized_script(model().model), len(read_checkpoint(folder).tokens))
            return differing_share(ours, exact), differing_share(_hypotheses(script.recognize, features), exact)


def _hypotheses(recognize: Callable[..., list[Hypothesis]], features: Sequence[FloatArray]) -> list[Tokens]:
    return [recognize([each], [None])[0].tokens for each in features]
