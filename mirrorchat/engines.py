"""The three stages of a turn: protocols that their engines implement, and the types of their results.

    recognizer  speech -> Transcript
    chat model  messages -> text in pieces
    synthesizer text and a Voice -> speech in pieces

An engine holds weights, and all callers share it. Of the data of a turn it keeps nothing but a few voices (XTTS).
"""

import enum
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ChatFailure
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions


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
        """Return the language of a tag or a name (`zh`, `en-US`, `zh-Hant-HK`, `Chinese`, `中文（简体）`; any case).

        A tag is that of BCP 47, with ISO 639's two or three letters first; `zh_CN.UTF-8` is read as well. Raises
        ValueError for any other name, and for the languages of China that are not Mandarin: no model here hears or
        speaks Cantonese (`yue`, `zh-yue`).
        """
        tag = unicodedata.normalize("NFKC", name[:_TAG_LIMIT_CHARS]).strip().casefold().partition(".")[0]
        first, *others = re.split("[-_ ()]", tag)
        whole_names = [other for other in others if len(other) > 3 or not other.isascii()]  # "American English"
        language = next(filter(None, map(_LANGUAGE_NAMES.get, [first, *whole_names])), None)
        if len(name) > _TAG_LIMIT_CHARS or language is None or not _NOT_MANDARIN.isdisjoint(others):
            raise ValueError(_UNKNOWN_LANGUAGE)
        return cls(language)

    @classmethod
    def parse_or_auto(cls, name: str) -> "Language | None":
        """Return the language of a tag or a name; None for `auto`, which has it detected. Raises ValueError."""
        if name.strip().casefold() == AUTO:
            return None
        try:
            return cls.parse(name)
        except ValueError as error:
            raise ValueError(f"{error}, or {AUTO}, which detects it") from None


WITHOUT_SPEECH = Language.ENGLISH  # what is detected in a recording without speech
AUTO = "auto"  # in place of a language
_TAG_LIMIT_CHARS = 64
_LANGUAGE_NAMES = {
    name: language
    for language, names in {
        "chinese": "zh zho chi cmn chinese mandarin putonghua 中文 汉语 漢語 普通话 普通話 国语 國語 华语 華語"
        " 简体中文 繁体中文 繁體中文 正体中文 正體中文",
        "english": "en eng english 英文 英语 英語",
    }.items()
    for name in names.split()
}
_NOT_MANDARIN = frozenset(  # beside the name
    ["yue", "nan", "hak", "wuu", "gan", "hsn", "min", "cantonese", "粤语", "粵語", "广东话", "廣東話"]
)
_UNKNOWN_LANGUAGE = (
    "unknown language; choose Mandarin Chinese (zh, zh-CN, zh-Hant-TW, chinese) or English (en, en-US, english)"
)


class Priority(enum.IntEnum):
    """How urgent a sentence is: its listener waits for the first one, and later ones play after it."""

    FIRST = 0
    LATER = 1


class Tier(enum.StrEnum):
    """How good an engine is: what packages alone can do, small models for any CPU, or large models."""

    FLOOR = "floor"
    SMALL = "small"
    REAL = "real"


@dataclass(frozen=True)
class EngineInfo:
    """The engine of one stage: its `name` in the settings, its `model`, its `device`, and the `reason` for it.

    A recognizer or a synthesizer has a `tier`, and `upgrade` is the command that installs the next tier, "" where there
    is none or the settings name the engine.
    """

    name: str
    model: str
    device: str
    reason: str = ""
    tier: Tier | Literal[""] = ""
    upgrade: str = ""


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
    """The text of unfinished speech so far.

    `text` is written as if the speech ended here, and may change. `stable_text` is its beginning that no later sound
    can change: every later text, and the transcript, begins with it. It ends with a whole word (or Chinese character).
    The text covers `heard_s` seconds of sound.
    """

    text: str
    stable_text: str
    heard_s: float


@dataclass(frozen=True)
class Message:
    """One message of a chat, as in OpenAI's API."""

    role: Literal["system", "user", "assistant"]
    content: str


SPEECH_NEEDED_S = 1.0  # with less speech in its references a voice stays neutral
REFERENCE_LIMIT_S = 30.0  # of speech in a session's reference: the GPT of XTTS is conditioned on no more


def too_little_speech(speech_s: float) -> str:
    """Return the reason for a neutral voice: its references hold only `speech_s` seconds, rounded down to a tenth."""
    return f"{math.floor(speech_s * 10) / 10:.1f} s of speech, {SPEECH_NEEDED_S:.0f} s is needed"


