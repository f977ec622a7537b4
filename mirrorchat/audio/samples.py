"""Audio as samples that carry their rate, resampling, and 16-bit PCM."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.float32]

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 192_000  # Hz


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono audio: `samples`, shape (n,), float32 in [-1, 1], at `sample_rate` Hz. Compared by identity."""

    samples: Samples
    sample_rate: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate

    def resample(self, sample_rate: int) -> "Audio":
        """Return this audio at `sample_rate` Hz, clipped to [-1, 1]. soxr's HQ filter keeps aliases below -138 dB."""
        if sample_rate == self.sample_rate:
            return self
        samples = soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")
        return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32), sample_rate)


def to_pcm16(samples: Samples) -> npt.NDArray[np.int16]:
    """Return `samples`, float32 of any shape, as int16. They are clipped first: a cast would wrap loud peaks."""
    pcm: npt.NDArray[np.int16] = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    return pcm


def pcm16_bytes(samples: Samples) -> bytes:
    """Return `samples` as little-endian 16-bit PCM."""
    return to_pcm16(samples).astype("<i2").tobytes()
