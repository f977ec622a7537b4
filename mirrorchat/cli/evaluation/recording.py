"""An evaluation: what the engines hear in recordings, and how they speak answers in the voices of these.

Engines are asked for one thing at a time, as a lone caller would ask them. What fails is counted: nothing of it was
heard.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.error_rate import Edits, edits, units
from mirrorchat.cli.evaluation.speaker_similarity import Similarity, SpeakerSimilarity
from mirrorchat.engines import Cancel, Deadline, Engines, Language, Priority, Voice, VoiceKind
from mirrorchat.errors import MirrorChatError, ModelNotInstalled, SynthesisFailed


@dataclass(frozen=True)
class Heard:
    """What was heard where `said` was said, in `elapsed_s`; `failure` says why nothing could be."""

    said: str
    text: str
    edits: Edits
    elapsed_s: float
    failure: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer of `duration_s` that was spoken in the voice of a clip.

    `voice_s` went to the voice, then `first_audio_s` until the first sample, `elapsed_s` until the last. `heard` is
    what our recognizer makes of it, None where there is none; `failure` says why nothing was spoken.
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
    """Speech, the seconds until its first sample, and those until its last."""

    audio: Audio
    first_audio_s: float
    elapsed_s: float


@dataclass
class Evaluation:
    """Asks `engines`. `limit_s` is how long one thing may take. `unheard` says why a language cannot be recognized."""

    engines: Engines
    seed: int
    limit_s: float
    unheard: dict[Language, str] = field(default_factory=dict)

    def warm_up(self, clip: Clip, text: str, *, speak: bool) -> None:
        """Hear and speak once what does not count: a first call compiles, and fills caches."""
        with suppress(MirrorChatError):  # it fails again where it counts
            self._recognize(clip.load(), clip.language)
        if speak:
            with suppress(MirrorChatError):
                voice = self.engines.synthesizers[clip.language].voice([clip.load()])
                self._speak(text, voice, clip.language)

    def hear(self, clip: Clip) -> Heard | None:
        """Return what is heard in `clip`, None where its language has no recognizer."""
        return self._hear(clip.load(), clip.language, clip.transcript)

    def answer(
        self,
        clip: Clip,
        text: str,
        similarity: SpeakerSimilarity | None = None,
        keep: Callable[[Audio], None] = lambda _: None,
    ) -> Answer:
        """Speak `text` in the voice of `clip` and examine it; `keep` is given the speech."""
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

    def _hear(self, audio: Audio, language: Language, said: str) -> Heard | None:
        if language in self.unheard:
            return None
        wanted = units(said, language)
        begun = time.perf_counter()
        try:
            text = self._recognize(audio, language)
        except ModelNotInstalled:
            self.unheard[language] = self.engines.recognizers[language].info.reason
            return None
        except MirrorChatError as error:
            return Heard(said, "", edits(wanted, ()), time.perf_counter() - begun, str(error))
        elapsed_s = time.perf_counter() - begun
        return Heard(said, text, edits(wanted, units(text, language)), elapsed_s)

    def _recognize(self, audio: Audio, language: Language) -> str:
        recognizer = self.engines.recognizers[language]
        deadline = Deadline.after(self.limit_s)
        return recognizer.recognize(audio, language, deadline=deadline, cancel=Cancel()).text

    def _speak(self, text: str, voice: Voice, language: Language) -> Spoken:
        """Return `text` as speech, all of it taken as soon as it comes. Raises SynthesisFailed when there is none."""
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
            text,
            voice,
            language,
            seed=self.seed,
            priority=Priority.FIRST,
            deadline=Deadline.after(self.limit_s),
            cancel=Cancel(),
        )


def first_failure(results: Sequence[Heard | Answer | None]) -> str:
    """Return why the first of `results` that failed did, or an empty text."""
    return next((result.failure for result in results if result and result.failure), "")
