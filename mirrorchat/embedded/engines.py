"""The engines that need no downloaded weights, no GPU and no torch. They answer right after installation.

pocketsphinx recognizes English (word error rate 21 % on short human recordings). eSpeak NG speaks both languages; where
pyworld is installed, the voice tint moves pitch and timbre toward the asker's, which is no clone. A parrot stands in
for the chat. No engine here recognizes Chinese.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mirrorchat.audio.samples import Audio, pcm16_bytes
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.reference_speech import TintedSpeakers, at_level
from mirrorchat.embedded.voice_tint import PROFILE_SIZE, Profile, TintVoice, VoiceTint, similarity, speaker_features
from mirrorchat.embedded.workers.espeak import VARIANTS, Espeak
from mirrorchat.embedded.workers.pocketsphinx_worker import SAMPLE_RATE_HZ
from mirrorchat.embedded.workers.process import RETRY_S, WorkerFailed, WorkerProcesses
from mirrorchat.engines import EngineInfo, Language, Message, Priority, Tier, Transcript, Voice
from mirrorchat.errors import (
    ChatFailure,
    ConfigurationError,
    ModelNotInstalled,
    NotReady,
    RecognitionFailed,
    SynthesisFailed,
)
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import split_text

_MIN_WORD_S = 0.1  # shorter speech (three frames) is a click that the detector took for speech
_RECOGNITION_PEAK = 0.3

# A piece has at most some 10 s of speech, so that native calls stay short and the first piece is ready early.
_PIECE_CHARS = {Language.ENGLISH: 140, Language.CHINESE: 40}

# The synthetic speakers' voices are measured on these texts, which hold all vowels and most consonants of a language.
# Measuring takes 2 s of a core for each, and gives the same every time: a file holds what it gave.
SOURCE_PROFILES = Path(__file__).with_name("espeak_profiles.bin")
_CALIBRATION = {
    Language.ENGLISH: "We saw a huge boat leave the quiet harbour, while five children played with yellow balls. "
    "Their teacher usually enjoys good books about food, sugar and the weather.",
    Language.CHINESE: "早上我和朋友去公园散步，看见湖边有许多红色的花。"
    "女儿问老师，为什么春天会下雨？他们坐车回家，喝了一杯热茶。",
}


class _InWorkers:
    """An engine whose `library` runs in worker processes. Raises ConfigurationError if the library cannot be loaded."""

    def __init__(self, workers: WorkerProcesses, library: str) -> None:
        self._workers = workers
        self._library = library
        try:
            workers.warm_up()
        except WorkerFailed as error:
            workers.close()
            raise ConfigurationError(f"{library} cannot be loaded: {error}") from error

    def check_ready(self) -> None:
        """Raise NotReady when a worker process has just failed to start again."""
        try:
            self._workers.check_start()
        except WorkerFailed as error:
            raise NotReady(f"{self._library} does not start: {error}", retry_after_s=math.ceil(RETRY_S)) from None

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()


class EmbeddedRecognizer(_InWorkers):
    """Recognizes English with pocketsphinx, in `processes` worker processes.

    Thread-safe and deterministic. Each process takes about 120 MB and answers one caller at a time.
    """

    def __init__(self, processes: int = 1) -> None:
        module = "mirrorchat.embedded.workers.pocketsphinx_worker"
        super().__init__(WorkerProcesses(module, processes), "pocketsphinx")
        self.info = EngineInfo("embedded", f"pocketsphinx {version('pocketsphinx')}", "cpu", "", Tier.FLOOR)

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Return the transcript of `audio` (any rate); `hotwords` change nothing.

        The voice activity detector decides whether there is speech: pocketsphinx itself recognizes words in noise and
        in silence. Raises ValueError for any language but English, and as `Recognizer.recognize` does.
        """
        if language is not Language.ENGLISH:
            raise ValueError("pocketsphinx recognizes English only")
        span = find_speech(audio)
        context.check()
        if span.speech_s < _MIN_WORD_S:
            return Transcript("", language)
        speech = trim_to_speech(audio, span).resample(SAMPLE_RATE_HZ)
        samples = speech.samples * (_RECOGNITION_PEAK / max(float(np.abs(speech.samples).max(initial=0.0)), 1e-6))
        limit_s = 10.0 + 3.0 * speech.duration_s  # it takes a fifth of the duration on a free core
        try:
            words = self._workers.request(pcm16_bytes(samples), limit_s=limit_s, context=context)
        except WorkerFailed as error:
            raise RecognitionFailed(f"the question could not be recognized: pocketsphinx: {error}") from None
        return Transcript(sentence_case(words.decode(errors="replace")), language)


