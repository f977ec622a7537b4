"""The seams between the turn and the engines: protocols, result types, and the choice of engines at startup."""

import enum
import importlib.util
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from mirrorchat.audio import Audio
from mirrorchat.errors import ChatFailure, ConfigurationError, DeadlineExceeded, MirrorChatError
from mirrorchat.settings import Settings


class Language(enum.StrEnum):
    """A language that MirrorChat hears and speaks."""

    CHINESE = "chinese"
    ENGLISH = "english"

    @property
    def code(self) -> str:
        """Return the ISO 639-1 code: `zh` or `en`."""
        return {"chinese": "zh", "english": "en"}[self.value]

    @classmethod
    def parse(cls, name: str) -> "Language":
        """Return the language called `name` (`chinese`, `zh`, `zh-CN`, `english`, `en`, ...; any case).

        Raises ValueError, which lists the choices, for any other name.
        """
        names = {"chinese": cls.CHINESE, "zh": cls.CHINESE, "zh-cn": cls.CHINESE,
                 "english": cls.ENGLISH, "en": cls.ENGLISH}  # fmt: skip
        try:
            return names[name.strip().lower().replace("_", "-")]
        except KeyError:
            raise ValueError(f"unknown language; choose one of {', '.join(names)}") from None


class Priority(enum.IntEnum):
    """How urgent a sentence is to its listener: the first one is waited for, later ones play after it."""

    FIRST = 0
    LATER = 1


class Cancel:
    """A one-way switch that ends a turn from another thread, with the error that the turn's caller shall see."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason: MirrorChatError | None = None

    def set(self, reason: MirrorChatError) -> None:
        """End the turn with `reason`. Only the first reason counts."""
        if self._reason is None:
            self._reason = reason
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds; return whether the switch is set."""
        return self._event.wait(timeout_s)

    def check(self) -> None:
        """Raise the reason when the switch is set."""
        if self._event.is_set() and self._reason is not None:
            raise self._reason


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock (seconds) after which nobody waits for the result any more."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Return the seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineExceeded when the moment has passed."""
        if time.monotonic() >= self.at:
            raise DeadlineExceeded("the turn took longer than the server allows")


@dataclass(frozen=True)
class EngineInfo:
    """What answers at a stage: `name` (as in the settings), `model`, `device`, and `reason` why it was chosen."""

    name: str
    model: str
    device: str
    reason: str = ""


@dataclass(frozen=True)
class Transcript:
    """What was said, as a person writes it. `text` is empty when no words were heard."""

    text: str
    language: Language


@dataclass(frozen=True)
class Message:
    """One message of a chat, as in OpenAI's API."""

    role: Literal["system", "user", "assistant"]
    content: str


class VoiceKind(enum.StrEnum):
    """How close a voice is to the asker's: cloned, coloured toward it, or nobody's in particular."""

    CLONE = "clone"
    TINT = "tint"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Voice:
    """A voice to speak with: immutable, no audio inside. Each synthesiser adds what it needs in a subclass.

    `reason` says in a few ASCII words why the voice is of this kind, e.g. "0.4 s of speech, 1 s is needed".
    """

    kind: VoiceKind
    reason: str


class Recognizer(Protocol):
    """Turns speech into words. Thread-safe; deterministic."""

    info: EngineInfo

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), cancel: Cancel
    ) -> Transcript:
        """Return what is said in `audio` (any rate). No words give an empty text, never an error."""
        ...

    def close(self) -> None: ...


