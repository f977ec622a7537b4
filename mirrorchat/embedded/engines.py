"""The engines that need no downloaded weights, no GPU and no torch: what answers on a fresh machine.

English is recognized by pocketsphinx (word error rate 21 % on short human recordings), speech is eSpeak NG's, coloured
toward the asker where pyworld is installed ("voice tint": sex, pitch and colour; not a clone), and a parrot chats.
Nothing here recognizes Chinese.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mirrorchat.audio.samples import Audio, pcm16_bytes
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.embedded.voice_tint import (
    DIFFERENT_TO,
    SAME_FROM,
    Profile,
    TintVoice,
    VoiceTint,
    similarity,
    speaker_features,
)
from mirrorchat.embedded.workers.espeak import Espeak
from mirrorchat.embedded.workers.pocketsphinx_worker import SAMPLE_RATE_HZ
from mirrorchat.embedded.workers.process import RETRY_S, WorkerFailed, WorkerProcesses
from mirrorchat.engines import (
    SPEECH_NEEDED_S,
    EngineInfo,
    Language,
    Message,
    Priority,
    SpeakerEmbedding,
    Transcript,
    Voice,
    VoiceKind,
    judge_similarity,
    too_little_speech,
)
from mirrorchat.errors import (
    ChatFailure,
    ConfigurationError,
    ModelNotInstalled,
    NotReady,
    RecognitionFailed,
    SynthesisFailed,
)
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import split_text
from mirrorchat.turn.context import Context

_MIN_WORD_S = 0.1  # speech for less than this (three frames) is a click that the detector fell for
_RECOGNITION_PEAK = 0.3

_MAX_REFERENCE_S = 20.0  # 2 s tell nearly all; more than this only costs time
# At most some 10 s of speech a piece: native calls stay short and the first piece comes early.
_PIECE_CHARS = {Language.ENGLISH: 140, Language.CHINESE: 40}
_SPEECH_LEVEL = 0.1  # root mean square of the loud frames, -20 dB of full scale
_PEAK_LIMIT = 0.95
_LEVEL_FRAME_S = 0.02

# What the synthetic speaker is like is measured on these: all vowels and most consonants of each language.
_CALIBRATION = {
    Language.ENGLISH: "We saw a huge boat leave the quiet harbour, while five children played with yellow balls. "
    "Their teacher usually enjoys good books about food, sugar and the weather.",
    Language.CHINESE: "早上我和朋友去公园散步，看见湖边有许多红色的花。"
    "女儿问老师，为什么春天会下雨？他们坐车回家，喝了一杯热茶。",
}


class EmbeddedRecognizer:
    """English speech to text by pocketsphinx, in warm processes of its own, behind a speech gate.

    Thread-safe and deterministic; each of `processes` (about 120 MB) answers one caller at a time. Raises
    ConfigurationError when pocketsphinx cannot be loaded.
    """

    def __init__(self, processes: int = 1) -> None:
        self._workers = WorkerProcesses("mirrorchat.embedded.workers.pocketsphinx_worker", processes)
        _warm_up(self._workers, "pocketsphinx")
        self.info = EngineInfo("embedded", f"pocketsphinx {version('pocketsphinx')}", "cpu")

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Return what is said in `audio` (any rate); `hotwords` are not used.

        The text is empty when there is no speech in it: pocketsphinx by itself hears words in noise and in silence.
        Raises ValueError for any language but English, and what ends `context`.
        """
        if language is not Language.ENGLISH:
            raise ValueError("pocketsphinx recognizes English only")
        span = find_speech(audio)
        context.check()
        if span.speech_s < _MIN_WORD_S:
            return Transcript("", language)
        speech = trim_to_speech(audio, span).resample(SAMPLE_RATE_HZ)
        samples = speech.samples * (_RECOGNITION_PEAK / max(float(np.abs(speech.samples).max(initial=0.0)), 1e-6))
        limit_s = 20.0 + 3.0 * speech.duration_s  # it takes a fifth of the duration on a free core
        try:
            heard = self._workers.request(pcm16_bytes(samples), limit_s=limit_s, context=context)
        except WorkerFailed as error:
            raise RecognitionFailed(f"the question could not be recognized: pocketsphinx: {error}") from None
        return Transcript(sentence_case(heard.decode(errors="replace")), language)

    def check_ready(self) -> None:
        """Raise NotReady while pocketsphinx's process, started again after its end, does not start."""
        _check_start(self._workers, "pocketsphinx")

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


_BUILD_HINT = "apt install build-essential python3-dev, and start again"
_WHY_MISSING = {
    Language.CHINESE: "only WeNet recognizes Chinese: .venv/bin/mirrorchat models install wenet-zh",
    Language.ENGLISH: f"pocketsphinx is not installed: {_BUILD_HINT}",
}


