"""The reference: the recording that a voice is computed from. How good it is, whose it is, and how it grows.

A `Take` is one turn's recording under examination; a `Reference` is what a session keeps of its takes.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio, Samples, to_pcm16
from mirrorchat.audio.vad import FRAME_S, FRAME_SAMPLES, SAMPLE_RATE_HZ, Mask, span_of, speech_frames, trim_to_speech
from mirrorchat.engines import REFERENCE_LIMIT_S, SPEECH_NEEDED_S, SpeakerEmbedding, Synthesizer, Voice
from mirrorchat.errors import SynthesisFailed

TWO_SPEAKERS_FROM_S = 4.0  # of speech: each half must tell its speaker
KEPT_RATE_HZ = 24_000  # above what any synthesizer conditions on

_GUARD_FRAMES = 3  # 0.1 s beside speech is not noise: the detector misses how words begin and fade
_NOISE_FRAMES = 6  # 0.2 s tells how loud the noise is
_SNR_RANGE_DB = (-20.0, 96.0)  # digital silence has no noise at all; 96 dB is the range of 16 bits
_FULL_SCALE = 0.99
_FLAT_STEP = 1.0 / 32768.0  # one step of 16 bits


@dataclass(frozen=True)
class ReferenceQuality:
    """What a reference is like.

    `speech_s`: seconds of speech. `snr_db`: the level of the speech above that of the pauses, from -20 to 96, None
    when there is no pause to measure in. `clipped`: the share of samples that stand flat at full scale, 0 to 1.
    `second_speaker`: whether another speaker is heard in it too, None when that cannot be told.
    """

    speech_s: float
    snr_db: float | None
    clipped: float
    second_speaker: bool | None = None

    def joined(self, later: "ReferenceQuality") -> "ReferenceQuality":
        """Return the quality of this recording with `later` behind it: the noisier of both counts."""
        levels = [level for level in (self.snr_db, later.snr_db) if level is not None]
        speech_s = self.speech_s + later.speech_s
        clipped = (self.clipped * self.speech_s + later.clipped * later.speech_s) / max(speech_s, FRAME_S)
        told = [second for second in (self.second_speaker, later.second_speaker) if second is not None]
        second_speaker = any(told) if told else None
        return ReferenceQuality(min(speech_s, REFERENCE_LIMIT_S), min(levels, default=None), clipped, second_speaker)


def measure(audio: Audio, voiced: Mask) -> ReferenceQuality:
    """Return the quality of `audio` (any rate), `voiced` being its `speech_frames`; the second speaker stays None.

    30 s take some 10 ms.
    """
    return ReferenceQuality(span_of(voiced).speech_s, _snr_db(audio, voiced), _clipped(audio.samples))


def _snr_db(audio: Audio, voiced: Mask) -> float | None:
    """Return the mean power of the frames with speech, less the noise's, over the median power of the pauses."""
    if not voiced.any():
        return None
    near = np.convolve(voiced, np.ones(2 * _GUARD_FRAMES + 1))[_GUARD_FRAMES:][: len(voiced)] > 0.5
    if (~near).sum() < _NOISE_FRAMES:
        return None
    samples = audio.resample(SAMPLE_RATE_HZ).samples[: len(voiced) * FRAME_SAMPLES]
    power = np.var(samples.reshape(-1, FRAME_SAMPLES), axis=1, dtype=np.float64)  # around the mean: an offset is silent
    noise = float(np.median(power[~near]))
    speech = float(power[voiced].mean()) - noise
    low_db, high_db = _SNR_RANGE_DB
    if speech <= 0.0 or noise <= 0.0:
        return low_db if speech <= 0.0 else high_db
    return float(np.clip(10.0 * np.log10(speech / noise), low_db, high_db))


def _clipped(samples: Samples) -> float:
    """Return the share of samples in runs of three or more that stand still at full scale."""
    if len(samples) < 3:
        return 0.0
    loud = np.abs(samples) >= _FULL_SCALE
    still = (np.abs(np.diff(samples)) <= _FLAT_STEP) & loud[1:]
    middle = still[1:] & still[:-1]
    runs = np.zeros(len(samples), np.bool_)
    for shift in range(3):
        runs[shift : shift + len(middle)] |= middle
    return float(runs.mean())


