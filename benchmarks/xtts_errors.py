"""The error of the weight modes against float32: each gets the same forced tokens; scores and latents are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.side_process import Side
from benchmarks.xtts_sides import Own

FORCED_TOKENS = 60
FORCED_VOICES = (0, 1)

Matrix = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Outputs:
    """The next-token scores (n, tokens) and latents (n, D) after each of n tokens, the start token first."""

    scores: Matrix
    latents: Matrix


def greedy_tokens(own: Own, voice_seed: int, count: int) -> list[int]:
    """Return the most probable tokens, with the repetition penalty of the engine."""
    return own.speak(voice_seed, count, sample=False).tokens


@torch.inference_mode()
def forced(own: Own, voice_seed: int, tokens: Sequence[int]) -> Outputs:
    """Return the outputs of the GPT with `tokens` as forced inputs."""
    gpt, cache = own.engine.gpt, own.engine.cache
    last, filled = own.start(voice_seed, [0])
    outputs = [gpt.latents_and_scores(last)]
    for place, token in enumerate(tokens[:-1]):
        last = gpt.step(gpt.audio_inputs([token], [place + 1]), cache, [0], [filled + place])
        outputs.append(gpt.latents_and_scores(last))
    latents, scores = (torch.cat(each).double().cpu().numpy() for each in zip(*outputs, strict=True))
    return Outputs(scores, latents)


def compare(reference: Outputs, other: Outputs) -> dict[str, float]:
    """Return the Kullback-Leibler divergence from `reference`, and the relative error of the latents."""
    p, q = _log_softmax(reference.scores), _log_softmax(other.scores)
    divergences = (np.exp(p) * (p - q)).sum(1)
    difference = np.linalg.norm(reference.latents - other.latents)
    return {
        "kl_mean": float(divergences.mean()),
        "kl_max": float(divergences.max()),
        "latent_error": float(difference / np.linalg.norm(reference.latents)),
        "same_likeliest": float((p.argmax(1) == q.argmax(1)).mean()),
    }


def measure_errors(reference: Side[Own], modes: Mapping[str, Side[Own]], count: int = FORCED_TOKENS) -> Figures:
    """Print and return `compare` for each mode over all voices."""
    tokens = {voice: reference.ask(greedy_tokens, voice, count) for voice in FORCED_VOICES}
    expected = _all(reference, tokens)
    figures = {mode: compare(expected, _all(side, tokens)) for mode, side in modes.items()}
    for mode, row in figures.items():
        print(
            f"errors of {mode} against fp32, {len(expected.scores)} forced tokens: KL mean {row['kl_mean']:.1e}, "
            f"max {row['kl_max']:.1e}; latents {row['latent_error']:.1e}; "
            f"same likeliest token {row['same_likeliest']:.1%}",
            flush=True,
        )
    return figures


def _all(side: Side[Own], tokens: Mapping[int, Sequence[int]]) -> Outputs:
    parts = [side.ask(forced, voice, spoken) for voice, spoken in tokens.items()]
    scores, latents = np.concatenate([p.scores for p in parts]), np.concatenate([p.latents for p in parts])
    return Outputs(scores, latents)


def _log_softmax(scores: Matrix) -> Matrix:
    shifted = scores - scores.max(1, keepdims=True)
    logarithms: Matrix = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logarithms
