"""The small synthesizer: a neural base voice, moved toward the asker's pitch and timbre by signal processing.

The base voice is the one nearest to the asker: whether it is a woman's or a man's decides more than the tint.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import BUILD_HINT
from mirrorchat.embedded.reference_speech import TintedSpeakers, at_level
from mirrorchat.embedded.voice_tint import Profile, TintVoice, VoiceTint
from mirrorchat.engines import EngineInfo, Language, Priority, Tier, Voice
from mirrorchat.errors import ConfigurationError, ModelNotInstalled, SynthesisFailed
from mirrorchat.small.high_band import brightened, with_high_band
from mirrorchat.small.kokoro import SAMPLE_RATE_HZ
from mirrorchat.small.phonemes import has_han
from mirrorchat.small.speech import NeutralSpeech
from mirrorchat.small.voices_base import CALIBRATION, HIBARI_VOICE, BaseVoice, MeasuredFile, base_voices, nearest
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import split_text

# A piece has at most some 10 s of speech, so that native calls stay short and the first piece is ready early.
_PIECE_CHARS = {Language.ENGLISH: 140, Language.CHINESE: 40}
_STRENGTH = 1.0  # of the tint: the base voices are clear enough to be moved in full
_SCRIPTS = frozenset({"LATIN", "CJK"})


class SmallSynthesizer(TintedSpeakers):
    """Speaks with hibari and Kokoro on the CPU; WORLD moves the voice toward the asker's.

    Thread-safe and deterministic: the same text and voice always sound the same, whatever the seed. `folder` holds
    Kokoro; without it `languages` is English only. Without pyworld every voice is neutral. The first start measures
    the base voices that MEASURED_BASES lacks, which takes some 5 s each, and keeps the result in `folder`.

    Raises ConfigurationError if a model that is there cannot be loaded.
    """

    sample_rate = SAMPLE_RATE_HZ

    def __init__(self, folder: Path | None, *, threads: int) -> None:
        self._speech = NeutralSpeech(folder, threads)
        kokoro = self._speech.kokoro
        self._voices = base_voices(kokoro.voices if kokoro else ())
        self.languages = frozenset(voice.language for voice in self._voices)
        model = f"hibari {version('hibari-tts')}" + (" and Kokoro-82M int8" if kokoro else "")
        reason = ""
        self._tint: VoiceTint | None = None
        self._profiles: dict[BaseVoice, Profile] = {}
        try:
            self._tint = VoiceTint()
            self._profiles = self._measure_bases(self._tint, MeasuredFile(folder))
            model += " with WORLD voice tint"
        except ImportError:
            reason = f"pyworld is not installed, so the voice is not tinted: {BUILD_HINT}"
        self.info = EngineInfo("small", model, "cpu", reason, Tier.SMALL)

    def speak(
        self,
        text: str,
        voice: Voice,
        language: Language,
        *,
        seed: int,
        priority: Priority,
        context: Context,
        options: SpeechOptions = NO_OPTIONS,
        buffer_low: Callable[[], bool] = lambda: False,
    ) -> Iterator[Audio]:
        """Yield `text` (written form, any length) as speech at 24 kHz, a few seconds at a time.

        English text with Chinese characters is spoken with the Mandarin base voice, so that a piece has one voice;
        without Kokoro the characters are left out, with a pause. `seed`, `priority`, `options` and `buffer_low` change
        nothing. Text without letters or digits yields nothing. Raises ModelNotInstalled for Chinese without Kokoro,
        SynthesisFailed when a network fails or the text has no phonemes, and the reason if `context` ends.
        """
        if language not in self.languages:
            raise ModelNotInstalled("Kokoro is not installed: run .venv/bin/mirrorchat models install small")
        asker = voice.profile if isinstance(voice, TintVoice) and self._tint is not None else None
        for piece in split_text(normalize_text(text, language, _SCRIPTS), language, _PIECE_CHARS[language]):
            if not any(map(str.isalnum, piece)):
                continue  # punctuation alone is silent rightly
            context.check()
            mandarin = has_han(piece) and Language.CHINESE in self.languages
            yield at_level(self._speak_piece(piece, asker, Language.CHINESE if mandarin else language, context))

    def words(self, text: str) -> list[str]:
        """Return the words of `text`, which consists of Chinese characters only."""
        return self._speech.words(text)

    def check_ready(self) -> None:
        """Do nothing: the networks are in this process, and a failure costs one sentence."""

    def close(self) -> None:
        """Do nothing: the networks are freed with the engine."""

    def _speak_piece(self, piece: str, asker: Profile | None, language: Language, context: Context) -> Audio:
        base = self.base(asker, language)
        neutral = self._speech.speak(piece, base, context)
        if neutral is None:
            raise SynthesisFailed("the sentence is in letters that the small voices cannot read")
        context.check()
        if self._tint is None or asker is None:
            return neutral
        tinted = self._tint.apply(neutral, self._profiles[base], asker, strength=_STRENGTH)
        context.check()
        return brightened(with_high_band(tinted, neutral))

    def base(self, asker: Profile | None, language: Language) -> BaseVoice:
        """Return the base voice of `language` that is nearest to the asker; without an asker, the first one."""
        if asker is None:
            return next(voice for voice in self._voices if voice.language is language)
        return nearest(self._profiles, asker, language)

    def _measure_bases(self, tint: VoiceTint, known: MeasuredFile) -> dict[BaseVoice, Profile]:
        return {voice: self._measured(voice, tint, known) for voice in self._voices}

    def _measured(self, voice: BaseVoice, tint: VoiceTint, known: MeasuredFile) -> Profile:
        """Return the profile of a base voice that is known, or measure it."""
        kokoro = self._speech.kokoro
        fingerprint = kokoro.fingerprint(voice.name) if kokoro and voice.name != HIBARI_VOICE else ""
        found = known.get(voice, fingerprint)
        if found is not None:
            return found
        speech = self._speech.speak(CALIBRATION[voice.language], voice, Context())
        profile = tint.profile(speech, clean=True) if speech else None
        if profile is None:
            raise ConfigurationError(f"the base voice {voice.name} cannot be measured: its speech is not voiced")
        known.put(voice, fingerprint, profile)
        return profile
