"""Measures the engines: recognition of recordings, and speech of answers in the voices of the recordings.

The engines get one request at a time, as from a single caller. A failure counts as an empty transcript.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.error_rate import Edits, edits, tokens
from mirrorchat.cli.evaluation.judge import Judge
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Engines, Language, Priority, Recognizer, Voice, VoiceKind
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
    is the listener's transcript of it, None without a listener. The judge sets `mos` and `similarity`; the latter is
    None for too little speech. `failure` is the error, or empty.
    """

    voice: VoiceKind | None = None
    voice_s: float = 0.0
    first_audio_s: float = 0.0
    elapsed_s: float = 0.0
    duration_s: float = 0.0
    heard: Heard | None = None
    mos: float | None = None
    similarity: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Spoken:
    """Speech, with the seconds until its first and its last sample."""

    audio: Audio
    first_audio_s: float
    elapsed_s: float


@dataclass
class Evaluation:
    """Runs `engines`, each request for at most `limit_s`. Answers are heard by `judge`, or by our recognizer."""

    engines: Engines
    seed: int
    limit_s: float
    judge: Judge | None = None

    def warm_up(self, clip: Clip, text: str, *, speak: bool) -> None:
        """Recognize and speak once without a measurement: the first call compiles and fills caches."""
        with suppress(MirrorChatError):  # it fails again in the measurement
            self._recognize(clip.load(), clip.language, self.engines.recognizers[clip.language])
        if speak:
            with suppress(MirrorChatError):
                voice = self.engines.synthesizers[clip.language].voice([clip.load()])
                self._speak(text, voice, clip.language)

    def hear(self, clip: Clip) -> Heard | None:
        """Recognize `clip`. Return None if its language has no recognizer."""
        return self._hear(clip.load(), clip.language, clip.transcript, self.engines.recognizers[clip.language])

    def answer(self, clip: Clip, text: str, keep: Callable[[Audio], None] = lambda _: None) -> Answer:
        """Speak `text` in the voice of `clip`, pass the speech to `keep`, and measure it."""
        asker, judge = clip.load(), self.judge
        begun = time.perf_counter()
        try:
            voice = self.engines.synthesizers[clip.language].voice([asker])
            voice_s = time.perf_counter() - begun
            spoken = self._speak(text, voice, clip.language)
        except MirrorChatError as error:
            return Answer(failure=str(error))
        keep(spoken.audio)
        listener = judge.listener if judge else self.engines.recognizers[clip.language]
        return Answer(
            voice=voice.kind,
            voice_s=voice_s,
            first_audio_s=spoken.first_audio_s,
            elapsed_s=spoken.elapsed_s,
            duration_s=spoken.audio.duration_s,
            heard=self._hear(spoken.audio, clip.language, text, listener),
            mos=judge.naturalness(spoken.audio) if judge else None,
            similarity=judge.speakers.similarity(spoken.audio, clip) if judge else None,
        )

    def _hear(self, audio: Audio, language: Language, reference: str, listener: Recognizer) -> Heard | None:
        expected = tokens(reference, language)
        begun = time.perf_counter()
        try:
            text = self._recognize(audio, language, listener)
        except ModelNotInstalled:
            return None
        except MirrorChatError as error:
            return Heard(reference, "", edits(expected, ()), time.perf_counter() - begun, str(error))
        elapsed_s = time.perf_counter() - begun
        return Heard(reference, text, edits(expected, tokens(text, language)), elapsed_s)

    def _recognize(self, audio: Audio, language: Language, listener: Recognizer) -> str:
        return listener.recognize(audio, language, context=Context.after(self.limit_s)).text

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