BUILD_HINT = "`sudo apt install build-essential python3-dev`, and start again"
_WHY_MISSING = {
    Language.CHINESE: "no installed model recognizes Chinese: .venv/bin/mirrorchat models install small",
    Language.ENGLISH: f"pocketsphinx is not installed: {BUILD_HINT}",
}


class MissingRecognizer:
    """Tells the callers of a language without a recognizer how to install one. WeNet's files belong into `folder`."""

    def __init__(self, language: Language, folder: Path) -> None:
        self._message = _how_to_install(language, folder)
        model = f"no {language.value.capitalize()} model"
        self.info = EngineInfo("none", model, "", _WHY_MISSING[language], Tier.FLOOR)

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Raise ModelNotInstalled with the folder, the files and the command."""
        raise ModelNotInstalled(self._message, param="language")

    def check_ready(self) -> None:
        """Do nothing: the server is as ready as its installation allows, and may recognize the other language."""

    def close(self) -> None:
        """Do nothing: it holds nothing."""


class EmbeddedSynthesizer(TintedSpeakers, _InWorkers):
    """Speaks with eSpeak NG in a worker process; WORLD moves the voice toward the asker's.

    It begins with the variant of eSpeak NG's voice that is nearest to the asker's. Thread-safe and deterministic: the
    same text and voice always sound the same, whatever the seed. Without pyworld every voice is neutral.
    """

    sample_rate = 24_000
    voice_note = "; eSpeak NG's Mandarin is hard to understand"

    def __init__(self) -> None:
        self._espeak = Espeak()
        super().__init__(self._espeak, "eSpeak NG")
        self._tint: VoiceTint | None = None
        self._sources: dict[Language, dict[str, Profile]] = {}
        model, reason = "eSpeak NG", ""
        try:
            self._tint = VoiceTint()
            self._sources = read_source_profiles()
            model += " with WORLD voice tint"
        except ImportError:
            reason = f"pyworld is not installed, so the voice is not tinted: {BUILD_HINT}"
        self.info = EngineInfo("embedded", model, "cpu", reason, Tier.FLOOR)

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

        `seed`, `priority`, `options` and `buffer_low` change nothing. Text without letters or digits yields nothing.
        Raises SynthesisFailed when eSpeak NG fails (the next sentence gets a new process), and the reason if `context`
        ends.
        """
        profile = voice.profile if isinstance(voice, TintVoice) and self._tint is not None else None
        variant = VARIANTS[language][0] if profile is None else self.nearest_variant(profile, language)
        for piece in split_text(normalize_text(text, language), language, _PIECE_CHARS[language]):
            spoken = self._espeak.speak(piece, language, variant, context=context)
            speech = spoken.audio
            if not spoken.phonemes.strip():
                _check_unspeakable(piece)
                continue
            if profile is not None and self._tint is not None:
                speech = self._tint.apply(speech, self._sources[language][variant], profile)
            context.check()
            yield at_level(speech.resample(self.sample_rate))

    def nearest_variant(self, asker: Profile, language: Language) -> str:
        """Return the variant of eSpeak NG's voice in `language` that is most similar to the asker's voice."""
        features, sources = speaker_features(asker), self._sources[language]
        return max(sources, key=lambda variant: similarity(speaker_features(sources[variant]), features))


