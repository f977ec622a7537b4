"""One answer: helpers read its text from the chat, split it into sentences and speak them while more text arrives."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.time_stretch import at_speed
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Batched, ChatEvent, Language, Priority, SpeaksClauses, Synthesizer, Voice
from mirrorchat.errors import (
    ChatError,
    ChatFailure,
    ChatInterrupted,
    MirrorChatError,
    NoChatApi,
    ReasoningSent,
    SynthesisFailed,
    as_mirrorchat_error,
)
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.text.sentences.boundaries import is_whole
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.clause_pace import ClausePace
from mirrorchat.turn.events import Event, SentenceFailed, SpokenAudio, StartedOver, TextDelta, VoiceKnown
from mirrorchat.turn.helper_threads import TURN_OVER, EventQueue, HelperThreads
from mirrorchat.turn.playback import PlayoutBuffer, Prebuffer, ReorderBuffer
from mirrorchat.turn.sentences import AnswerSentences, Sentence
from mirrorchat.turn.spoken_notices import no_answer
from mirrorchat.turn.stopwatch import Stopwatch

UNHEARD_LIMIT_S = 120.0  # of speech that a slow reader has not fetched: above it no further sentence starts
SENTENCES_AT_ONCE = 2  # of one answer, with a batched synthesizer: the next one is ready when the first has been heard
PREBUFFER_CHECK_S = 0.25
LOW_BUFFER_S = 3.0  # of speech left to play: nearly two of XTTS's longest chunks
REASONED_LIMIT = 2  # of starts of one answer, after each of which an API sent reasoning as text
HELPERS = 2 + SENTENCES_AT_ONCE  # of one answer: one reads text, one starts sentences, and each sentence has one

# Yields an answer. The arguments are the APIs that failed, which are not tried again, and a context.
Texts = Callable[[Sequence[ChatFailure], Context], Iterator[ChatEvent]]
# Returns the sentence that is spoken instead of a text in the language, which has no word to speak; or raises an error.
NoWordsSentence = Callable[[str, Language], str]
Item = TypeVar("Item")


def with_fallback(
    attempt: Callable[[Sequence[ChatFailure]], Iterator[Item]], context: Context
) -> Iterator[Item | StartedOver]:
    """Yield the items of an attempt; start over with the next API while the caller has heard nothing.

    An answer also starts over, twice at most, if what was heard of it was reasoning: it comes again without it.

    Arguments:
        attempt: returns the items of one attempt; its argument is the APIs that failed, which are not tried again.
        context: its `heard` tells whether the caller has heard a part of the answer.

    Yields:
        The items, and StartedOver before each further attempt.

    Raises:
        ChatInterrupted: the answer broke off after the caller had heard a part of it.
        Any other error of `attempt`.
    """
    failed: Sequence[ChatFailure] = ()
    reasoned = 0
    while True:
        try:
            yield from attempt(failed)
            return
        except ChatInterrupted as error:
            is_reasoning = isinstance(error, ReasoningSent)
            reasoned += is_reasoning
            if reasoned > REASONED_LIMIT or (context.heard and not is_reasoning):
                raise
            failed, reason = error.failures, error
        yield StartedOver(reason)


@dataclass(frozen=True)
class Speech:
    """The engine that speaks an answer, the language of the answer, the seed where sampling starts, and the options.

    `no_words` returns the sentence that is spoken instead of a text without a word to speak, or raises an error.
    """

    synthesizer: Synthesizer
    language: Language
    seed: int
    no_words: NoWordsSentence
    options: SpeechOptions = NO_OPTIONS


class SpokenAnswer:
    """One attempt at an answer. One helper reads its text, another starts its sentences, and each sentence has one.

    Arguments:
        texts: yields the answer in pieces until the context that it gets ends.
        voice: the voice, which is computed while the text is read.
        speech: the engine, the language and the seed.
        helpers: run everything above.
        slot: the turn. Its context ends the attempt; `context.heard` tells whether the caller is listening already.
        watch: measures the stages.

    Example:

        for event in SpokenAnswer(texts, voice, speech, helpers=helpers, slot=slot, watch=watch).run(): ...
    """

    def __init__(
        self,
        texts: Callable[[Context], Iterator[ChatEvent]],
        voice: "Future[Voice]",
        speech: Speech,
        *,
        helpers: HelperThreads,
        slot: Slot,
        watch: Stopwatch,
    ) -> None:
        self._texts = texts
        self._voice = voice
        self._speech = speech
        self._helpers = helpers
        self._slot = slot
        self._watch = watch
        self._context = slot.context.child()
        self._events: EventQueue[Event] = EventQueue(slot.context)
        self._at_once = SENTENCES_AT_ONCE if isinstance(speech.synthesizer, Batched) else 1
        self._text: list[str] = []
        self._chat_error: ChatError | None = None  # ends the answer after its whole sentences have been spoken
        self._changed = threading.Condition()  # guards the attributes up to `_playout`
        self._changes = 0
        self._sentences: deque[Sentence] = deque()  # sentences that have not started
        self._all_read = False
        self._any_failed = False
        self._in_progress = 0  # the number of sentences that are being spoken
        self._spoken_s = 0.0
        self._fetched_s = 0.0
        self._playout = PlayoutBuffer()
        self._pace = _clause_pace(speech, slot)
        prebuffer_s = self._pace.prebuffer_s if self._pace else lambda: slot.prebuffer_s
        self._out = ReorderBuffer(Prebuffer[Event](self._hand_over, prebuffer_s, adds_up=self._pace is not None))

    def run(self) -> Iterator[Event]:
        """Yield the events of the answer until all of it has been yielded.

        A caller who is listening already hears the whole sentences of an answer that broke off, and hears that no API
        has answered, before the error is raised. Reasoning that was taken for an answer ends at once.

        Raises ChatInterrupted, NoChatApi, and the reason if the context ends.
        """
        try:
            for work in (self._read_text, self._speak_sentences):
                self._submit(work)
            for event in self._events:
                if isinstance(event, SpokenAudio):
                    self._note(fetched_s=event.audio.duration_s)
                yield event
        finally:
            self._context.cancel(TURN_OVER)

    def _submit(self, work: Callable[[], None]) -> None:
        self._helpers.submit(self._slot, partial(self._events.run, work))

    def _read_text(self) -> None:
        sentences = AnswerSentences(self._speech.language)
        try:
            for event in self._texts(self._context):
                if isinstance(event, str):
                    self._text.append(event)
                    self._events.put(TextDelta(event))
                    self._note(sentences=sentences.feed(event))
                else:
                    self._events.put(event)
        except ChatError as error:
            if not self._slot.context.heard or isinstance(error, ReasoningSent):
                raise
            self._chat_error = error
            whole = [sentence for sentence in sentences.flush() if is_whole(sentence.text)]
            self._note(sentences=whole, all_read=True)
        else:
            self._note(sentences=sentences.flush(), all_read=True)

    def _speak_sentences(self) -> None:
        voice = self._voice.result()
        self._events.put(VoiceKnown(voice))
        index = 0
        while (sentence := self._next_sentence()) is not None:
            self._wait(self._may_start)
            self._start(index, self._clause_of(sentence, index), voice)
            index += 1
        self._wait(lambda: not self._in_progress)
        notice = self._notice()
        if notice is not None:
            self._start(index, Sentence(notice), voice)
            self._wait(lambda: not self._in_progress)
        self._out.release()
        self._events.end(self._chat_error)

    def _clause_of(self, sentence: Sentence, index: int) -> Sentence:
        """Return as much of `sentence` as is spoken at once; the rest is the next sentence."""
        if self._pace is None or sentence.failure is not None:
            return sentence
        buffered_s = self._out.held_s + self._playout.left_s
        clause, rest = self._pace.cut(sentence.text, is_first=index == 0, buffered_s=buffered_s)
        if rest:
            with self._changed:
                self._sentences.appendleft(Sentence(rest))
        return Sentence(clause)

    def _start(self, index: int, sentence: Sentence, voice: Voice) -> None:
        self._note(started=1)
        self._submit(partial(self._speak, index, sentence, voice))

    def _notice(self) -> str | None:
        """Return the server's own sentence that the caller hears instead of an answer; None if none is needed."""
        if isinstance(self._chat_error, NoChatApi):
            return no_answer(self._speech.language)
        if self._chat_error or self._spoken_s or self._any_failed:
            return None
        return self._speech.no_words("".join(self._text), self._speech.language)

    def _next_sentence(self) -> Sentence | None:
        self._wait(lambda: bool(self._sentences) or self._all_read)
        return self._sentences.popleft() if self._sentences else None

    def _wait(self, until: Callable[[], bool]) -> None:
        """Return when `until` is true; meanwhile pass on the prebuffer's pieces when they are due."""
        with self._changed:
            while not until():
                seen, due_in_s = self._changes, self._out.due_in_s()
                # The prebuffer may shrink when other turns end.
                limit_s = None if due_in_s is None else min(due_in_s, PREBUFFER_CHECK_S)
                try:
                    self._context.wait(self._changed, lambda seen=seen: self._changes != seen, timeout_s=limit_s)
                except TimeoutError:
                    self._out.check()

    def _may_start(self) -> bool:
        """Return whether one more sentence may start.

        No sentence may start while more than UNHEARD_LIMIT_S is buffered: this bounds memory and leaves the engine to
        other turns. With a batched engine a second one may start, unless the buffer is low: a second sequence slows
        the first.
        """
        if self._spoken_s - self._fetched_s > UNHEARD_LIMIT_S:
            return False
        has_buffer = bool(self._spoken_s) and not self._is_low()
        return self._in_progress < (self._at_once if has_buffer else 1)

    def _is_low(self) -> bool:
        """Return whether the playout buffer of a listening caller is nearly empty."""
        return self._slot.context.heard and self._playout.left_s < LOW_BUFFER_S

    def _speak(self, index: int, sentence: Sentence, voice: Voice) -> None:
        try:
            self._add_pieces(index, sentence, voice)
            self._out.end(index)
        finally:
            self._note(started=-1)

    def _add_pieces(self, index: int, sentence: Sentence, voice: Voice) -> None:
        try:
            with self._watch.time("speak"):
                for audio in self._slot.measure(self._pieces(index, sentence, voice), self._speech.language):
                    self._out.add(index, SpokenAudio(index, sentence.text, audio), audio.duration_s)
                    self._note(spoken_s=audio.duration_s)
        except Exception as error:
            self._out.add(index, SentenceFailed(index, sentence.text, _sentence_failure(error)), 0.0)
            self._any_failed = True

    def _pieces(self, index: int, sentence: Sentence, voice: Voice) -> Iterator[Audio]:
        if sentence.failure is not None:
            raise sentence.failure
        synthesizer, options = self._speech.synthesizer, self._speech.options
        pieces = synthesizer.speak(
            sentence.text,
            voice,
            self._speech.language,
            seed=self._speech.seed,
            priority=Priority.LATER if index else Priority.FIRST,
            context=self._context,
            options=options,
            buffer_low=lambda: self._is_low() and self._out.is_next(index),
        )
        if options.speed is None or "speed" in synthesizer.follows:
            return pieces
        return at_speed(pieces, options.speed)

    def _note(
        self,
        *,
        sentences: Sequence[Sentence] = (),
        all_read: bool = False,
        started: int = 0,
        spoken_s: float = 0.0,
        fetched_s: float = 0.0,
    ) -> None:
        """Update the shared state, and wake the helper that waits for it."""
        with self._changed:
            self._sentences.extend(sentences)
            self._all_read = self._all_read or all_read
            self._in_progress += started
            self._spoken_s += spoken_s
            self._fetched_s += fetched_s
            self._changes += 1
            self._changed.notify_all()

    def _hand_over(self, event: Event) -> None:
        if isinstance(event, SpokenAudio):
            self._watch.spoke(event.audio.duration_s)
            self._playout.add(event.audio.duration_s)
        self._events.put(event)


def _clause_pace(speech: Speech, slot: Slot) -> ClausePace | None:
    """Return the pace of a synthesizer that computes a clause at once, None for any other."""
    if not isinstance(speech.synthesizer, SpeaksClauses):
        return None
    return ClausePace(speech.language, speech.synthesizer.words, lambda: slot.speed(speech.language))


def _sentence_failure(error: Exception) -> MirrorChatError:
    """Return why one sentence cannot be spoken. Raises `error` again if it ends the whole answer."""
    ends_all = isinstance(error, MirrorChatError) and not isinstance(error, SynthesisFailed)
    if ends_all and type(error) is not MirrorChatError:
        raise error
    return as_mirrorchat_error(error)
