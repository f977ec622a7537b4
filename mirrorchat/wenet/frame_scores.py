"""The CTC log probabilities of encoder frames on their way from the network to the search, which runs on the CPU.

A GPU sends only the best tokens of each frame: ten of 5,000, and the search looks at no others.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mirrorchat.wenet.ctc.search import BEAM, FloatArray


@dataclass(frozen=True)
class FrameScores:
    """Log probabilities on the CPU: `values` (..., V) of all tokens, or (..., BEAM) of the best ones, `tokens`."""

    values: Tensor
    tokens: Tensor | None
    shape: torch.Size

    @classmethod
    def fetched(cls, log_probs: Tensor) -> "FrameScores":
        """Return the scores for `log_probs` (..., V) on any device. It waits for the device."""
        shape, values = log_probs.shape, log_probs.float()
        if values.device.type == "cpu":
            return cls(values, None, shape)
        values, tokens = values.topk(min(BEAM, shape[-1]), dim=-1)
        return cls(values.cpu(), tokens.cpu(), shape)

    def for_search(self) -> FloatArray:
        """Return (..., V), in which tokens that did not come have probability 0."""
        if self.tokens is None:
            dense: FloatArray = self.values.numpy()
        else:
            dense = torch.full(self.shape, -math.inf).scatter_(-1, self.tokens, self.values).numpy()
        return dense