class VoiceKind(enum.StrEnum):
    """How a voice relates to the asker's: cloned from it, tinted with its pitch and timbre, or unrelated to it."""

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


SpeakerEmbedding = npt.NDArray[np.float64]  # 1-D; only the synthesizer that computed it knows its dimensions


def judge_similarity(similarity: float, *, same_from: float, different_to: float) -> bool | None:
    """Return whether two speakers are the same: True from `same_from` on, False up to `different_to`, else None."""
    if similarity >= same_from:
        return True
    return False if similarity <= different_to else None


class Recognizer(Protocol):
    """Turns speech into words. Thread-safe; deterministic."""

    info: EngineInfo

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Return the transcript of `audio`.

        Arguments:
            audio: the recording, at any sample rate.
            language: the language that is spoken in it.
            hotwords: words that the recognizer prefers, such as names; an engine without them ignores this.
            context: ends the recognition early.

        Returns:
            The transcript. Its text is empty where no words were heard.

        Raises:
            RecognitionFailed, ServerBusy: the engine failed, or too many recordings wait.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        ...

    def check_ready(self) -> None:
        """Raise NotReady if the engine, once loaded, cannot recognize any more."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class DetectsLanguage(Protocol):
    """A recognizer of both languages that detects which one is spoken. Both methods raise as `recognize` does."""

    info: EngineInfo

    def detect_language(self, audio: Audio, *, context: Context) -> Language:
        """Return the language that is spoken in `audio`; WITHOUT_SPEECH if none is."""
        ...

    def recognize_any(self, audio: Audio, *, context: Context) -> Transcript:
        """Detect the language of `audio` and return the transcript in it, for about the cost of `recognize`."""
        ...

    def close(self) -> None: ...


class Listening(Protocol):
    """The recognition of one caller who is still speaking. For one thread at a time; any thread may call `close`."""

    def hear(self, audio: Audio) -> PartialTranscript:
        """Add a piece of the recording and return the text so far.

        Arguments:
            audio: the next piece, of any length, at the sample rate of the first one.

        Raises:
            AudioTooLong, NonFiniteAudio, ValueError: the piece is rejected; the earlier ones stay.
            ServerBusy: the piece is kept, and computed with the next call.
            Any other error of the tree closes the recognition; after that, ValueError is raised.
        """
        ...

    def finish(self) -> Transcript:
        """Return the transcript and close. Raises as `hear` does; after ServerBusy it may be called again."""
        ...

    def close(self) -> None:
        """Free what is held for the caller. A second call does nothing."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A recognizer that can recognize while the caller is still speaking."""

    @property
    def streams(self) -> bool:
        """Whether partial transcripts hold text; otherwise they are empty, and `finish` recognizes the whole."""
        ...

    def listen(self, language: Language, *, hotwords: Sequence[str] = (), context: Context) -> Listening:
        """Start a recognition, which lasts until `context` ends. Raises ServerBusy if too many callers speak now."""
        ...


@dataclass(frozen=True)
class AnsweredBy:
    """This API of the list answers. It comes before the API's first text."""

    info: EngineInfo  # its name is "chat", and its model MODEL@HOST


@dataclass(frozen=True)
class Thinking:
    """The model reasons. It comes before the first text while reasoning arrives, at most once a second."""


@dataclass(frozen=True)
class AnswerEnded:
    """The answer is whole. It comes last. `finish_reason` is as in OpenAI's API: stop, length, content_filter, ..."""

    finish_reason: str


ChatEvent = str | AnsweredBy | Thinking | AnswerEnded  # a str is text of the answer, without any reasoning