class MissingRecognizer:
    """Stands where a recognizer would: tells callers how to install one. `folder` is where WeNet's files belong."""

    def __init__(self, language: Language, folder: Path) -> None:
        self._message = _how_to_install(language, folder)
        self.info = EngineInfo("none", f"no {language.value.capitalize()} model", "", _WHY_MISSING[language])

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Raise ModelNotInstalled with the folder, the files and the command."""
        raise ModelNotInstalled(self._message, param="language")

    def check_ready(self) -> None:
        """The server is as ready as it was meant to be: the other language may be there."""

    def close(self) -> None:
        """Nothing to free."""


class EmbeddedSynthesizer:
    """Speech by eSpeak NG in a process of its own, coloured toward the asker by WORLD.

    Thread-safe and deterministic: the seed changes nothing, the same text and voice always sound the same. Without
    pyworld every voice is neutral. Raises ConfigurationError when eSpeak NG cannot be loaded.
    """

    sample_rate = 24_000

    def __init__(self) -> None:
        self._espeak = Espeak()
        _warm_up(self._espeak, "eSpeak NG")
        self._tint: VoiceTint | None = None
        self._sources: dict[Language, Profile] = {}
        model, reason = "eSpeak NG klatt4", ""
        try:
            self._tint = VoiceTint()
            with ThreadPoolExecutor(len(Language)) as pool:  # WORLD lets other threads run: half the time on two cores
                profiles = pool.map(partial(self._measure_source, self._tint), Language)
                self._sources = dict(zip(Language, profiles, strict=True))
            model += " with WORLD voice tint"
        except ImportError:
            reason = f"pyworld is not installed, so the voice is not tinted: {_BUILD_HINT}"
        self.info = EngineInfo("embedded", model, "cpu", reason)

    def voice(self, references: Sequence[Audio]) -> TintVoice:
        """Return the voice heard in `references` (any rates), or a neutral one that says why it is neutral.

        At most 20 s of speech are used, from the first reference on; under 1 s of speech is not enough.
        """
        if self._tint is None:
            return TintVoice(VoiceKind.NEUTRAL, "pyworld is not installed")
        speech, speech_s = _gather_speech(references)
        if speech_s < SPEECH_NEEDED_S:
            return TintVoice(VoiceKind.NEUTRAL, too_little_speech(speech_s))
        profile = self._tint.profile(speech)
        if profile is None:
            return TintVoice(VoiceKind.NEUTRAL, "no voiced speech in it")
        return TintVoice(VoiceKind.TINT, "coloured toward the speaker", profile)

    @property
    def voice_model(self) -> str:
        """Return the method that its voices' numbers are of."""
        return "WORLD voice tint 1"

    def restore(self, data: bytes) -> TintVoice:
        """Return the voice that `TintVoice.to_bytes` wrote. Raises ValueError for anything else."""
        return TintVoice.from_bytes(data)

    def embed_speaker(self, speech: Audio) -> SpeakerEmbedding | None:
        """Return pitch and colour of `speech` (its first 20 s), or None when it is not voiced or pyworld is missing."""
        if self._tint is None:
            return None
        start = speech.samples[: int(_MAX_REFERENCE_S * speech.sample_rate)]
        profile = self._tint.profile(Audio(start, speech.sample_rate))
        return None if profile is None else speaker_features(profile)

    def same_speaker(self, first: SpeakerEmbedding, second: SpeakerEmbedding) -> bool | None:
        """Return whether two embeddings are of one speaker; None in doubt, which is often: this is no speaker model."""
        return judge_similarity(similarity(first, second), same_from=SAME_FROM, different_to=DIFFERENT_TO)

    def speak(
        self,
        text: str,
        voice: Voice,
        language: Language,
        *,
        seed: int,
        priority: Priority,
        context: Context,
        buffer_low: Callable[[], bool] = lambda: False,
    ) -> Iterator[Audio]:
        """Yield `text` (written form, any length) as speech at 24 kHz, a few seconds at a time.

        `seed`, `priority` and `awaited` change nothing. Text without letters or digits yields nothing. Raises
        SynthesisFailed when eSpeak NG fails (the next sentence gets a new process), and what ends `context`.
        """
        profile = voice.profile if isinstance(voice, TintVoice) else None
        for piece in split_text(normalize_text(text, language), language, _PIECE_CHARS[language]):
            spoken = self._espeak.speak(piece, language, context=context)
            speech = spoken.audio
            if not spoken.phonemes.strip():
                _check_unspeakable(piece)
                continue
            if profile is not None and self._tint is not None:
                speech = self._tint.apply(speech, self._sources[language], profile)
            context.check()
            yield _at_level(speech.resample(self.sample_rate))

    def check_ready(self) -> None:
        """Raise NotReady while eSpeak NG's process, started again after its end, does not start."""
        _check_start(self._espeak, "eSpeak NG")

    def close(self) -> None:
        """End the eSpeak NG process."""
        self._espeak.close()

    def _measure_source(self, tint: VoiceTint, language: Language) -> Profile:
        speech = self._espeak.speak(_CALIBRATION[language], language, context=Context()).audio
        profile = tint.profile(speech, clean=True)
        if profile is None:
            raise ConfigurationError("eSpeak NG's speech cannot be measured: it is not voiced")
        return profile


