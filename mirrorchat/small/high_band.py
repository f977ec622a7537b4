"""The treble of tinted speech: the tint computes up to 8 kHz, and makes speech duller than people are.

What lies above 8 kHz comes from the neutral speech. A shelving filter then raises the treble: between 0.3 to 1 kHz and
5 to 7.5 kHz tinted speech falls by 28 dB, people's by 25, and with the filter it falls by 25, too.
"""

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio

_TINT_RATE_HZ = 16_000
_EDGE_HZ = (5_500.0, 7_000.0)  # where both are compared, below the filters of the resampling
_LOUDER, _QUIETER = 2.0, 0.25  # limits of the change
_SHELF_HZ, _SHELF_DB = (2_500.0, 4_500.0), 3.0


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


def brightened(audio: Audio) -> Audio:
    """Return `audio` 3 dB louder above 4.5 kHz, unchanged below 2.5 kHz, with a slope between. The phase stays."""
    hz = np.fft.rfftfreq(len(audio.samples), 1.0 / audio.sample_rate)
    gain_db = np.interp(np.log(hz.clip(1.0)), np.log(_SHELF_HZ), (0.0, _SHELF_DB))
    samples = np.fft.irfft(np.fft.rfft(audio.samples) * 10.0 ** (gain_db / 20.0), len(audio.samples))
    return Audio(samples.clip(-1.0, 1.0).astype(np.float32), audio.sample_rate)


def _edge(audio: Audio) -> float:
    """Return the amplitude of `audio` between 5.5 and 7 kHz."""
    hz = np.fft.rfftfreq(len(audio.samples), 1.0 / audio.sample_rate)
    return _norm(np.fft.rfft(audio.samples)[(hz >= _EDGE_HZ[0]) & (hz < _EDGE_HZ[1])])


def _norm(values: npt.NDArray[np.generic]) -> float:
    return float(np.linalg.norm(values))
