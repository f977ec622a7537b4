"""Recognition of one caller's recordings, in the language that the caller names or in the one that is detected."""

from collections.abc import Sequence
from dataclasses import dataclass

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import DetectsLanguage, Engines, Language, Transcript
from mirrorchat.errors import LanguageNotDetected
from mirrorchat.turn.stopwatch import Stopwatch

UNKNOWN_CONFIDENCE = 0.5  # of a recognizer without confidences, in comparison with one that has them
NO_DETECTOR = (
    "nothing here detects the language: send chinese or english, or install what does with "
    ".venv/bin/mirrorchat models install small"
)


def require_detector(engines: Engines, param: str) -> None:
    """Raise LanguageNotDetected, which names the request's field `param`, if `engines` cannot detect the language."""
    if engines.detector is None:
        raise LanguageNotDetected(NO_DETECTOR, param=param)


@dataclass(frozen=True)
class Hearing:
    """Recognizes recordings until `context` ends. Example:

    transcript = Hearing(engines, (), slot.context, watch).hear(audio, tuple(Language))
    """

    engines: Engines
    hotwords: Sequence[str]
    context: Context
    watch: Stopwatch

    def hear(self, audio: Audio, languages: Sequence[Language]) -> Transcript:
        """Return the transcript of `audio` in one of `languages`.

        The detector chooses the language; where there is none, the recognizer with the highest confidence does.

        Raises ModelNotInstalled if none of the languages has a recognizer, and the same as `Recognizer.recognize`.
        """
        with self.watch.time("recognize"):
            if len(languages) == 1:
                return self._recognize(audio, languages[0])
            if self.engines.detector is None:
                return self._most_confident(audio, languages)
            transcript = self._detect(audio, self.engines.detector)
        if transcript.text:
            self.watch.detected_language = transcript.language
        return transcript

    def _recognize(self, audio: Audio, language: Language) -> Transcript:
        recognizer = self.engines.recognizers[language]
        return recognizer.recognize(audio, language, hotwords=self.hotwords, context=self.context)

    def _detect(self, audio: Audio, detector: DetectsLanguage) -> Transcript:
        if all(isinstance(recognizer, DetectsLanguage) for recognizer in self.engines.recognizers.values()):
            return detector.recognize_any(audio, context=self.context)
        return self._recognize(audio, detector.detect_language(audio, context=self.context))

    def _most_confident(self, audio: Audio, languages: Sequence[Language]) -> Transcript:
        installed = [each for each in languages if self.engines.recognizers[each].info.name != "none"]
        # A missing recognizer raises how to install it.
        return max((self._recognize(audio, each) for each in installed or languages[:1]), key=_confidence)


def _confidence(transcript: Transcript) -> float:
    if not transcript.text:
        return 0.0
    return UNKNOWN_CONFIDENCE if transcript.confidence is None else transcript.confidence
