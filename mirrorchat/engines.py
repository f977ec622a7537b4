"""The seams between the turn and the engines: protocols and result types."""

import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio
from mirrorchat.errors import ChatFailure
from mirrorchat.turn.context import Context


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


@dataclass(frozen=True)
class EngineInfo:
    """What answers at a stage: `name` (as in the settings), `model`, `device`, and `reason` why it was chosen."""

    name: str
    model: str
    device: str
    reason: str = ""


@dataclass(frozen=True)
class SpokenToken:
    """A recognizer's token (a character, or a piece of a word) with its times and its confidence.

    Times are in seconds from the start of the recording; `confidence` is in [0, 1].
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class TimedWord:
    """A word, or a Chinese character, with its times in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """The text of a recording, as a person writes it. `text` is empty when no words were heard.

    A recognizer that knows times sets `tokens` and `words` (the same speech, written as in `text`); `confidence` is in
    [0, 1], None where the recognizer does not know it.
    """

    text: str
    language: Language
    tokens: tuple[SpokenToken, ...] = ()
    confidence: float | None = None
    words: tuple[TimedWord, ...] = ()


@dataclass(frozen=True)
class PartialTranscript:
    """What has been said so far of speech that goes on.

    `text` is written as if speech ended here, and may change. `stable_text` is its beginning that no later sound can
    change: every later text, and the transcript, begins with it. It ends with a whole word; a Chinese character is one.
    `heard_s` are the seconds of sound that the text covers.
    """

    text: str
    stable_text: str
    heard_s: float


@dataclass(frozen=True)
class Message:
    """One message of a chat, as in OpenAI's API."""

    role: Literal["system", "user", "assistant"]
    content: str


SPEECH_NEEDED_S = 1.0  # of speech in its references; with less a voice stays neutral
REFERENCE_LIMIT_S = 30.0  # of its references: as much as XTTS takes


def too_little_speech(speech_s: float) -> str:
    """Return why a voice is neutral whose references hold `speech_s` seconds of speech, rounded down to a tenth."""
    return f"{math.floor(speech_s * 10) / 10:.1f} s of speech, {SPEECH_NEEDED_S:.0f} s is needed"


class VoiceKind(enum.StrEnum):
    """How close a voice is to the asker's: cloned, coloured toward it, or nobody's in particular."""

    CLONE = "clone"
    TINT = "tint"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Voice:
    """A voice to speak with: immutable, no audio inside. Each synthesizer adds what it needs in a subclass.

    `reason` says in a few ASCII words why the voice is of this kind, e.g. "0.4 s of speech, 1 s is needed".
    """

    kind: VoiceKind
    reason: str

    def to_bytes(self) -> bytes:
        """Return the voice as bytes that its synthesizer's `restore` reads."""
        raise NotImplementedError(f"{type(self).__name__} cannot be kept")


SpeakerEmbedding = npt.NDArray[np.float64]  # 1-D; what its numbers mean is the synthesizer's that made it


def judge_similarity(similarity: float, *, same_from: float, different_to: float) -> bool | None:
    """Return whether two speakers are the same one: True, False, or None in doubt, between the two limits."""
    if similarity >= same_from:
        return True
    return False if similarity <= different_to else None


class Recognizer(Protocol):
    """Turns speech into words. Thread-safe; deterministic."""

    info: EngineInfo

    def recognize(
        self,
        audio: Audio,
        language: Language,
        *,
        hotwords: Sequence[str] = (),
        context: Context,
    ) -> Transcript:
        """Return what is said in `audio` (any rate). No words give an empty text, never an error.

        Raises DeadlineExceeded at `deadline`, and the reason of `cancel`, soon after it is set.
        """
        ...

    def check_ready(self) -> None:
        """Raise NotReady when the engine, once loaded, can recognize no more."""
        ...

    def close(self) -> None: ...


class Listening(Protocol):
    """One caller who still speaks. For one thread at a time; `close` may come from any, and frees what it holds."""

    def hear(self, audio: Audio) -> PartialTranscript:
        """Take a further piece (any length; the rate of the first) and return what has been said so far.

        Raises AudioTooLong beyond the recognizer's limit, NonFiniteAudio and ValueError: that piece is not taken, and
        the others stay. ServerBusy: it is taken, and computed with the next call. After any other error of the tree
        (the deadline's, the reason of the cancel, ...) this listening is closed; closed, it raises ValueError.
        """
        ...

    def finish(self) -> Transcript:
        """Return what has been said and close. Raises as `hear` does; after ServerBusy it may be called again."""
        ...

    def close(self) -> None:
        """Forget what was heard. A second call does nothing."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A recognizer that listens while the caller still speaks."""

    @property
    def streams(self) -> bool:
        """Whether text comes before the end; else partials are empty, and `finish` recognizes the whole."""
        ...

    def listen(self, language: Language, *, hotwords: Sequence[str] = (), context: Context) -> Listening:
        """Begin to listen, until `deadline` at most. Raises ServerBusy when too many speak already."""
        ...


class ChatModel(Protocol):
    """Answers a chat. Thread-safe."""

    info: EngineInfo

    def stream(
        self, messages: Sequence[Message], *, context: Context, failed: Sequence[ChatFailure] = ()
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

    @property
    def voice_model(self) -> str:
        """Return what its voices are computed with: a voice is of use where this is the same."""
        ...

    def voice(self, references: Sequence[Audio]) -> Voice:
        """Return the voice heard in `references`, or a neutral one that says why it is neutral."""
        ...

    def restore(self, data: bytes) -> Voice:
        """Return the voice whose `to_bytes` gave `data`. Raises ValueError for anything else, whatever it holds."""
        ...

    def embed_speaker(self, speech: Audio) -> SpeakerEmbedding | None:
        """Return what tells the speaker of `speech` (any rate, trimmed to speech) from others, or None if nothing does.

        It costs far less than `voice`. Embeddings of one speaker may be averaged.
        """
        ...

    def same_speaker(self, first: SpeakerEmbedding, second: SpeakerEmbedding) -> bool | None:
        """Return whether two embeddings of this engine are of one speaker; None in doubt."""
        ...

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
        """Yield `text` (written form) as speech at `sample_rate`, in order, nothing lost however long it is.

        While `awaited` says that the listener has nearly nothing left to hear, what is there of a LATER sentence comes
        at once.
        """
        ...

    def check_ready(self) -> None:
        """Raise NotReady when the engine, once loaded, can speak no more."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class BatchStats:
    """The load of a batched synthesizer.

    `running` sequences hold a KV-cache slot, of which there are `slots`; `waiting` sequences have none yet. `tokens`
    counts the audio tokens sampled since the start.
    """

    running: int
    slots: int
    waiting: int
    tokens: int


@runtime_checkable
class Batched(Protocol):
    """A synthesizer that can say how full its batch is."""

    def stats(self) -> BatchStats: ...


@runtime_checkable
class CountsFailures(Protocol):
    """A chat model that counts how often each of its APIs has failed, in list order."""

    def failures(self) -> Sequence[int]: ...


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

    def check_ready(self) -> None:
        """Raise NotReady when an engine can answer no more."""
        for recognizer in self.recognizers.values():
            recognizer.check_ready()
        for synthesizer in self.synthesizers.values():
            synthesizer.check_ready()

    def close(self) -> None:
        """Free every engine, each once."""
        engines: list[Recognizer | ChatModel | Synthesizer] = [
            *self.recognizers.values(), self.chat, *self.synthesizers.values()
        ]  # fmt: skip
        for engine in {id(engine): engine for engine in engines}.values():
            engine.close()
