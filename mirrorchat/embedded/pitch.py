"""The pitch of clean synthetic speech: peaks of the autocorrelation, and the likeliest path through them.

Method: Boersma 1993, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound". It takes a twentieth of the time of WORLD's Harvest, which is the reference of its tests. It may take
the hum of a room for a voice: recordings are for WORLD's DIO.
"""

import numpy as np
import numpy.typing as npt
import scipy.signal

from mirrorchat.audio.samples import Audio

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

FRAME_S = 0.005

_RATE_HZ = 8_000
_HOP_SAMPLES = round(FRAME_S * _RATE_HZ)  # 40
_FLOOR_HZ, _CEILING_HZ = 70.0, 450.0
_WINDOW_SAMPLES = round(3 * _RATE_HZ / _FLOOR_HZ) // 2 * 2  # 342: three periods of the lowest pitch
_FFT_SIZE = 1024
_CANDIDATES = 5  # of a frame, besides silence

# Costs of a path, in parts of the autocorrelation at a peak.
_VOICING = 0.25  # of a frame without voice
_SILENCE = 0.03  # of the loudest sample: quieter frames have no voice
_HIGH_PITCH = 0.01  # what a pitch an octave higher gains: a multiple of the period has the same peak
_OCTAVE_JUMP, _VOICE_CHANGE = 0.35, 0.14


def follow_pitch(speech: Audio) -> Array:
    """Return the pitch in Hz of each 5 ms of `speech` (any rate), 0 without voice. Shape (whole 5 ms + 1,)."""
    frames = len(speech.samples) * 200 // speech.sample_rate + 1
    windows, loudness = _windows(speech.resample(_RATE_HZ), frames)
    correlation = _autocorrelation(windows)
    pitch, strength = _candidates(correlation)
    unvoiced = _VOICING + np.maximum(0.0, 2.0 - (1.0 + _VOICING) * loudness / _SILENCE)
    pitch = np.column_stack([pitch, np.zeros(frames)])
    best = _best_path(pitch, np.column_stack([strength, unvoiced]))
    return pitch[np.arange(frames), best]


def _windows(speech: Audio, frames: int) -> tuple[Array, Array]:
    """Return the samples around each frame, their mean removed, and the peak of each frame, 1 for the loudest."""
    half = _WINDOW_SAMPLES // 2
    missing = frames * _HOP_SAMPLES - len(speech.samples)
    samples = np.pad(speech.samples.astype(np.float64), (half, half + max(0, missing)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW_SAMPLES)[::_HOP_SAMPLES][:frames]
    windows = windows - windows.mean(axis=1, keepdims=True)
    loudness = np.abs(windows).max(axis=1) / max(float(np.abs(samples).max()), 1e-6)
    return windows, loudness


def _autocorrelation(windows: Array) -> Array:
    """Return the autocorrelation of each frame by lag, 1 at lag 0; the taper of the window is divided out."""
    taper = scipy.signal.windows.hann(_WINDOW_SAMPLES)
    tapered, own = (
        np.fft.irfft(np.abs(np.fft.rfft(some, _FFT_SIZE)) ** 2)[..., : _WINDOW_SAMPLES // 2]
        for some in (windows * taper, taper)
    )
    correlation: Array = tapered / np.maximum(tapered[:, :1], 1e-9) / (own / own[0])
    return correlation


def _candidates(correlation: Array) -> tuple[Array, Array]:
    """Return the pitches of the strongest peaks of each frame and their strengths, both of shape (frames, 5)."""
    lags = np.arange(1, correlation.shape[1] - 1)
    inner = correlation[:, 1:-1]
    is_peak = (inner > correlation[:, :-2]) & (inner >= correlation[:, 2:])
    is_peak &= (lags >= _RATE_HZ / _CEILING_HZ) & (lags <= _RATE_HZ / _FLOOR_HZ)
    strength = np.where(is_peak, inner - _HIGH_PITCH * np.log2(_FLOOR_HZ * lags / _RATE_HZ), -9.0)
    best = np.argsort(-strength, axis=1)[:, :_CANDIDATES]
    left, middle, right = (np.take_along_axis(correlation, best + shift, axis=1) for shift in range(3))
    curvature = np.minimum(left - 2.0 * middle + right, -1e-9)  # a parabola through three lags has the true peak
    refined = lags[best] + (0.5 * (left - right) / curvature).clip(-0.5, 0.5)
    return _RATE_HZ / refined, np.take_along_axis(strength, best, axis=1)


def _best_path(pitch: Array, strength: Array) -> Indices:
    """Return the candidate of each frame on the path of the least cost (Viterbi)."""
    voiced = pitch > 0
    octaves = np.log2(np.where(voiced, pitch, 1.0))
    costs, came_from = -strength[0], np.zeros(pitch.shape, np.intp)
    for frame in range(1, len(pitch)):
        both = voiced[frame - 1][:, None] & voiced[frame]
        changed = voiced[frame - 1][:, None] != voiced[frame]
        jump = np.abs(octaves[frame - 1][:, None] - octaves[frame])
        total = costs[:, None] + _OCTAVE_JUMP * jump * both + _VOICE_CHANGE * changed
        came_from[frame] = total.argmin(axis=0)
        costs = total.min(axis=0) - strength[frame]
    path = np.zeros(len(pitch), np.intp)
    path[-1] = costs.argmin()
    for frame in range(len(pitch) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path
