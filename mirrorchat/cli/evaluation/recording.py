"""Measures the engines: recognition of recordings, and speech of answers in the voices of the recordings.

The engines get one request at a time, as from a single caller. A failure counts as an empty transcript.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.error_rate import Edits, edits, tokens
from mirrorchat.cli.evaluation.speaker_similarity import Similarity, SpeakerSimilarity
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Engines, Language, Priority, Voice, VoiceKind
from mirrorchat.errors import MirrorChatError, ModelNotInstalled, SynthesisFailed


@dataclass(frozen=True)
class Heard:
    """The transcript `text` of a recording, with its `reference`. `failure` is the error, or empty."""

    reference: str
    text: str
    edits: Edits
    elapsed_s: float
    failure: str = ""


@dataclass(frozen=True)
class Answer:
    """The speech of an answer, `duration_s` long, in the voice of a clip.

    The voice took `voice_s`, the first sample `first_audio_s` after that, the last one `elapsed_s` after that. `heard`
    is our recognizer's transcript of it, or None without a recognizer. `failure` is the error, or empty.
    """

    voice: VoiceKind | None = None
    voice_s: float = 0.0
    first_audio_s: float = 0.0
    elapsed_s: float = 0.0
    duration_s: float = 0.0
    heard: Heard | None = None
    similarity: Similarity | None = None
    failure: str = ""


@dataclass(frozen=True)
class Spoken:
    """Speech, with the seconds until its first and its last sample."""

    audio: Audio
    first_audio_s: float
    elapsed_s: float


@dataclass
class Evaluation:
    """Runs `engines`, each request for at most `limit_s`. `unheard` has the reason why a language has no recognizer."""

    engines: Engines
    seed: int
    limit_s: float
    unheard: dict[Language, str] = field(default_factory=dict)

    def warm_up(self, clip: Clip, text: str, *, speak: bool) -> None:
        """Recognize and speak once without a measurement: the first call compiles and fills caches."""
        with suppress(MirrorChatError):  # it fails again in the measurement
            self._recognize(clip.load(), clip.language)
        if speak:
            with suppress(MirrorChatError):
                voice = self.engines.synthesizers[clip.language].voice([clip.load()])
                self._speak(text, voice, clip.language)

    def hear(self, clip: Clip) -> Heard | None:
        """Recognize `clip`. Return None if its language has no recognizer."""
        return self._hear(clip.load(), clip.language, clip.transcript)

    def answer(
        self,
        clip: Clip,
        text: str,
        similarity: SpeakerSimilarity | None = None,
        keep: Callable[[Audio], None] = lambda _: None,
    ) -> Answer:
        """Speak `text` in the voice of `clip`, pass the speech to `keep`, and measure it."""
        asker = clip.load()
        begun = time.perf_counter()
        try:
            voice = self.engines.synthesizers[clip.language].voice([asker])
            voice_s = time.perf_counter() - begun
            spoken = self._speak(text, voice, clip.language)
        except MirrorChatError as error:
            return Answer(failure=str(error))
        keep(spoken.audio)
        return Answer(
            voice=voice.kind,
            voice_s=voice_s,
            first_audio_s=spoken.first_audio_s,
            elapsed_s=spoken.elapsed_s,
            duration_s=spoken.audio.duration_s,
            heard=self._hear(spoken.audio, clip.language, text),
            similarity=similarity.compare(spoken.audio, clip) if similarity else None,
        )

    def _hear(self, audio: Audio, language: Language, reference: str) -> Heard | None:
        if language in self.unheard:
            return None
        expected = tokens(reference, language)
        begun = time.perf_counter()
        try:
            text = self._recognize(audio, language)
        except ModelNotInstalled:
            self.unheard[language] = self.engines.recognizers[language].info.reason
            return None
        except MirrorChatError as error:
            return Heard(reference, "", edits(expected, ()), time.perf_counter() - begun, str(error))
        elapsed_s = time.perf_counter() - begun
        return Heard(reference, text, edits(expected, tokens(text, language)), elapsed_s)

    def _recognize(self, audio: Audio, language: Language) -> str:
        recognizer = self.engines.recognizers[language]
        context = Context.after(self.limit_s)
        return recognizer.recognize(audio, language, context=context).text

    def _speak(self, text: str, voice: Voice, language: Language) -> Spoken:
        """Return the speech of `text`, consumed without delay. Raises SynthesisFailed when there is none."""
        begun = time.perf_counter()
        rate_hz = self.engines.synthesizers[language].sample_rate
        parts: list[Samples] = []
        first_audio_s = 0.0
        for audio in self._pieces(text, voice, language):
            if len(audio.samples):
                first_audio_s = first_audio_s or time.perf_counter() - begun
                parts.append(audio.samples)
        elapsed_s = time.perf_counter() - begun
        if not parts:
            raise SynthesisFailed("nothing was spoken")
        return Spoken(Audio(np.concatenate(parts), rate_hz), first_audio_s, elapsed_s)

    def _pieces(self, text: str, voice: Voice, language: Language) -> Iterator[Audio]:
        return self.engines.synthesizers[language].speak(
            text, voice, language, seed=self.seed, priority=Priority.FIRST, context=Context.after(self.limit_s)
        )


def first_failure(results: Sequence[Heard | Answer | None]) -> str:
    """Return the failure of the first of `results` that has one, or an empty text."""
    return next((result.failure for result in results if result and result.failure), "")
