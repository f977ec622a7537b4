"""Speech from 16 to 24 kHz: the tint computes up to 8 kHz, and the neutral speech has what lies above."""

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio

_TINT_RATE_HZ = 16_000
_EDGE_HZ = (5_500.0, 7_000.0)  # where both are compared, below the filters of the resampling
_LOUDER, _QUIETER = 2.0, 0.25  # limits of the change


def with_high_band(tinted: Audio, neutral: Audio) -> Audio:
    """Return `tinted` (16 kHz) at the rate of `neutral` (the same speech), with the band of `neutral` above 8 kHz.

    The band is as much louder or quieter as the tint made the edge below it.
    """
    rate_hz = neutral.sample_rate
    low = neutral.resample(_TINT_RATE_HZ)
    level = _norm(tinted.samples) / max(_norm(low.samples), 1e-9)
    gain = np.clip(_edge(tinted) / max(_edge(low), 1e-9), _QUIETER * level, _LOUDER * level)
    wide, smooth = tinted.resample(rate_hz).samples, low.resample(rate_hz).samples
    length = min(len(wide), len(smooth), len(neutral.samples))
    samples = wide[:length] + gain * (neutral.samples[:length] - smooth[:length])
    return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32), rate_hz)


def _edge(audio: Audio) -> float:
    """Return the amplitude of `audio` between 5.5 and 7 kHz."""
    hz = np.fft.rfftfreq(len(audio.samples), 1.0 / audio.sample_rate)
    return _norm(np.fft.rfft(audio.samples)[(hz >= _EDGE_HZ[0]) & (hz < _EDGE_HZ[1])])


def _norm(values: npt.NDArray[np.generic]) -> float:
    return float(np.linalg.norm(values))