def measure_source(language: Language, variant: str) -> Profile:
    """Return the profile of a variant of eSpeak NG's voice in `language`, measured anew, which takes seconds.

    Raises ImportError when pyworld is not installed, SynthesisFailed when eSpeak NG fails, and ConfigurationError when
    the speech is not voiced.
    """
    with contextlib.closing(Espeak()) as espeak:
        speech = espeak.speak(_CALIBRATION[language], language, variant, context=Context()).audio
    profile = VoiceTint().profile(speech, clean=True)
    if profile is None:
        raise ConfigurationError(f"eSpeak NG's voice {variant} cannot be measured: its speech is not voiced")
    return profile


def read_source_profiles() -> dict[Language, dict[str, Profile]]:
    """Return the profile of each variant in each language, as scripts/make_espeak_profiles.py measured it."""
    data, size = SOURCE_PROFILES.read_bytes(), 8 * PROFILE_SIZE
    profiles = (Profile.from_bytes(data[at : at + size]) for at in range(0, len(data), size))
    return {language: {variant: next(profiles) for variant in VARIANTS[language]} for language in Language}


HOW_TO_SET_A_CHAT_API = "no chat API is set: set OPENAI_API_KEY or MIRRORCHAT_CHAT_URL, or chatgpt_apis in config.py"


class ParrotChat:
    """Answers when no chat API is set: it says so and repeats the question, so that every other stage can be tried."""

    def __init__(self, reason: str = "") -> None:
        self.info = EngineInfo("parrot", "says the question back", "", reason or HOW_TO_SET_A_CHAT_API)

    def stream(
        self, messages: Sequence[Message], *, context: Context, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[str]:
        """Yield a sentence which says that no chat API is set, then the last user message, both in its language."""
        question = next((message.content.strip() for message in reversed(messages) if message.role == "user"), "")
        context.check()
        if re.search(r"[\u3400-\u9fff]", question):
            yield "还没有设置聊天接口，我只能把您的话重复一遍。"
            repetition, full_stop = f"您说的是：{question}", "。"
        else:
            yield "No chat API is set, so I can only repeat what you say. "
            repetition, full_stop = f"You said: {question}" if question else "", "."
        context.check()
        if repetition:
            yield repetition if repetition[-1] in "。！？.!?" else repetition + full_stop

    def close(self) -> None:
        """Do nothing: it holds nothing."""


def sentence_case(words: str) -> str:
    """Return recognized lower-case English as a person writes it: first letter and the word "I" in capitals.

    Marks of pocketsphinx's dictionary are removed: "the(2)" is another pronunciation of "the", and "<sil>" and
    "[NOISE]" are no words.
    """
    kept = [re.sub(r"\(\d+\)$", "", word) for word in words.split() if word[0] not in "<[+"]
    text = re.sub(r"\bi\b", "I", " ".join(kept))
    return text[:1].upper() + text[1:]


def _how_to_install(language: Language, folder: Path) -> str:
    """Return how to install a recognizer for `language`, as one sentence with a command to copy."""
    model = {Language.CHINESE: "wenetspeech_u2pp_conformer", Language.ENGLISH: "librispeech_u2pp_conformer"}[language]
    return (
        f"{language.value.capitalize()} speech cannot be recognized without a model: run .venv/bin/mirrorchat models "
        f"install small and start again; .venv/bin/mirrorchat models install wenet-{language.code} installs WeNet "
        f"instead (it puts WeNet's {model} into {folder})"
    )


def _check_unspeakable(piece: str) -> None:
    """Raise SynthesisFailed for a piece with letters or digits; a piece of punctuation is silent rightly."""
    if any(character.isalnum() for character in piece):
        raise SynthesisFailed("the sentence is in letters that eSpeak NG cannot read")