class ChatModel(Protocol):
    """Answers a chat. Thread-safe. An engine may yield text only."""

    info: EngineInfo

    def stream(
        self, messages: Sequence[Message], *, context: Context, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[ChatEvent]:
        """Yield the answer in pieces of text as they arrive, and what is known of it.

        Arguments:
            messages: the conversation, oldest first; the last one is the question.
            context: ends the answer early.
            failed: APIs that an earlier ChatInterrupted of the same turn named; they are not tried again.

        Raises:
            NoChatApi: no API answered.
            ChatInterrupted: a stream broke after its first text was yielded.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        ...

    def close(self) -> None: ...


class Synthesizer(Protocol):
    """Speaks text in a voice. Thread-safe; the same text, voice and seed give the same samples on a CPU."""

    info: EngineInfo
    sample_rate: int
    follows: Collection[str]  # the names of the SpeechOptions that it follows
    built_in_voices: Mapping[str, Voice]  # by name; they are those of the model, and nobody's clone

    @property
    def voice_model(self) -> str:
        """Return the name of the model that computes its voices; only a voice of the same model can be restored."""
        ...

    def voice(self, references: Sequence[Audio]) -> Voice:
        """Return the voice of the speaker in `references`.

        Arguments:
            references: recordings of one speaker, each at any sample rate. The engine says how much of them counts.

        Returns:
            The voice; a neutral one, whose reason says why, with less than SPEECH_NEEDED_S seconds of speech.

        Raises:
            SynthesisFailed: the model failed.
        """
        ...

    def restore(self, data: bytes) -> Voice:
        """Return the voice whose `to_bytes` made `data`. Raises ValueError for any other bytes."""
        ...

    def embed_speaker(self, speech: Audio) -> SpeakerEmbedding | None:
        """Return the speaker embedding of `speech` (any rate, trimmed to speech), or None if it tells nothing.

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
        options: SpeechOptions = NO_OPTIONS,
        buffer_low: Callable[[], bool] = lambda: False,
    ) -> Iterator[Audio]:
        """Yield the speech of `text` in pieces, in order.

        Arguments:
            text: one sentence or more, as written; the engine normalizes it and splits it to its limits.
            voice: a voice of this engine.
            language: the language to read the text in.
            seed: where sampling starts; the same text, voice and seed give the same samples on a CPU.
            priority: FIRST for the sentence that the listener waits for.
            context: ends the speech early.
            options: those that the engine follows change the speech; it ignores the others.
            buffer_low: returns whether the playout buffer is nearly empty: a LATER sentence then streams its chunks.

        Yields:
            Audio at `sample_rate`; nothing for a text without a word.

        Raises:
            SynthesisFailed: this sentence cannot be spoken; others can.
            ServerBusy: too many sentences wait.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        ...

    def check_ready(self) -> None:
        """Raise NotReady if the engine, once loaded, cannot speak any more."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class BatchStats:
    """The load of a batched synthesizer: `running` sequences hold a KV-cache slot, of which there are `slots`.

    `waiting` sequences have none yet. `tokens` counts the audio tokens sampled since the start.
    """

    running: int
    slots: int
    waiting: int
    tokens: int


@runtime_checkable
class Batched(Protocol):
    """A synthesizer that decodes a batch, and reports its load."""

    def stats(self) -> BatchStats: ...


@runtime_checkable
class SpeaksClauses(Protocol):
    """A synthesizer that computes what it is given at once: its first sound comes early if that is a short clause."""

    def words(self, text: str) -> list[str]:
        """Return the words of `text`, which consists of Chinese characters only."""
        ...


@runtime_checkable
class CountsAnswers(Protocol):
    """A chat model that counts how often each of its APIs has answered and failed, in list order."""

    def answers(self) -> Sequence[int]: ...
    def failures(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Engines:
    """The engine of each stage. One engine may serve both languages. Without a `detector` callers name the language."""

    recognizers: Mapping[Language, Recognizer]
    chat: ChatModel
    synthesizers: Mapping[Language, Synthesizer]
    detector: DetectsLanguage | None = None

    def infos(self) -> dict[str, EngineInfo]:
        """Return the engines by stage: `recognizer.zh`, ..., `detector` (if any), `chat`, `synthesizer.zh`, ..."""
        stages = {f"recognizer.{language.code}": engine.info for language, engine in self.recognizers.items()}
        stages |= {"detector": self.detector.info} if self.detector else {}
        stages["chat"] = self.chat.info
        return stages | {f"synthesizer.{language.code}": engine.info for language, engine in self.synthesizers.items()}

    def check_ready(self) -> None:
        """Raise NotReady if an engine cannot answer any more."""
        engines: list[Recognizer | Synthesizer] = [*self.recognizers.values(), *self.synthesizers.values()]
        for engine in engines:
            engine.check_ready()

    def close(self) -> None:
        """Free every engine, each once."""
        engines: list[Recognizer | ChatModel | Synthesizer | DetectsLanguage] = [
            *self.recognizers.values(), self.chat, *self.synthesizers.values(), *filter(None, [self.detector])
        ]  # fmt: skip
        for engine in {id(engine): engine for engine in engines}.values():
            engine.close()
