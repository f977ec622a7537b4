"""WeNet's features: Kaldi filter banks of 16 kHz samples, of a whole recording or of a stream.

kaldi-native-fbank computes them with the settings of WeNet's recipes.
"""

import kaldi_native_fbank
import numpy as np
import soxr

from mirrorchat.audio.samples import Audio
from mirrorchat.wenet.ctc.search import FloatArray

SAMPLE_RATE = 16000
BINS = 80
FRAME_SHIFT_MS = 10
FRAME_LENGTH_MS = 25
FRAME_SHIFT_S = FRAME_SHIFT_MS / 1000


def fbank(samples: FloatArray) -> FloatArray:
    """Return the filter banks (T, 80) float32 of 16 kHz samples in [-1, 1]; T is 0 below 25 ms.

    Frames of 25 ms start every 10 ms, and samples are scaled to 16 bits, as in WeNet. There is no dither, so the same
    audio always gives the same words.
    """
    bank = _bank()
    bank.accept_waveform(SAMPLE_RATE, samples * np.float32(32768.0))
    bank.input_finished()
    return _frames(bank, 0, bank.num_frames_ready)


class FeatureStream:
    """The filter banks of audio that arrives in pieces at `sample_rate` Hz, equal to the bit to those of the whole.

    The resampler holds back some milliseconds, which `finish` releases.
    """

    def __init__(self, sample_rate: int) -> None:
        self.taken = 0  # frames so far
        self._bank = _bank()
        self._finished = False
        self._resampler: soxr.ResampleStream | None = None
        if sample_rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    @property
    def waiting(self) -> int:
        """Return the number of frames that are ready and not taken yet."""
        ready: int = self._bank.num_frames_ready
        return ready - self.taken

    def accept(self, audio: Audio) -> None:
        """Add a further piece, of any length."""
        self._accept(audio.samples, last=False)

    def finish(self) -> None:
        """Release the samples that were held back, after the last piece. A second call does nothing."""
        if not self._finished:
            self._finished = True
            self._accept(np.zeros(0, np.float32), last=True)
            self._bank.input_finished()

    def ahead(self, count: int) -> FloatArray:
        """Return the next frames (T, 80), at most `count` and as many as are ready. They stay until `take`."""
        return _frames(self._bank, self.taken, self.taken + min(count, self.waiting))

    def take(self, count: int) -> None:
        """Drop the next frames, at most `count` and as many as are ready."""
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
    options.frame_opts.frame_shift_ms = FRAME_SHIFT_MS
    options.frame_opts.frame_length_ms = FRAME_LENGTH_MS
    options.mel_opts.num_bins = BINS
    options.energy_floor = 0.0
    return kaldi_native_fbank.OnlineFbank(options)


def _frames(bank: kaldi_native_fbank.OnlineFbank, first: int, end: int) -> FloatArray:
    frames = [bank.get_frame(i) for i in range(first, end)]
    return np.array(frames, dtype=np.float32).reshape(-1, BINS)