class Take:
    """One turn's recording, as `synthesizer` hears it. Everything is computed when first asked for, and once."""

    def __init__(self, audio: Audio, synthesizer: Synthesizer) -> None:
        self._audio = audio
        self._synthesizer = synthesizer

    @functools.cached_property
    def _voiced(self) -> Mask:
        """Frames with speech, up to 30 s after the first of them."""
        voiced = speech_frames(self._audio)
        return voiced[: int(voiced.argmax() if len(voiced) else 0) + int(REFERENCE_LIMIT_S / FRAME_S)]

    @functools.cached_property
    def speech(self) -> Audio:
        """The recording trimmed to its speech, at most 30 s and the margins."""
        return trim_to_speech(self._audio, span_of(self._voiced))

    @functools.cached_property
    def has_voice(self) -> bool:
        """Whether there is enough speech to tell a speaker by."""
        return span_of(self._voiced).speech_s >= SPEECH_NEEDED_S

    @functools.cached_property
    def embedding(self) -> SpeakerEmbedding | None:
        """Who speaks; None when that cannot be told."""
        return self._embed(self.speech) if self.has_voice else None

    @functools.cached_property
    def quality(self) -> ReferenceQuality:
        """How good the recording is."""
        return replace(measure(self._audio, self._voiced), second_speaker=self._second_speaker())

    def is_by(self, speaker: SpeakerEmbedding) -> bool:
        """Return whether `speaker` certainly speaks here: in doubt it is somebody else."""
        return self.embedding is not None and self._synthesizer.same_speaker(speaker, self.embedding) is True

    def _embed(self, speech: Audio) -> SpeakerEmbedding | None:
        try:
            return self._synthesizer.embed_speaker(speech)
        except SynthesisFailed:  # then the speaker is not known; the answer, if it can be spoken, is not lost
            return None

    def _second_speaker(self) -> bool | None:
        """Compare the voices of the two halves of the speech; None when it is under 4 s, or in doubt."""
        if span_of(self._voiced).speech_s < TWO_SPEAKERS_FROM_S:
            return None
        halves = [self._embed(half) for half in self._halves()]
        if halves[0] is None or halves[1] is None:
            return None
        same = self._synthesizer.same_speaker(halves[0], halves[1])
        return None if same is None else not same

    def _halves(self) -> tuple[Audio, Audio]:
        """Cut the recording where half of its speech is over."""
        voiced = self._voiced
        cut = int(np.searchsorted(np.cumsum(voiced), voiced.sum() / 2.0)) + 1
        first, second = voiced.copy(), voiced.copy()
        first[cut:] = second[:cut] = False
        cut_first, cut_second = (trim_to_speech(self._audio, span_of(half), margin_s=0.0) for half in (first, second))
        return cut_first, cut_second


@dataclass(frozen=True, eq=False)
class Reference:
    """What a session keeps of its takes for one synthesizer: the voice, who it is, how good it is.

    `pcm` is their speech, 16-bit (samples,) at KEPT_RATE_HZ, as long as more may be added; empty once it is full.
    """

    voice: Voice
    embedding: SpeakerEmbedding
    quality: ReferenceQuality
    pcm: npt.NDArray[np.int16]

    @classmethod
    def begun(cls, take: Take, voice: Voice) -> "Reference | None":
        """Return the reference that begins with `take`, whose voice is `voice`; None unless it tells one speaker."""
        if take.embedding is None or take.quality.second_speaker:
            return None
        return cls(voice, take.embedding, take.quality, _room_left(_pcm(take)))

    @property
    def is_full(self) -> bool:
        return not len(self.pcm)

    def extended(self, take: Take, synthesizer: Synthesizer) -> "Reference":
        """Return the reference with `take`, of the same speaker, behind it, up to 30 s, and its voice computed anew."""
        assert take.embedding is not None, "a take that tells no speaker extends nothing"
        pcm = np.concatenate([self.pcm, _pcm(take)])[: int(REFERENCE_LIMIT_S * KEPT_RATE_HZ)]
        voice = synthesizer.voice([Audio(pcm.astype(np.float32) / 32767.0, KEPT_RATE_HZ)])
        weights = (self.quality.speech_s, take.quality.speech_s)
        embedding = np.average([self.embedding, take.embedding], axis=0, weights=weights)
        return Reference(voice, embedding, self.quality.joined(take.quality), _room_left(pcm))


def _pcm(take: Take) -> npt.NDArray[np.int16]:
    return to_pcm16(take.speech.resample(KEPT_RATE_HZ).samples)


def _room_left(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return `pcm` while a second or more can still be added, else nothing: it would only cost memory."""
    return pcm if len(pcm) <= (REFERENCE_LIMIT_S - SPEECH_NEEDED_S) * KEPT_RATE_HZ else pcm[:0].copy()
