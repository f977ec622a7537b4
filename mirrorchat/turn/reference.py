"""The speaker reference: the speech from which a voice is computed, its quality, its speaker, and its growth.

An `Utterance` is one turn's recording with its measurements; a session keeps a `Reference` of its utterances:

    utterance = Utterance(audio, synthesizer)
    reference = Reference.begun(utterance, synthesizer.voice([audio]))
    reference = reference.extended(Utterance(later, synthesizer), synthesizer)
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio, Samples, to_pcm16
from mirrorchat.audio.vad import FRAME_S, Mask, signal_to_noise_db, span_of, speech_frames, trim_to_speech
from mirrorchat.engines import REFERENCE_LIMIT_S, SPEECH_NEEDED_S, SpeakerEmbedding, Synthesizer, Voice
from mirrorchat.errors import SynthesisFailed

TWO_SPEAKERS_FROM_S = 4.0  # of speech: each half must be long enough to identify its speaker
KEPT_RATE_HZ = 24_000  # the highest rate of the references that synthesizers use

_FULL_SCALE = 0.99
_FLAT_STEP = 1.0 / 32768.0  # one step of 16 bits


@dataclass(frozen=True)
class ReferenceQuality:
    """The quality of a reference.

    `speech_s`: seconds of speech. `snr_db`: the level of the speech above that of the pauses, from -20 to 96; None
    without a pause. `clipped`: the share of clipped samples, 0 to 1. `second_speaker`: whether it holds a second
    speaker; None in doubt.
    """

    speech_s: float
    snr_db: float | None
    clipped: float
    second_speaker: bool | None = None

    def joined(self, later: "ReferenceQuality") -> "ReferenceQuality":
        """Return the quality of this recording followed by `later`: the noisier of both counts."""
        levels = [level for level in (self.snr_db, later.snr_db) if level is not None]
        speech_s = self.speech_s + later.speech_s
        clipped = (self.clipped * self.speech_s + later.clipped * later.speech_s) / max(speech_s, FRAME_S)
        certain = [second for second in (self.second_speaker, later.second_speaker) if second is not None]
        second_speaker = any(certain) if certain else None
        return ReferenceQuality(min(speech_s, REFERENCE_LIMIT_S), min(levels, default=None), clipped, second_speaker)


def measure(audio: Audio, voiced: Mask) -> ReferenceQuality:
    """Return the quality of `audio` (any rate); it leaves `second_speaker` None. `voiced` are its `speech_frames`.

    30 s take about 10 ms.
    """
    return ReferenceQuality(span_of(voiced).speech_s, signal_to_noise_db(audio, voiced), _clipped(audio.samples))


def _clipped(samples: Samples) -> float:
    """Return the share of samples in runs of three or more that stay constant at full scale."""
    if len(samples) < 3:
        return 0.0
    loud = np.abs(samples) >= _FULL_SCALE
    flat = (np.abs(np.diff(samples)) <= _FLAT_STEP) & loud[1:]
    middle = flat[1:] & flat[:-1]
    runs = np.zeros(len(samples), np.bool_)
    for shift in range(3):
        runs[shift : shift + len(middle)] |= middle
    return float(runs.mean())


class Utterance:
    """One turn's recording, measured for `synthesizer`. Each property is computed once, at its first use."""

    def __init__(self, audio: Audio, synthesizer: Synthesizer) -> None:
        self._audio = audio
        self._synthesizer = synthesizer

    @functools.cached_property
    def _voiced(self) -> Mask:
        """The frames with speech, up to 30 s after the first of them."""
        voiced = speech_frames(self._audio)
        return voiced[: int(voiced.argmax() if len(voiced) else 0) + int(REFERENCE_LIMIT_S / FRAME_S)]

    @functools.cached_property
    def speech(self) -> Audio:
        """The recording trimmed to its speech, at most 30 s and the margins."""
        return trim_to_speech(self._audio, span_of(self._voiced))

    @functools.cached_property
    def has_voice(self) -> bool:
        """Whether there is enough speech to identify a speaker."""
        return span_of(self._voiced).speech_s >= SPEECH_NEEDED_S

    @functools.cached_property
    def embedding(self) -> SpeakerEmbedding | None:
        """The speaker embedding; None when the speaker cannot be identified."""
        return self._embed(self.speech) if self.has_voice else None

    @functools.cached_property
    def quality(self) -> ReferenceQuality:
        """The quality of the recording."""
        return replace(measure(self._audio, self._voiced), second_speaker=self._second_speaker())

    def is_by(self, speaker: SpeakerEmbedding) -> bool:
        """Return whether `speaker` certainly speaks here; False in doubt."""
        return self.embedding is not None and self._synthesizer.same_speaker(speaker, self.embedding) is True

    def _embed(self, speech: Audio) -> SpeakerEmbedding | None:
        try:
            return self._synthesizer.embed_speaker(speech)
        except SynthesisFailed:  # the speaker is unknown then, but the answer may still be spoken
            return None

    def _second_speaker(self) -> bool | None:
        """Compare the speakers of the two halves of the speech; None if it is shorter than 4 s, or in doubt."""
        if span_of(self._voiced).speech_s < TWO_SPEAKERS_FROM_S:
            return None
        halves = [self._embed(half) for half in self._halves()]
        if halves[0] is None or halves[1] is None:
            return None
        same = self._synthesizer.same_speaker(halves[0], halves[1])
        return None if same is None else not same

    def _halves(self) -> tuple[Audio, Audio]:
        """Split the recording at the middle of its speech."""
        voiced = self._voiced
        cut = int(np.searchsorted(np.cumsum(voiced), voiced.sum() / 2.0)) + 1
        first, second = voiced.copy(), voiced.copy()
        first[cut:] = second[:cut] = False
        cut_first, cut_second = (trim_to_speech(self._audio, span_of(half), margin_s=0.0) for half in (first, second))
        return cut_first, cut_second


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference that a session keeps for one synthesizer: the voice, the speaker, and the quality.

    `pcm` is the speech, int16 of shape (samples,) at KEPT_RATE_HZ, while more may be added; it is empty when full.
    """

    voice: Voice
    embedding: SpeakerEmbedding
    quality: ReferenceQuality
    pcm: npt.NDArray[np.int16]

    @classmethod
    def begun(cls, utterance: Utterance, voice: Voice) -> "Reference | None":
        """Return the reference that starts with `utterance` and `voice`; None unless exactly one speaker is heard."""
        if utterance.embedding is None or utterance.quality.second_speaker:
            return None
        return cls(voice, utterance.embedding, utterance.quality, _room_left(_pcm(utterance)))

    @functools.cached_property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return self.pcm.nbytes + self.embedding.nbytes + len(self.voice.to_bytes())

    @property
    def is_full(self) -> bool:
        return not len(self.pcm)

    def extended(self, utterance: Utterance, synthesizer: Synthesizer) -> "Reference":
        """Return the reference followed by `utterance`, of the same speaker, up to 30 s, with a new voice."""
        assert utterance.embedding is not None, "an utterance without a speaker extends no reference"
        pcm = np.concatenate([self.pcm, _pcm(utterance)])[: int(REFERENCE_LIMIT_S * KEPT_RATE_HZ)]
        voice = synthesizer.voice([Audio(pcm.astype(np.float32) / 32767.0, KEPT_RATE_HZ)])
        weights = (self.quality.speech_s, utterance.quality.speech_s)
        embedding = np.average([self.embedding, utterance.embedding], axis=0, weights=weights)
        return Reference(voice, embedding, self.quality.joined(utterance.quality), _room_left(pcm))


def _pcm(utterance: Utterance) -> npt.NDArray[np.int16]:
    return to_pcm16(utterance.speech.resample(KEPT_RATE_HZ).samples)


def _room_left(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return `pcm` if a second or more can still be added, else an empty array, which saves memory."""
    return pcm if len(pcm) <= (REFERENCE_LIMIT_S - SPEECH_NEEDED_S) * KEPT_RATE_HZ else pcm[:0].copy()
