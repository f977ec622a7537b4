"""The Gaussian mixture of a voice: against loops written out, and what the adaptation moves."""

import numpy as np
import pytest

from mirrorchat.embedded.voice_tint import Array, FrameClass
from mirrorchat.small.voices_mixture import (
    COMPONENTS,
    DIMENSIONS,
    Mixture,
    adapted_shift,
    fit_mixture,
    posteriors,
    refinement,
    transported_mixture,
)


@pytest.fixture(scope="module")
def cepstra() -> Array:
    """Frames around twelve sounds."""
    random = np.random.default_rng(3)
    sounds = 3.0 * random.standard_normal((COMPONENTS, DIMENSIONS))
    frames: Array = sounds[random.integers(0, COMPONENTS, 900)] + 0.5 * random.standard_normal((900, DIMENSIONS))
    return frames


@pytest.fixture(scope="module")
def mixture(cepstra: Array) -> Mixture:
    return fit_mixture(cepstra)


def slow_posteriors(mixture: Mixture, cepstra: Array) -> Array:
    """Return the softened posteriors as the formula says, one frame and component at a time."""
    shares = np.zeros((len(cepstra), COMPONENTS))
    for row, frame in enumerate(cepstra):
        for k in range(COMPONENTS):
            variances = mixture.variances[k]
            exponent = -0.5 * np.sum((frame - mixture.means[k]) ** 2 / variances + np.log(variances))
            shares[row, k] = 0.5 * (exponent + np.log(mixture.weights[k]))
        shares[row] = np.exp(shares[row] - shares[row].max())
        shares[row] /= shares[row].sum()
    return shares


def test_the_posteriors_are_those_of_the_formula(mixture: Mixture, cepstra: Array) -> None:
    np.testing.assert_allclose(posteriors(mixture, cepstra[:50]), slow_posteriors(mixture, cepstra[:50]), atol=1e-9)


def test_the_fit_finds_the_sounds(mixture: Mixture, cepstra: Array) -> None:
    assert mixture.weights.sum() == pytest.approx(1.0)
    assert (mixture.variances > 0).all()
    nearest = ((cepstra[:, None] - mixture.means) ** 2).sum(axis=2).min(axis=1)
    assert np.median(nearest) < 0.5 * cepstra.var(axis=0).sum()
    again = fit_mixture(cepstra)
    assert np.array_equal(again.means, mixture.means) and np.array_equal(again.variances, mixture.variances)


def test_one_sound_may_be_all(cepstra: Array) -> None:
    same = fit_mixture(np.tile(cepstra[:1], (40, 1)) + np.linspace(0, 1e-3, 40)[:, None])
    assert np.isfinite(same.means).all() and np.isfinite(posteriors(same, cepstra)).all()


def test_the_adaptation_moves_what_was_heard(mixture: Mixture, cepstra: Array) -> None:
    moved = cepstra + 1.0
    shift = adapted_shift(mixture, moved)
    heard = posteriors(mixture, moved).sum(axis=0) > 60
    assert heard.any()
    assert 0.3 < shift[heard].mean() < 1.1
    assert np.abs(adapted_shift(mixture, cepstra[:0])).max() == 0.0  # nothing heard, nothing moved
    change = refinement(mixture, np.ones((COMPONENTS, DIMENSIONS)))(cepstra)
    np.testing.assert_allclose(change, 1.0)


def test_a_transported_mixture_describes_transported_speech(mixture: Mixture, cepstra: Array) -> None:
    def describe(frames: Array) -> FrameClass:
        return FrameClass(len(frames), np.r_[0.0, frames.mean(axis=0)], np.cov(frames.T))

    source, target = describe(cepstra), describe(cepstra * 0.5 + 2.0)
    moved = transported_mixture(mixture, source, target)
    assert np.allclose(moved.weights @ moved.means, target.mean[1:], atol=0.2)
    assert (moved.variances > 0).all()
