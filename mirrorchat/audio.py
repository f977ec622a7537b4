"""Audio: samples that carry their rate; decoding of any upload within bounds; resampling; encoding."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Audio:
    """Mono sound: `samples`, 1-D float32 in [-1, 1], at `sample_rate` Hz."""

    samples: Samples
    sample_rate: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate

    def resample(self, sample_rate: int) -> "Audio":
        """Return the same sound at `sample_rate` Hz (soxr HQ: aliases below -138 dB), clipped to [-1, 1]."""
        if sample_rate == self.sample_rate:
            return self
        samples = soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")
        return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32), sample_rate)


def to_pcm16(samples: Samples) -> npt.NDArray[np.int16]:
    """Return float samples as 16-bit integers, clipped before the cast so that a loud peak cannot wrap round."""
    return np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)


def encode_wav(audio: Audio) -> bytes:
    """Return `audio` as a whole mono 16-bit wav file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm16(audio.samples), audio.sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
