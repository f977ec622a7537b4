"""Made-up CTC log probabilities for tests."""

import numpy as np
import torch

from mirrorchat.wenet.ctc.search import FloatArray

KINDS = ("flat", "peaky", "ties", "impossible")


def random_log_probs(frames: int, tokens: int, seed: int, sharpness: float) -> FloatArray:
    """Return log probabilities (frames, tokens) of noise; blank leads, as it does in a trained model."""
    scores = np.random.default_rng(seed).standard_normal((frames, tokens)) * sharpness
    scores[:, 0] += sharpness
    return torch.log_softmax(torch.from_numpy(scores.astype(np.float32)), dim=-1).numpy()


def log_probs_of(kind: str, frames: int, tokens: int, seed: int) -> FloatArray:
    """Return log probabilities of one of KINDS: "ties" are of few values, "impossible" has many probabilities of 0."""
    if kind in ("flat", "peaky"):
        return random_log_probs(frames, tokens, seed, 0.3 if kind == "flat" else 8.0)
    values = (-0.5, -1.0, -1.5, -2.0) if kind == "ties" else (-0.5, -1.0, -np.inf, -np.inf)
    return np.random.default_rng(seed).choice(np.array(values, np.float32), (frames, tokens))


def certain_log_probs(path: list[int], tokens: int, others: float = -50.0) -> FloatArray:
    """Return log probabilities (len(path), tokens) by which only one path is likely."""
    log_probs = np.full((len(path), tokens), others, np.float32)
    log_probs[range(len(path)), path] = 0.0
    return log_probs
