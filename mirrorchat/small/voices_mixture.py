"""The finer colour of a voice: a Gaussian mixture over the cepstra, adapted to the asker by maximum a posteriori.

The optimal transport of the voice tint moves all voiced speech alike. The mixture has a component for each group of
sounds, and the adaptation (Reynolds, Quatieri and Dunn 2000, "Speaker verification using adapted Gaussian mixture
models", means only) moves each as far as the asker's speech held such sounds.
"""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from mirrorchat.embedded.voice_tint import Array, FrameClass, Refinement, transported

COMPONENTS, DIMENSIONS = 12, 23

_ITERATIONS = 25
_VARIANCE_FLOOR = 0.05  # of the variance of all frames
_SOFTNESS = 0.5  # the dimensions are correlated: their likelihoods count for less than their product
_RELEVANCE = 60.0  # frames of a component that weigh as much as its own mean
_SMOOTHING_FRAMES = 3.0  # 15 ms; a switch between components from frame to frame would click


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians with diagonal covariance: `weights` (12,), `means` and `variances` (12, 23)."""

    weights: Array
    means: Array
    variances: Array


def fit_mixture(cepstra: Array) -> Mixture:
    """Return the mixture of `cepstra` (frames, 23; at least 12 frames) after 25 steps of expectation-maximization.

    Deterministic: the first means are frames that are evenly spaced in time.
    """
    overall = cepstra.var(axis=0)
    first = np.linspace(0, len(cepstra) - 1, COMPONENTS).astype(int)
    mixture = Mixture(np.full(COMPONENTS, 1.0 / COMPONENTS), cepstra[first].copy(), np.tile(overall, (COMPONENTS, 1)))
    for _ in range(_ITERATIONS):
        shares = posteriors(mixture, cepstra)
        counts = shares.sum(axis=0) + 1e-6
        means = shares.T @ cepstra / counts[:, None]
        variances = (shares.T @ cepstra**2 / counts[:, None] - means**2).clip(0.0) + _VARIANCE_FLOOR * overall
        mixture = Mixture(counts / counts.sum(), means, variances)
    return mixture


def posteriors(mixture: Mixture, cepstra: Array) -> Array:
    """Return the share of each component in each frame, shape (frames, 12)."""
    precisions = 1.0 / mixture.variances
    constant = (mixture.means**2 * precisions + np.log(mixture.variances)).sum(axis=1)
    distances = cepstra**2 @ precisions.T - 2.0 * cepstra @ (mixture.means * precisions).T + constant
    likelihoods = _SOFTNESS * (np.log(mixture.weights) - 0.5 * distances)
    shares: Array = np.exp(likelihoods - likelihoods.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def transported_mixture(mixture: Mixture, source: FrameClass, target: FrameClass) -> Mixture:
    """Return the source's mixture after the voice tint's map to the target; covariances stay diagonal."""
    means = transported(mixture.means, source, target)
    at_origin = transported(np.zeros((1, DIMENSIONS)), source, target)
    matrix = transported(np.eye(DIMENSIONS), source, target) - at_origin  # row i: where the map takes dimension i
    return Mixture(mixture.weights, means, mixture.variances @ matrix**2)


def adapted_shift(mixture: Mixture, cepstra: Array, rounds: int = 4) -> Array:
    """Return how far the mean of each component moves to the frames of `cepstra`, shape (12, 23)."""
    shift = np.zeros_like(mixture.means)
    for _ in range(rounds):
        moved = Mixture(mixture.weights, mixture.means + shift, mixture.variances)
        shares = posteriors(moved, cepstra)
        counts = shares.sum(axis=0)[:, None]
        shift = (shares.T @ cepstra - counts * mixture.means) / (counts + _RELEVANCE)
    return shift


def refinement(mixture: Mixture, shift: Array) -> Refinement:
    """Return the function that adds to each frame the shifts of its components."""

    def change(cepstra: Array) -> Array:
        smoothed: Array = scipy.ndimage.gaussian_filter1d(
            posteriors(mixture, cepstra) @ shift, _SMOOTHING_FRAMES, axis=0
        )
        return smoothed

    return change
