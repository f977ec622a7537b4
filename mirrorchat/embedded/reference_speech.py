"""Speech before and after the voice tint: the asker's recordings as one, their speaker, the answer at one level."""

import math
from collections.abc import Sequence

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.embedded.voice_tint import (
    DIFFERENT_TO,
    SAME_FROM,
    SAMPLE_RATE_HZ,
    VoiceTint,
    similarity,
    speaker_features,
)
from mirrorchat.engines import SpeakerEmbedding, judge_similarity

MAX_REFERENCE_S = 20.0  # 2 s of speech determine nearly the whole voice; more than 20 s only cost time

_SPEECH_LEVEL = 0.1  # root mean square of the loud frames, -20 dB of full scale
_PEAK_LIMIT = 0.95
_LEVEL_FRAME_S = 0.02


class TintedSpeakers:
    """What the synthesizers with a voice tint know of speakers. `_tint` is None where pyworld is not installed."""

    _tint: VoiceTint | None

    def embed_speaker(self, speech: Audio) -> SpeakerEmbedding | None:
        """Return pitch and timbre of the first 20 s of `speech`; None if it is not voiced or pyworld is missing."""
        if self._tint is None:
            return None
        start = speech.samples[: int(MAX_REFERENCE_S * speech.sample_rate)]
        profile = self._tint.profile(Audio(start, speech.sample_rate))
        return None if profile is None else speaker_features(profile)

    def same_speaker(self, first: SpeakerEmbedding, second: SpeakerEmbedding) -> bool | None:
        """Return whether two embeddings are of one speaker; often None, since pitch and timbre alone leave doubt."""
        return judge_similarity(similarity(first, second), same_from=SAME_FROM, different_to=DIFFERENT_TO)


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
