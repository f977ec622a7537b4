"""The log-mel spectrogram that Whisper reads (Radford et al. 2022; openai/whisper, `log_mel_spectrogram`), in numpy."""

import functools

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Samples

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160  # 10 ms: a frame
_WINDOW_SAMPLES = 400  # 25 ms
_BANDS = 80
_RANGE = 8.0  # in powers of ten: what is quieter than the loudest value by more than this is raised to it

LogMel = npt.NDArray[np.float32]


def log_mel(samples: Samples) -> LogMel:
    """Return the spectrogram of `samples` (1-D, 16 kHz), shape (80, frames): one frame for each whole 160 samples."""
    padded = np.pad(samples, _WINDOW_SAMPLES // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::HOP_SAMPLES]
    windows = windows[: len(samples) // HOP_SAMPLES]
    spectrum = np.fft.rfft(windows * np.hanning(_WINDOW_SAMPLES + 1)[:-1].astype(np.float32))
    power = (np.abs(spectrum) ** 2).astype(np.float32)
    logarithm = np.log10(np.maximum(_filters() @ power.T, 1e-10))
    raised = np.maximum(logarithm, logarithm.max() - _RANGE)
    return np.ascontiguousarray((raised + 4.0) / 4.0, dtype=np.float32)


@functools.cache
def _filters() -> npt.NDArray[np.float32]:
    """Return triangular mel filters of equal area, shape (80, 201), on the scale of Slaney's Auditory Toolbox."""
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, _WINDOW_SAMPLES // 2 + 1)
    edges_hz = _from_mel(np.linspace(0.0, _to_mel(SAMPLE_RATE_HZ / 2), _BANDS + 2))
    low, middle, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    return triangles.astype(np.float32)


_LINEAR_TO_HZ, _HZ_PER_MEL, _LOG_STEP = 1000.0, 200.0 / 3.0, np.log(6.4) / 27.0


def _to_mel(hz: float) -> float:
    """Return the mel value of a frequency of 1 kHz or more."""
    return float(_LINEAR_TO_HZ / _HZ_PER_MEL + np.log(hz / _LINEAR_TO_HZ) / _LOG_STEP)


def _from_mel(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = mel * _HZ_PER_MEL
    exponential = _LINEAR_TO_HZ * np.exp(_LOG_STEP * (mel - _LINEAR_TO_HZ / _HZ_PER_MEL))
    return np.where(linear < _LINEAR_TO_HZ, linear, exponential)
