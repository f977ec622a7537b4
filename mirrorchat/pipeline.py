"""One turn as a generator of events: recognize and compute the voice at once, ask, speak each sentence as it comes.

    question ──┬─ recognizer ── transcript ── chat ── sentences ──┐
               └─ voice ──────────────────────────────────────────┴─ synthesizer ── audio

Helpers run in one bounded pool; the request's thread only waits for their events, so that a deadline, a shutdown or a
caller who hangs up ends the turn while a native call still runs (its result is thrown away).
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.engines import Batched, Cancel, Engines, Language, Priority, Transcript, Voice
from mirrorchat.errors import (
    ChatFailure,
    ChatInterrupted,
    ClientGone,
    MirrorChatError,
    NoWords,
    SynthesisFailed,
    log_unexpected,
)
from mirrorchat.llm import build_messages
from mirrorchat.text.splitter import SentenceSplitter
from mirrorchat.turn.admission import MAX_ORPHANS, Slot
from mirrorchat.turn.events import (
    Done,
    Error,
    Event,
    SentenceFailed,
    SpokenAudio,
    StartedOver,
    StillWorking,
    TextDelta,
    Timings,
    VoiceKnown,
)
from mirrorchat.turn.playback import PlayoutBuffer, Prebuffer, ReorderBuffer
from mirrorchat.turn.reference import ReferenceQuality
from mirrorchat.turn.sessions import Session
from mirrorchat.turn.stopwatch import Stopwatch

POLL_S = 0.02  # how soon a waiting turn notices a hang-up, a shutdown or its deadline
KEEP_ALIVE_S = 2.0  # how long a turn is silent before it says that it still works
UNHEARD_LIMIT_S = 120.0  # of speech that a slow listener has not fetched: then no further sentence is begun
SENTENCES_AT_ONCE = 2  # of one answer, where the synthesizer has a batch: the next is ready when one has been heard
AWAITED_S = 3.0  # of speech left to hear: nearly two of XTTS's longest chunks; with less, the next is waited for
HELPERS_PER_TURN = 5 + SENTENCES_AT_ONCE  # recognizer, voice, its reference's quality, chat, speech; sentences
EVENT_LIMIT = 50_000  # above what the longest answer (20,000 characters) can give; reached only by a defect

NO_AUDIO = Audio(np.zeros(0, np.float32), 16_000)
TURN_OVER = ClientGone("the turn is over")  # what a helper that outlives its turn is stopped with; nobody sees it

Result = TypeVar("Result")
Texts = Callable[[Sequence[ChatFailure], Cancel], Iterator[str]]  # an answer in pieces, not from the APIs that failed


@dataclass(frozen=True)
class Question:
    """What a caller sent. `text` (what was said) skips recognition; the voice comes from `audio` all the same.

    `session` (held for this turn) gives the chat its history and the voice its reference; None: the turn stands alone.
    `hotwords` are words that the recognizer should be readier to hear.
    """

    audio: Audio
    language: Language
    reply_language: Language
    text: str | None = None
    session: Session | None = None
    hotwords: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """A whole turn, collected."""

    transcript: str
    reply: str
    audio: Audio
    voice: Voice
    quality: ReferenceQuality
    timings: Timings


class Pipeline:
    """Runs turns on the loaded engines. Thread-safe; a turn's state lives in the turn alone."""

    def __init__(self, engines: Engines, *, system_prompt: str, seed: int, max_turns: int) -> None:
        self.engines = engines
        self.system_prompt = system_prompt
        self.seed = seed
        at_work = (2 + MAX_ORPHANS) * max_turns  # what runs, and what may be left of turns that have ended
        self._pool = ThreadPoolExecutor(HELPERS_PER_TURN * at_work, thread_name_prefix="turn")

    def run_turn(
        self,
        question: Question,
        slot: Slot,
        *,
        watch: Stopwatch,
        heard: Callable[[], bool],
        caller_gone: Callable[[], bool] = lambda: False,
    ) -> Generator[Event]:
        """Yield the events of one turn: Transcript, TextDelta and audio as they come, Timings, Done; or Error, last.

        An answer that breaks off is started over with the next API (StartedOver) unless `heard` says that the caller
        has had some of it. The engines do not wait for whoever iterates: `slot` is held by what runs for the turn, and
        from the first VoiceKnown or TextDelta on by that alone, so that its owner may let go of it then. Closing the
        generator cancels whatever still runs for it.
        """
        turn = _Turn(self, question, slot, watch, caller_gone)
        yield from _ended(turn, turn.run(heard))

    def speak(
        self,
        texts: Texts,
        voice: Callable[[], Voice],
        language: Language,
        slot: Slot,
        *,
        watch: Stopwatch,
        heard: Callable[[], bool],
        caller_gone: Callable[[], bool] = lambda: False,
    ) -> Generator[Event]:
        """Yield a text that comes in pieces as an answer is spoken: TextDelta, VoiceKnown and audio; or Error, last.

        `texts` and `voice` are called in helpers. All else is as with `run_turn`.
        """
        turn = _Turn(self, Question(NO_AUDIO, language, language), slot, watch, caller_gone)
        yield from _ended(turn, turn.speak(texts, voice, heard))

    def answer(
        self, question: Question, slot: Slot, *, watch: Stopwatch, caller_gone: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Return a whole turn, collected from `run_turn`. Raises what ended it, a sentence that failed included."""
        events = self.run_turn(question, slot, watch=watch, heard=lambda: False, caller_gone=caller_gone)
        return _collect(events, self.engines.synthesizers[question.reply_language].sample_rate)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.engines.close()

    def submit(self, slot: Slot, call: Callable[[], Result]) -> "Future[Result]":
        """Run `call` in the pool; `slot` is held until it has ended, however long a native call takes."""
        slot.hold()
        try:
            future = self._pool.submit(call)
        except BaseException:
            slot.release()
            raise
        future.add_done_callback(lambda _: slot.release())
        return future


@dataclass
class _Turn:
    """The state of one turn, driven by the request's thread."""

    pipeline: Pipeline
    question: Question
    slot: Slot
    watch: Stopwatch
    caller_gone: Callable[[], bool]
    cancel: Cancel = field(default_factory=Cancel)

    def __post_init__(self) -> None:
        self.session = self.question.session or Session.unkept()

    def run(self, heard: Callable[[], bool]) -> Iterator[Event]:
        # Recognition first: the answer waits for it longest.
        recognition = self.pipeline.submit(self.slot, self._transcribe)
        voice = self.pipeline.submit(self.slot, self._compute_voice)
        quality = self.pipeline.submit(self.slot, partial(self._assess, voice))
        transcript = yield from self._wait(recognition)
        if not transcript.text:
            raise NoWords("no words were recognized in the audio", param="audio")
        yield transcript
        answer: list[str] = []
        for event in self._answer(partial(self._ask, transcript.text), voice, heard):
            if isinstance(event, TextDelta):
                answer.append(event.text)
            elif isinstance(event, StartedOver):
                answer.clear()
            yield event
        done = Done(voice.result(), (yield from self._wait(quality)))
        yield self.watch.timings()
        self.session.add_turn(transcript.text, "".join(answer).strip())
        yield done

    def speak(self, texts: Texts, voice: Callable[[], Voice], heard: Callable[[], bool]) -> Iterator[Event]:
        yield from self._answer(texts, self.pipeline.submit(self.slot, voice), heard)

    def _wait(self, helper: "Future[Result]") -> Generator[Event, None, Result]:
        """Return what `helper` returns; say now and then that it still works."""
        silent_until = time.monotonic() + KEEP_ALIVE_S
        while not helper.done():
            self.check()
            self.slot.deadline.check()
            wait([helper], timeout=POLL_S)
            if time.monotonic() > silent_until:
                yield StillWorking()
                silent_until = time.monotonic() + KEEP_ALIVE_S
        return helper.result()

    def _answer(self, texts: Texts, voice: "Future[Voice]", heard: Callable[[], bool]) -> Iterator[Event]:
        """Yield the answer, started over with the next API as long as one breaks off and nobody has heard of it."""
        failed: Sequence[ChatFailure] = ()
        while True:
            attempt = _Attempt(self, partial(texts, failed), voice, heard)
            try:
                yield from attempt.run()
                return
            except ChatInterrupted as error:
                if heard():
                    raise
                failed = error.failures
            yield StartedOver()

    def _ask(self, question: str, failed: Sequence[ChatFailure], cancel: Cancel) -> Iterator[str]:
        chat, deadline = self.pipeline.engines.chat, self.slot.deadline
        language, history = self.question.reply_language, self.session.history()
        messages = build_messages(self.pipeline.system_prompt, language, question, history)
        with self.watch.time("answer"):
            yield from chat.stream(messages, deadline=deadline, cancel=cancel, failed=failed)

    def check(self) -> None:
        """Raise what ends the turn from outside: a shutdown, or a caller who hung up."""
        self.slot.cancel.check()
        if self.caller_gone():
            raise ClientGone("the caller hung up")

    def _transcribe(self) -> Transcript:
        asked = self.question
        if asked.text is not None:
            return Transcript(asked.text, asked.language)
        with self.watch.time("recognize"):
            return self.pipeline.engines.recognizers[asked.language].recognize(
                asked.audio, asked.language, hotwords=asked.hotwords, deadline=self.slot.deadline, cancel=self.cancel
            )

    def _compute_voice(self) -> Voice:
        synthesizer = self.pipeline.engines.synthesizers[self.question.reply_language]
        with self.watch.time("voice"):
            return self.session.voice_with(self.question.audio, synthesizer)

    def _assess(self, voice: "Future[Voice]") -> ReferenceQuality:
        """Judge the reference beside the answer, which waits for the voice alone."""
        voice.result()
        self.cancel.check()
        return self.session.quality()


class _Attempt:
    """One try at an answer: a helper reads its text and cuts sentences, another has them spoken, each by a helper."""

    def __init__(
        self,
        turn: _Turn,
        texts: Callable[[Cancel], Iterator[str]],
        voice: "Future[Voice]",
        heard: Callable[[], bool],
    ) -> None:
        self._turn = turn
        self._heard = heard
        self._texts = texts
        self._voice = voice
        self._language = turn.question.reply_language
        self._synthesizer = turn.pipeline.engines.synthesizers[self._language]
        self._at_once = SENTENCES_AT_ONCE if isinstance(self._synthesizer, Batched) else 1
        self._cancel = Cancel()
        self._sentences: queue.Queue[str | None] = queue.Queue(EVENT_LIMIT)  # None: no more
        self._events: queue.Queue[Event | Exception | None] = queue.Queue(EVENT_LIMIT)  # None: all is spoken
        self._fetched_s = 0.0  # written by the request's thread alone
        self._changed = threading.Condition()  # guards the next two
        self._under_way = 0  # sentences
        self._spoken_s = 0.0
        self._playout = PlayoutBuffer()
        self._out = ReorderBuffer(Prebuffer[Event](self._hand_over, lambda: turn.slot.prebuffer_s))

    def run(self) -> Iterator[Event]:
        """Yield the events of the answer until it is out. Raises what a helper raised."""
        try:
            for helper in (self._read_text, self._speak_sentences):
                self._submit(helper)
            while (event := self._next_event()) is not None:
                yield event
        finally:
            self._cancel.set(TURN_OVER)

    def _next_event(self) -> Event | None:
        """Return the next event, None at the end. Raises what ends the turn, or what a helper raised."""
        silent_until = time.monotonic() + KEEP_ALIVE_S
        while time.monotonic() < silent_until:
            self._turn.check()
            if self._events.empty():  # a slow listener's deadline is not over while there is speech for him to fetch
                self._turn.slot.deadline.check()
            with suppress(queue.Empty):
                return self._fetched(self._events.get(timeout=POLL_S))
        return StillWorking()

    def _fetched(self, event: Event | Exception | None) -> Event | None:
        if isinstance(event, Exception):
            raise event
        if isinstance(event, SpokenAudio):
            self._fetched_s += event.audio.duration_s
        return event

    def _submit(self, helper: Callable[[], None]) -> None:
        self._turn.pipeline.submit(self._turn.slot, partial(self._report, helper))

    def _report(self, helper: Callable[[], None]) -> None:
        try:
            helper()
        except Exception as error:
            self._events.put_nowait(error)

    def _read_text(self) -> None:
        cutter = SentenceSplitter(self._language)
        for piece in self._texts(self._cancel):
            self._events.put_nowait(TextDelta(piece))
            self._queue_sentences(cutter.feed(piece))
        self._queue_sentences(cutter.flush())
        self._sentences.put_nowait(None)

    def _queue_sentences(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            self._sentences.put_nowait(sentence)

    def _speak_sentences(self) -> None:
        voice = self._voice.result()
        self._events.put_nowait(VoiceKnown(voice))
        index = 0
        while (sentence := self._next_sentence()) is not None:
            self._wait(self._may_begin)
            with self._changed:
                self._under_way += 1
            self._submit(partial(self._speak, index, sentence, voice))
            index += 1
        self._wait(lambda: not self._under_way)
        self._out.release()
        if index == 0:
            raise SynthesisFailed("the answer held nothing that can be spoken")
        self._events.put_nowait(None)

    def _next_sentence(self) -> str | None:
        while True:
            self._cancel.check()
            self._out.check()
            with suppress(queue.Empty):
                return self._sentences.get(timeout=POLL_S)

    def _wait(self, until: Callable[[], bool]) -> None:
        """Return when `until`, which is called with `_changed` held, says so. Raises what ends the turn."""
        with self._changed:
            while not until():
                self._cancel.check()
                self._turn.slot.deadline.check()
                self._out.check()
                self._changed.wait(POLL_S)

    def _may_begin(self) -> bool:
        """Tell whether one sentence more may be begun.

        None while too much is unheard: it bounds memory, and the engine is free for others meanwhile. A second one at
        once where they share a batch, but not while the listener has little left of the first, which it slows down.
        """
        if self._spoken_s - self._fetched_s > UNHEARD_LIMIT_S:
            return False
        at_ease = bool(self._spoken_s) and not (self._heard() and self._playout.left_s < AWAITED_S)
        return self._under_way < (self._at_once if at_ease else 1)

    def _speak(self, index: int, sentence: str, voice: Voice) -> None:
        try:
            with self._turn.watch.time("speak"):
                for audio in self._turn.slot.measure(self._pieces(index, sentence, voice)):
                    self._note(spoken_s=audio.duration_s)
                    self._out.add(index, SpokenAudio(index, sentence, audio), audio.duration_s)
                self._out.end(index)
        except SynthesisFailed as error:
            self._out.add(index, SentenceFailed(index, sentence, error), 0.0)
            self._out.end(index)
        finally:
            self._note(ended=1)

    def _pieces(self, index: int, sentence: str, voice: Voice) -> Iterator[Audio]:
        return self._synthesizer.speak(
            sentence,
            voice,
            self._language,
            seed=self._turn.pipeline.seed,
            priority=Priority.LATER if index else Priority.FIRST,
            deadline=self._turn.slot.deadline,
            cancel=self._cancel,
            buffer_low=partial(self._is_awaited, index),
        )

    def _is_awaited(self, index: int) -> bool:
        """Tell whether a listener who plays the answer as it comes has nearly nothing left before this sentence."""
        return self._heard() and self._out.is_next(index) and self._playout.left_s < AWAITED_S

    def _note(self, *, spoken_s: float = 0.0, ended: int = 0) -> None:
        with self._changed:
            self._spoken_s += spoken_s
            self._under_way -= ended
            self._changed.notify_all()

    def _hand_over(self, event: Event) -> None:
        if isinstance(event, SpokenAudio):
            self._turn.watch.spoke(event.audio.duration_s)
            self._playout.add(event.audio.duration_s)
        self._events.put_nowait(event)


def _ended(turn: _Turn, events: Iterator[Event]) -> Generator[Event]:
    """Pass on the events of `turn`; whatever ends it becomes the last one, and then nothing runs for it any more."""
    try:
        yield from events
    except MirrorChatError as error:
        yield Error(error)
    except Exception as error:
        log_unexpected(error)
        yield Error(MirrorChatError("something went wrong inside the server"))
    finally:
        turn.cancel.set(TURN_OVER)
        turn.slot.release_early()


class _Collector:
    """Gathers the events of a turn into an Answer."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._transcript = ""
        self._done: Done | None = None
        self._timings = Timings({})
        self._forget()

    def _forget(self) -> None:
        self._reply: list[str] = []
        self._samples: list[Samples] = []

    def take(self, event: Event) -> None:
        """Add one event. Raises what ended the turn, or the reason of a sentence that could not be spoken."""
        match event:
            case Transcript(text=text):
                self._transcript = text
            case TextDelta(text=text):
                self._reply.append(text)
            case SpokenAudio(audio=audio):
                self._samples.append(audio.samples)
            case StartedOver():
                self._forget()
            case Timings():
                self._timings = event
            case Done():
                self._done = event
            case SentenceFailed(reason=reason) | Error(reason=reason):
                raise reason

    def answer(self) -> Answer:
        assert self._done is not None, "run_turn ends with Done or Error"
        audio = Audio(np.concatenate(self._samples), self._sample_rate)
        reply = "".join(self._reply).strip()
        return Answer(self._transcript, reply, audio, self._done.voice, self._done.quality, self._timings)


def _collect(events: Generator[Event], sample_rate: int) -> Answer:
    collector = _Collector(sample_rate)
    with closing(events):
        for event in events:
            collector.take(event)
    return collector.answer()