class ParrotChat:
    """Answers when no chat API is set: says so, and says the question back, so that the whole way can be heard."""

    info = EngineInfo(
        "parrot", "says the question back", "", "no chat API is set: config.example.py shows how to set chatgpt_apis"
    )

    def stream(
        self, messages: Sequence[Message], *, context: Context, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[str]:
        """Yield one sentence that says that no chat API is set, then the last user message, in its language."""
        question = next((message.content.strip() for message in reversed(messages) if message.role == "user"), "")
        context.check()
        if re.search(r"[\u3400-\u9fff]", question):
            yield "还没有设置聊天接口，我只能把您的话重复一遍。"
            said_back = f"您说的是：{question}"
            full_stop = "。"
        else:
            yield "No chat API is set, so I can only repeat what you say. "
            said_back = f"You said: {question}" if question else ""
            full_stop = "."
        context.check()
        if said_back:
            yield said_back if said_back[-1] in "。！？.!?" else said_back + full_stop

    def close(self) -> None:
        """Nothing to free."""


def sentence_case(words: str) -> str:
    """Return recognized lower-case English as a person writes it: first letter and the word "I" in capitals.

    Marks of pocketsphinx's dictionary are taken out: "the(2)" is "the" said another way, "<sil>" and "[NOISE]" are
    no words.
    """
    kept = [re.sub(r"\(\d+\)$", "", word) for word in words.split() if word[0] not in "<[+"]
    text = re.sub(r"\bi\b", "I", " ".join(kept))
    return text[:1].upper() + text[1:]


def _how_to_install(language: Language, folder: Path) -> str:
    """Return what to do about a language that nothing here recognizes, as one sentence with a command to copy."""
    missing, model = {
        Language.CHINESE: ("WeNet", "wenetspeech_u2pp_conformer"),
        Language.ENGLISH: ("WeNet or pocketsphinx", "librispeech_u2pp_conformer"),
    }[language]
    return (
        f"{language.value.capitalize()} speech cannot be recognized without {missing}: run .venv/bin/mirrorchat models "
        f"install wenet-{language.code} and start again (it puts WeNet's {model} into {folder}), "
        f"or send what was said in the form field 'text'"
    )


def _warm_up(child: WorkerProcesses | Espeak, name: str) -> None:
    try:
        child.warm_up()
    except WorkerFailed as error:
        child.close()
        raise ConfigurationError(f"{name} cannot be loaded: {error}") from error


def _check_start(child: Espeak | WorkerProcesses, name: str) -> None:
    """Raise NotReady when a process of the engine `name` has just failed to start."""
    try:
        child.check_start()
    except WorkerFailed as error:
        raise NotReady(f"{name} does not start: {error}", retry_after_s=math.ceil(RETRY_S)) from None


def _gather_speech(references: Sequence[Audio]) -> tuple[Audio, float]:
    """Return the speech in `references` as one recording (16 kHz), and how many seconds of speech it holds."""
    parts = [np.zeros(0, np.float32)]
    speech_s = 0.0
    for reference in references:
        room_s = _MAX_REFERENCE_S - speech_s
        span = find_speech(reference)
        if room_s <= 0 or not span.speech_s:
            continue
        speech = trim_to_speech(reference.resample(SAMPLE_RATE_HZ), span)
        share = min(1.0, room_s / span.speech_s)
        parts.append(speech.samples[: int(len(speech.samples) * share)])
        speech_s += span.speech_s * share
    return Audio(np.concatenate(parts), SAMPLE_RATE_HZ), speech_s


def _at_level(audio: Audio) -> Audio:
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


def _check_unspeakable(piece: str) -> None:
    """Raise SynthesisFailed when words were lost; punctuation alone is silent rightly."""
    if any(character.isalnum() for character in piece):
        raise SynthesisFailed("the sentence is in letters that eSpeak NG cannot read")
