"""Speech before and after the voice tint: the asker's recordings as one, the answer at one level."""

import math
from collections.abc import Sequence

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.embedded.voice_tint import SAMPLE_RATE_HZ

MAX_REFERENCE_S = 20.0  # 2 s of speech determine nearly the whole voice; more than 20 s only cost time

_SPEECH_LEVEL = 0.1  # root mean square of the loud frames, -20 dB of full scale
_PEAK_LIMIT = 0.95
_LEVEL_FRAME_S = 0.02


def gather_speech(references: Sequence[Audio]) -> tuple[Audio, float]:
    """Return the speech in `references` as one recording at 16 kHz, and the seconds of speech in it."""
    parts = [np.zeros(0, np.float32)]
    speech_s = 0.0
    for reference in references:
        room_s = MAX_REFERENCE_S - speech_s
        span = find_speech(reference)
        if room_s <= 0 or not span.speech_s:
            continue
        speech = trim_to_speech(reference.resample(SAMPLE_RATE_HZ), span)
        share = min(1.0, room_s / span.speech_s)
        parts.append(speech.samples[: int(len(speech.samples) * share)])
        speech_s += span.speech_s * share
    return Audio(np.concatenate(parts), SAMPLE_RATE_HZ), speech_s


def at_level(audio: Audio) -> Audio:
    """Return `audio` with its loud frames at one level, so that sentences and voices are equally loud."""
    length = int(_LEVEL_FRAME_S * audio.sample_rate)
    frames = np.pad(audio.samples, (0, -len(audio.samples) % length)).reshape(-1, length)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    loud = power[power > power.max() * 1e-3]
    peak = float(np.abs(audio.samples).max())
    if not len(loud):
        return audio
    gain = min(_SPEECH_LEVEL / math.sqrt(float(loud.mean())), _PEAK_LIMIT / peak)
    return Audio((audio.samples * gain).astype(np.float32), audio.sample_rate)
