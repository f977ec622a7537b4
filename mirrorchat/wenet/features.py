"""Sound to WeNet's features, whole or as it comes: Kaldi filter banks of 16 kHz samples."""

import kaldi_native_fbank
import numpy as np
import soxr

from mirrorchat.audio.samples import Audio
from mirrorchat.wenet.ctc.search import FloatArray

SAMPLE_RATE = 16000
BINS = 80


def fbank(samples: FloatArray) -> FloatArray:
    """Return Kaldi filter banks (T, 80) float32 of 16 kHz samples in [-1, 1]; T is 0 below 25 ms.

    WeNet's settings: 25 ms windows every 10 ms, 16-bit scale, and at inference no dither, so that the same audio always
    gives the same words.
    """
    bank = _bank()
    bank.accept_waveform(SAMPLE_RATE, samples * np.float32(32768.0))
    bank.input_finished()
    return _frames(bank, 0, bank.num_frames_ready)


class FeatureStream:
    """The filter banks of sound that comes in pieces, at `sample_rate` Hz: to the bit those of the whole.

    The resampler holds back some milliseconds, which `finish` gives out.
    """

    def __init__(self, sample_rate: int) -> None:
        self.taken = 0  # frames
        self._bank = _bank()
        self._finished = False
        self._resampler: soxr.ResampleStream | None = None
        if sample_rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    @property
    def waiting(self) -> int:
        """Return how many frames have come and have not been taken."""
        ready: int = self._bank.num_frames_ready
        return ready - self.taken

    def accept(self, audio: Audio) -> None:
        """Add a further piece, of any length."""
        self._accept(audio.samples, last=False)

    def finish(self) -> None:
        """Give out what was held back; no piece follows. A second call does nothing."""
        if not self._finished:
            self._finished = True
            self._accept(np.zeros(0, np.float32), last=True)
            self._bank.input_finished()

    def ahead(self, count: int) -> FloatArray:
        """Return the next frames (T, 80), as many of `count` as have come. They stay until they are taken."""
        return _frames(self._bank, self.taken, self.taken + min(count, self.waiting))

    def take(self, count: int) -> None:
        """Forget the next frames, as many of `count` as have come."""
        count = min(count, self.waiting)
        self._bank.pop(count)
        self.taken += count

    def _accept(self, samples: FloatArray, *, last: bool) -> None:
        if self._resampler is not None:
            samples = np.clip(self._resampler.resample_chunk(samples, last=last), -1.0, 1.0).astype(np.float32)
        if len(samples):
            self._bank.accept_waveform(SAMPLE_RATE, samples * np.float32(32768.0))


def _bank() -> kaldi_native_fbank.OnlineFbank:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BINS
    options.energy_floor = 0.0
    return kaldi_native_fbank.OnlineFbank(options)


def _frames(bank: kaldi_native_fbank.OnlineFbank, first: int, end: int) -> FloatArray:
    frames = [bank.get_frame(i) for i in range(first, end)]
    return np.array(frames, dtype=np.float32).reshape(-1, BINS)
