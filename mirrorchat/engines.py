"""The seams between the turn and the engines: protocols and result types."""

import copy
import enum
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio
from mirrorchat.errors import ChatFailure, DeadlineExceeded, MirrorChatError

T = TypeVar("T")


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


class Context:
    """What may end a piece of work early: a deadline, or a cancellation with its reason. Thread-safe.

    A turn has one context, which is passed down to everything that works for it; a part that may end before the turn
    does gets a `child`. Whoever wants to end the work calls `cancel`: the shutdown, the watch on the caller's socket,
    the turn itself when it is over. Whoever works calls `check` between steps and waits with `wait` alone:

        context = Context.after(100.0)
        event = context.wait(events)  # a queue; raises as soon as the turn is cancelled or its time is up

    `deadline` is on the monotonic clock, in seconds. `heard` says whether the caller has had any of the answer: an
    answer of which nothing was heard may be started over.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.deadline = deadline
        self.heard = False
        self._reason: MirrorChatError | None = None
        self._calls: dict[int, Callable[[MirrorChatError], object]] = {}
        self._lock = threading.RLock()  # a signal handler may cancel in the thread that holds it

    @classmethod
    def after(cls, seconds: float) -> "Context":
        """Return a context whose deadline is `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def child(self) -> "Context":
        """Return a context with the same deadline that ends with this one, and may be cancelled before."""
        child = Context(self.deadline)
        self.on_cancel(child.cancel)
        return child

    def cancel(self, reason: MirrorChatError) -> None:
        """End the work with `reason`, which its caller shall see. Only the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            calls = list(self._calls.values())
            self._calls.clear()
        for call in calls:
            call(reason)

    def on_cancel(self, call: Callable[[MirrorChatError], object]) -> Callable[[], None]:
        """Have `call` called with the reason on cancellation, at once after it; return a function that undoes this."""
        with self._lock:
            if self._reason is None:
                self._calls[id(call)] = call
                return lambda: self._forget(id(call))
        call(self._reason)
        return lambda: None

    @property
    def is_over(self) -> bool:
        """Tell whether nobody waits for the result any more."""
        return self._reason is not None or not self.remaining_s()

    def remaining_s(self) -> float:
        """Return the seconds until the deadline, never below 0; infinity where there is none."""
        return max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise the reason of the cancellation, or DeadlineExceeded."""
        self._check_cancelled()
        self._check_deadline()

    @overload
    def wait(self, source: "queue.Queue[T]", *, timeout_s: float | None = None) -> T: ...
    @overload
    def wait(self, source: "Future[T]", *, timeout_s: float | None = None) -> T: ...
    @overload
    def wait(
        self, source: threading.Condition, until: Callable[[], bool], *, timeout_s: float | None = None
    ) -> None: ...

    def wait(self, source: Any, until: Callable[[], bool] | None = None, *, timeout_s: float | None = None) -> Any:
        """Wait for a queue's next item, a future's result, or a condition that holds, and return the first two.

        `until` is called with the condition held. What is there is returned even after the deadline, never after the
        cancellation. Raises what ends the context, at once; TimeoutError after `timeout_s` seconds.
        """
        if isinstance(source, queue.Queue):
            while True:
                self._wait(source.not_empty, lambda: bool(source.queue), timeout_s)
                with suppress(queue.Empty):  # another thread was faster
                    return source.get_nowait()
        if isinstance(source, Future):
            changed = threading.Condition()
            source.add_done_callback(lambda _: _notify(changed))
            self._wait(changed, source.done, timeout_s)
            return source.result()
        assert until is not None, "a condition is waited for until something holds"
        self._wait(source, until, timeout_s)

    def _wait(self, changed: threading.Condition, until: Callable[[], bool], timeout_s: float | None) -> None:
        give_up_at = math.inf if timeout_s is None else time.monotonic() + timeout_s
        undo = self.on_cancel(lambda _: _notify(changed))
        try:
            with changed:
                self._check_cancelled()
                while not until():
                    self._check_deadline()
                    if time.monotonic() >= give_up_at:
                        raise TimeoutError
                    left_s = min(give_up_at, self.deadline) - time.monotonic()
                    changed.wait(min(max(0.0, left_s), threading.TIMEOUT_MAX))
                    self._check_cancelled()
        finally:
            undo()

    def _check_cancelled(self) -> None:
        # A copy: an exception keeps the frames of every place where it was raised, and their audio. A reason that
        # outlives the turn would gather those of all turns that it ended.
        if self._reason is not None:
            raise copy.copy(self._reason)

    def _check_deadline(self) -> None:
        if time.monotonic() >= self.deadline:
            raise DeadlineExceeded("the turn took longer than the server allows")

    def _forget(self, key: int) -> None:
        with self._lock:
            self._calls.pop(key, None)


def _notify(changed: threading.Condition) -> None:
    with changed:
        changed.notify_all()


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
