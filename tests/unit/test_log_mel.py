"""The spectrogram that Whisper reads: equal to a slow one that follows the definition."""

import math

import numpy as np
import pytest

from mirrorchat.small.log_mel import HOP_SAMPLES, SAMPLE_RATE_HZ, log_mel

WINDOW = 400


def mel_of(hz: float) -> float:
    """Return the mel value on Slaney's scale: linear up to 1 kHz, then 27 steps for each factor of 6.4."""
    return 3.0 * hz / 200.0 if hz < 1000.0 else 15.0 + 27.0 * math.log(hz / 1000.0) / math.log(6.4)


def hz_of(mel: float) -> float:
    return 200.0 * mel / 3.0 if mel < 15.0 else 1000.0 * 6.4 ** ((mel - 15.0) / 27.0)


def slow_reference(samples: np.ndarray) -> np.ndarray:
    """Return the spectrogram, frame by frame and band by band, with a discrete Fourier transform written out."""
    padded = np.concatenate([samples[200:0:-1], samples, samples[-2:-202:-1]]).astype(np.float64)
    turns = np.exp(-2j * math.pi * np.outer(np.arange(201), np.arange(WINDOW)) / WINDOW)
    window = 0.5 - 0.5 * np.cos(2.0 * math.pi * np.arange(WINDOW) / WINDOW)
    edges = [hz_of(mel_of(8000.0) * step / 81.0) for step in range(82)]
    rows = np.zeros((80, len(samples) // HOP_SAMPLES))
    for frame in range(rows.shape[1]):
        power = np.abs(turns @ (padded[frame * HOP_SAMPLES : frame * HOP_SAMPLES + WINDOW] * window)) ** 2
        for band in range(80):
            low, middle, high = edges[band : band + 3]
            total = 0.0
            for bin_number in range(201):
                hz = bin_number * 40.0
                weight = max(0.0, min((hz - low) / (middle - low), (high - hz) / (high - middle)))
                total += weight * 2.0 / (high - low) * power[bin_number]
            rows[band, frame] = math.log10(max(total, 1e-10))
    raised: np.ndarray = np.maximum(rows, rows.max() - 8.0)
    return (raised + 4.0) / 4.0


@pytest.mark.parametrize("kind", ["noise", "tone", "silence", "click"])
def test_as_the_slow_reference_computes_it(kind: str) -> None:
    random, count = np.random.default_rng(0), 3 * HOP_SAMPLES + 77
    times = np.arange(count) / SAMPLE_RATE_HZ
    samples = {
        "noise": 0.3 * random.standard_normal(count),
        "tone": 0.5 * np.sin(2.0 * math.pi * 440.0 * times),
        "silence": np.zeros(count),
        "click": np.eye(1, count, 200)[0],
    }[kind].astype(np.float32)
    found = log_mel(samples)
    assert found.dtype == np.float32
    assert found.shape == (80, 3)
    np.testing.assert_allclose(found, slow_reference(samples), atol=2e-3)
