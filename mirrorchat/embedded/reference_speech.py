"""Speech before and after the voice tint: the asker's recordings as one, their speaker, the answer at one level."""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.embedded.voice_tint import (
    DIFFERENT_TO,
    SAME_FROM,
    SAMPLE_RATE_HZ,
    Profile,
    TintVoice,
    VoiceTint,
    similarity,
    speaker_features,
)
from mirrorchat.engines import SPEECH_NEEDED_S, SpeakerEmbedding, Voice, VoiceKind, judge_similarity, too_little_speech

MAX_REFERENCE_S = 20.0  # 2 s of speech determine nearly the whole voice; more than 20 s only cost time

_SPEECH_LEVEL = 0.1  # root mean square of the loud frames, -20 dB of full scale
_PEAK_LIMIT = 0.95
_LEVEL_FRAME_S = 0.02


class TintedSpeakers:
    """The voices and the speakers of the synthesizers with a tint. `_tint` is None where pyworld is not installed."""

    _tint: VoiceTint | None
    voice_note = ""  # ends the reason of every voice
    follows: Collection[str] = ()
    built_in_voices: Mapping[str, Voice] = MappingProxyType({})
    voice_model = "WORLD voice tint 2"  # the name of the method that computes the voices

    def voice(self, references: Sequence[Audio]) -> TintVoice:
        """Return the voice of the speaker in `references` (any rates), or a neutral one whose reason says why.

        The first 20 s of speech count; at least 1 s of speech is needed.
        """
        if self._tint is None:
            return self._voice(VoiceKind.NEUTRAL, "pyworld is not installed")
        speech, speech_s = gather_speech(references)
        if speech_s < SPEECH_NEEDED_S:
            return self._voice(VoiceKind.NEUTRAL, too_little_speech(speech_s))
        profile = self._tint.profile(speech)
        if profile is None:
            return self._voice(VoiceKind.NEUTRAL, "no voiced speech in it")
        return self._voice(VoiceKind.TINT, "pitch and timbre moved toward the speaker", profile)

    def restore(self, data: bytes) -> TintVoice:
        """Return the voice that `TintVoice.to_bytes` wrote. Raises ValueError for any other bytes."""
        return TintVoice.from_bytes(data)

    def _voice(self, kind: VoiceKind, reason: str, profile: Profile | None = None) -> TintVoice:
        return TintVoice(kind, reason + self.voice_note, profile)

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
