"""One turn as a generator of events: it recognizes the question, asks the chat, and speaks each sentence.

    question ──┬─ recognizer ── transcript ── chat ── sentences ──┐
               └─ voice ──────────────────────────────────────────┴─ synthesizer ── audio

Recognition and voice start at once. Helpers of one bounded pool do the work (turn/helper_threads.py); the thread of the
request waits for their events. Example:

    slot = admission.acquire(Context.after(100.0))
    with slot, closing(pipeline.run_turn(question, slot, watch=Stopwatch())) as events:
        for event in events:
            ...
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import ChatEvent, Engines, Language, Synthesizer, Transcript, Voice
from mirrorchat.errors import ChatFailure, ModelNotInstalled, NoWords, as_mirrorchat_error
from mirrorchat.llm import build_messages
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.text.sentences.speech_length import language_of
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.answer import HELPERS, NoWordsSentence, Speech, SpokenAnswer, Texts, with_fallback
from mirrorchat.turn.events import Done, Error, Event, StartedOver, TextDelta
from mirrorchat.turn.hearing import Hearing
from mirrorchat.turn.helper_threads import TURN_OVER, HelperThreads, still_working
from mirrorchat.turn.reader import Answer, AnswerReader
from mirrorchat.turn.reference import ReferenceQuality
from mirrorchat.turn.sessions import Session
from mirrorchat.turn.spoken_notices import no_words
from mirrorchat.turn.stopwatch import Stopwatch

Result = TypeVar("Result")

HELPERS_PER_TURN = 3 + HELPERS  # recognition, the voice, its reference's quality; those of the answer
NO_AUDIO = Audio(np.zeros(0, np.float32), 16_000)


@dataclass(frozen=True)
class Question:
    """The question of a caller.

    `audio` is the recording, at any sample rate. `text`, its words, makes recognition unnecessary. A `language` of None
    is detected, and a `reply_language` of None is that of the question. `session`, which this turn has opened, has the
    history of the chat and the reference of the voice; without one, the turn has neither. `hotwords` are words that the
    recognizer prefers. `options` are those of the answer's speech.
    """

    audio: Audio
    language: Language | None
    reply_language: Language | None
    text: str | None = None
    session: Session | None = None
    hotwords: Sequence[str] = ()
    options: SpeechOptions = NO_OPTIONS


class Pipeline:
    """Runs turns on the loaded engines. Thread-safe; only the turn itself holds its state.

    Arguments:
        engines: the loaded engines; `close` closes them.
        system_prompt: the chat's first message; `{language}` in it becomes the name of the answer's language.
        seed: where the synthesizer's sampling starts.
        options: the options of speech for turns that name none.
        max_turns: the number of concurrent turns.
    """

    def __init__(
        self, engines: Engines, *, system_prompt: str, seed: int, max_turns: int, options: SpeechOptions = NO_OPTIONS
    ) -> None:
        self.engines = engines
        self.helpers = HelperThreads(HELPERS_PER_TURN, max_turns)
        self.system_prompt = system_prompt
        self.seed = seed
        self.options = options

    def run_turn(self, question: Question, slot: Slot, *, watch: Stopwatch) -> Generator[Event]:
        """Answer a question. The engines do not wait for the consumer; closing the generator cancels the turn.

        Arguments:
            question: the caller's question.
            slot: the admitted turn. Its context ends the turn, and the turn's helpers hold the slot. The caller may
                release its hold once it has got VoiceKnown or TextDelta.
            watch: measures the stages.

        Yields:
            Transcript; Thinking, AnsweredBy, TextDelta, AnswerEnded, VoiceKnown, SpokenAudio and SentenceFailed as they
            arrive; Timings, Done. If an API breaks off while `slot.context.heard` is false, StartedOver, and the answer
            of the next API. StillWorking while nothing else happens.

        Raises:
            Nothing: Error is the last event of a turn that fails.
        """
        yield from _ended(slot, _Turn(self, question, slot, watch).run())

    def speak(
        self,
        texts: Texts,
        voice: Callable[[], Voice],
        language: Language,
        slot: Slot,
        *,
        watch: Stopwatch,
        no_words: NoWordsSentence,
        options: SpeechOptions = NO_OPTIONS,
    ) -> Generator[Event]:
        """Speak a text that arrives in pieces, like an answer.

        Arguments:
            texts: yields the pieces of text; a helper calls it with the APIs that have failed and a context.
            voice: returns the voice; a helper calls it.
            language: the language of the text.
            slot, watch: as for `run_turn`.
            no_words: returns the sentence for a text without a word to speak, or raises the error that ends the turn.
            options: those of the speech.

        Yields:
            What `run_turn` does between Transcript and Timings.

        Raises:
            Nothing: Error is the last event if the turn fails.
        """
        turn = _Turn(self, Question(NO_AUDIO, language, language, options=options), slot, watch)
        yield from _ended(slot, turn.answer(texts, self.helpers.submit(slot, voice), language, no_words))

    def answer(self, question: Question, slot: Slot, *, watch: Stopwatch) -> Answer:
        """Return the complete answer to a question.

        The arguments are those of `run_turn`.

        Raises:
            The reason of the Error that ended the turn, or of a SentenceFailed if no sentence could be spoken.
        """
        with closing(self.run_turn(question, slot, watch=watch)) as events:
            return AnswerReader(events).collect()

    def close(self) -> None:
        """Start no more helpers, and free the engines."""
        self.helpers.close()
        self.engines.close()


@dataclass
class _Turn:
    """The state of one turn. The request's thread runs it."""

    pipeline: Pipeline
    question: Question
    slot: Slot
    watch: Stopwatch

    def __post_init__(self) -> None:
        self.session = self.question.session or Session.unkept()
        self.context = self.slot.context

    def run(self) -> Iterator[Event]:
        # Recognition starts first, because the answer waits for it.
        recognition = self._submit(self._transcribe)
        voice = self._submit(partial(self._compute_voice, recognition))
        quality = self._submit(partial(self._assess, voice))
        transcript = yield from still_working(recognition, self.context)
        if not transcript.text:
            raise NoWords("no words were recognized in the audio", param="audio")
        yield transcript
        language = self.question.reply_language or transcript.language
        reply: list[str] = []
        for event in self.answer(partial(self._ask, transcript.text, language), voice, language, no_words):
            if isinstance(event, TextDelta):
                reply.append(event.text)
            elif isinstance(event, StartedOver):
                reply.clear()
            yield event
        done = Done(voice.result(), (yield from still_working(quality, self.context)))
        yield self.watch.timings()
        self.session.add_turn(transcript.text, "".join(reply).strip())
        yield done

    def answer(
        self, texts: Texts, voice: "Future[Voice]", language: Language, no_words: NoWordsSentence
    ) -> Iterator[Event]:
        """Yield the events of the answer in `language`, with StartedOver when it restarts with the next API."""
        pipeline = self.pipeline
        options = self.question.options.over(pipeline.options)
        speech = Speech(pipeline.engines.synthesizers[language], language, pipeline.seed, no_words, options)

        def attempt(failed: Sequence[ChatFailure]) -> Iterator[Event]:
            helpers, slot, watch = pipeline.helpers, self.slot, self.watch
            return SpokenAnswer(partial(texts, failed), voice, speech, helpers=helpers, slot=slot, watch=watch).run()

        return with_fallback(attempt, self.context)

    def _submit(self, call: Callable[[], Result]) -> "Future[Result]":
        return self.pipeline.helpers.submit(self.slot, call)

    def _ask(
        self, question: str, language: Language, failed: Sequence[ChatFailure], context: Context
    ) -> Iterator[ChatEvent]:
        messages = build_messages(self.pipeline.system_prompt, language, question, self.session.history())
        with self.watch.time("answer"):
            yield from self.pipeline.engines.chat.stream(messages, context=context, failed=failed)

    def _transcribe(self) -> Transcript:
        question = self.question
        if question.text is not None:
            return Transcript(question.text, question.language or language_of(question.text))
        hearing = Hearing(self.pipeline.engines, question.hotwords, self.context, self.watch)
        try:
            return hearing.hear(question.audio, (question.language,) if question.language else tuple(Language))
        except ModelNotInstalled as error:  # only a question may come with its words: a transcription has no such field
            advice = f"{error.message}, or send the words of the question as text"
            raise ModelNotInstalled(advice, param=error.param) from error

    def _compute_voice(self, recognition: "Future[Transcript]") -> Voice:
        synthesizer = self._synthesizer(recognition)
        with self.watch.time("voice"):
            return self.session.voice_with(self.question.audio, synthesizer)

    def _synthesizer(self, recognition: "Future[Transcript]") -> Synthesizer:
        """Return the synthesizer of the answer. Where each language has its own, the detected language is awaited."""
        synthesizers = self.pipeline.engines.synthesizers
        language = self.question.reply_language or self.question.language
        if language is None and len({id(each) for each in synthesizers.values()}) > 1:
            language = self.context.wait(recognition).language
        return synthesizers[language or next(iter(synthesizers))]

    def _assess(self, voice: "Future[Voice]") -> ReferenceQuality:
        """Return the quality of the voice's reference, which is measured while the answer is spoken."""
        voice.result()
        self.context.check()
        return self.session.quality()


def _ended(slot: Slot, events: Iterator[Event]) -> Generator[Event]:
    """Yield the events of a turn and, if it fails, Error; then end its work and release its slot."""
    try:
        yield from events
    except Exception as error:
        yield Error(as_mirrorchat_error(error))
    finally:
        slot.context.cancel(TURN_OVER)
        slot.release_early()