class ChatModel(Protocol):
    """Answers a chat. Thread-safe."""

    info: EngineInfo

    def stream(
        self, messages: Sequence[Message], *, deadline: Deadline, cancel: Cancel, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[str]:
        """Yield the answer in pieces as they come.

        APIs named in `failed` (from an earlier ChatInterrupted of the same turn) are not tried again. Raises
        NoChatApi when none answered, ChatInterrupted when a stream broke after its first piece was yielded.
        """
        ...

    def close(self) -> None: ...


class Synthesizer(Protocol):
    """Speaks text in a voice. Thread-safe; the same text, voice and seed give the same samples."""

    info: EngineInfo
    sample_rate: int

    def voice(self, references: Sequence[Audio]) -> Voice:
        """Return the voice heard in `references`, or a neutral one that says why it is neutral."""
        ...

    def speak(
        self,
        text: str,
        voice: Voice,
        language: Language,
        *,
        seed: int,
        priority: Priority,
        deadline: Deadline,
        cancel: Cancel,
    ) -> Iterator[Audio]:
        """Yield `text` (written form) as speech at `sample_rate`, in order, nothing lost however long it is."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Engines:
    """What answers at each stage. One engine may serve both languages."""

    recognizers: Mapping[Language, Recognizer]
    chat: ChatModel
    synthesizers: Mapping[Language, Synthesizer]

    def infos(self) -> dict[str, EngineInfo]:
        """Return what runs, by stage: `recognizer.zh`, `recognizer.en`, `chat`, `synthesizer.zh`, `synthesizer.en`."""
        stages = {f"recognizer.{language.code}": engine.info for language, engine in self.recognizers.items()}
        stages["chat"] = self.chat.info
        return stages | {f"synthesizer.{language.code}": engine.info for language, engine in self.synthesizers.items()}

    def close(self) -> None:
        """Free every engine, each once."""
        engines: list[Recognizer | ChatModel | Synthesizer] = [
            *self.recognizers.values(), self.chat, *self.synthesizers.values()
        ]  # fmt: skip
        for engine in {id(engine): engine for engine in engines}.values():
            engine.close()


def build_engines(settings: Settings) -> Engines:
    """Load what `settings` choose: a named engine must start, `auto` takes the real one when its weights are here.

    Raises ConfigurationError or ModelNotInstalled when a chosen engine cannot start. Heavy packages are imported here,
    in the branch that needs them.
    """
    synthesizers = _build_synthesizers(settings)
    recognizers = {language: _build_recognizer(settings, language) for language in Language}
    return Engines(recognizers, _build_chat(settings), synthesizers)


WENET_FILES = ("final.zip", "units.txt")
WENET_PACKAGES = ("torch", "kaldi_native_fbank")
XTTS_FILES = ("config.json", "vocab.json", "model.safetensors")
XTTS_PACKAGES = ("torch", "torchaudio", "TTS", "transformers")


def _build_chat(settings: Settings) -> ChatModel:
    if settings.chatgpt_apis:
        from mirrorchat.llm import ChatClient

        return ChatClient(settings.chatgpt_apis, cooldown_s=settings.chat_cooldown_s)
    from mirrorchat.embedded import ParrotChat

    return ParrotChat()


def _build_recognizer(settings: Settings, language: Language) -> Recognizer:
    folder = settings.models_dir / f"wenet-{language.code}"
    name, reason = _choose(
        settings.recognizer[language.value], "wenet", _missing(folder, WENET_FILES, WENET_PACKAGES), folder
    )
    engine: Recognizer
    if name == "wenet":
        _require_packages("wenet", WENET_PACKAGES)
        from mirrorchat.asr import WenetRecognizer

        engine = WenetRecognizer(folder, language, threads=settings.threads)
    else:
        engine = _build_embedded_recognizer(language, folder, required=reason == NAMED)
    engine.info = replace(engine.info, reason=_join(reason, engine.info.reason))
    return engine


def _build_embedded_recognizer(language: Language, folder: Path, *, required: bool) -> Recognizer:
    """Return the embedded recogniser, or what tells callers how to install one where there is none."""
    from mirrorchat.embedded import EmbeddedRecognizer, MissingRecognizer

    if language is Language.ENGLISH and (required or importlib.util.find_spec("pocketsphinx")):
        return EmbeddedRecognizer()
    return MissingRecognizer(language, folder)


def _build_synthesizers(settings: Settings) -> dict[Language, Synthesizer]:
    """Return a synthesiser for each language; languages that use the same engine share it."""
    folder = settings.models_dir / "xtts-v2"
    missing = _missing(folder, XTTS_FILES, XTTS_PACKAGES)
    built: dict[str, Synthesizer] = {}
    chosen: dict[Language, Synthesizer] = {}
    for language in Language:
        name, reason = _choose(settings.synthesizer[language.value], "xtts", missing, folder)
        if name not in built:
            engine = _build_synthesizer(name, settings, folder)
            engine.info = replace(engine.info, reason=_join(reason, engine.info.reason))
            built[name] = engine
        chosen[language] = built[name]
    return chosen


def _build_synthesizer(name: str, settings: Settings, folder: Path) -> Synthesizer:
    if name == "xtts":
        _require_packages("xtts", XTTS_PACKAGES)
        from mirrorchat.synth import XttsSynthesizer

        return XttsSynthesizer(folder, device=settings.device, threads=settings.threads)
    from mirrorchat.embedded import EmbeddedSynthesizer

    return EmbeddedSynthesizer()


def _choose(choice: str, real: str, missing: str, folder: Path) -> tuple[str, str]:
    """Return the engine's name and why it was chosen. `missing` says what keeps the real one from starting, if any."""
    if choice != "auto":
        return choice, NAMED
    return ("embedded", missing) if missing else (real, f"its weights are in {folder}")


def _missing(folder: Path, files: Sequence[str], packages: Sequence[str]) -> str:
    """Return what an engine lacks, weights first, or an empty text."""
    absent = [name for name in files if not _is_present(folder, name)]
    if absent:
        return f"no {', '.join(absent)} in {folder}"
    packages = [name for name in packages if not importlib.util.find_spec(name)]
    return f"{folder} is there, but {FULL_HINT.format(', '.join(packages))}" if packages else ""


def _is_present(folder: Path, name: str) -> bool:
    """Tell whether a weight file is there; XTTS's pickle does when it has not been converted to safetensors."""
    return (folder / name).is_file() or (name == "model.safetensors" and (folder / "model.pth").is_file())


NAMED = "named in the settings"
FULL_HINT = "{} is not installed: run scripts/serve --full"


def _require_packages(engine: str, packages: Sequence[str]) -> None:
    absent = [name for name in packages if not importlib.util.find_spec(name)]
    if absent:
        raise ConfigurationError(f"engine {engine}: {FULL_HINT.format(', '.join(absent))}")


def _join(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)
