"""Turns, recognition and speech in this process, with the engines of the configuration and without a server."""

import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, redirect_stdout
from functools import partial

from mirrorchat.audio.decoding import decode, decode_speech
from mirrorchat.audio.samples import Audio
from mirrorchat.audio.time_stretch import at_speed
from mirrorchat.cli.client.terminal import Waiting
from mirrorchat.cli.client.turn import TurnCompleted, TurnEvent, TurnRequest
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Engines, Language, Priority, Transcript, Voice
from mirrorchat.errors import CommandError
from mirrorchat.pipeline import Pipeline, Question
from mirrorchat.server.answers import engines_json, engines_used
from mirrorchat.server.form import split_hotwords
from mirrorchat.settings import Settings
from mirrorchat.speech.options import SpeechOptions
from mirrorchat.startup.loading import build_engines
from mirrorchat.text.splitter import SentenceSplitter
from mirrorchat.turn.admission import Admission
from mirrorchat.turn.enrolled_voices import folded
from mirrorchat.turn.events import Done
from mirrorchat.turn.hearing import Hearing, require_detector
from mirrorchat.turn.reader import AnswerReader
from mirrorchat.turn.stopwatch import Stopwatch

RECORDING_LIMIT_S = 600.0  # for a recording to transcribe, or of a speaker
SPEECH_DEADLINE_S = 3600.0


@contextmanager
def loaded(
    settings: Settings, *, hearing: Collection[Language] = (), speaking: Collection[Language] = ()
) -> Iterator[Engines]:
    """Load the chat, the recognizers of `hearing` and the synthesizers of `speaking`, and yield them.

    A terminal shows a progress line. Raises ConfigurationError or ModelNotInstalled when an engine cannot start.
    """
    with Waiting("loading the engines"), redirect_stdout(sys.stderr):  # some packages print while they load
        engines = _on_thread(partial(build_engines, settings, hearing=hearing, speaking=speaking))
    with closing(engines):
        yield engines


def _on_thread(call: Callable[[], Engines]) -> Engines:
    """Return the result of `call` on another thread: this one can then handle Ctrl-C while native code runs."""
    result: Future[Engines] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="load-engines", daemon=True).start()
    return result.result()


def ask_here(settings: Settings, engines: Engines, request: TurnRequest) -> Generator[TurnEvent]:
    """Yield the events of a turn, TurnCompleted last. Raises the error that ends the turn."""
    if request.language is None and request.text is None:
        require_detector(engines, "language")
    audio = decode_speech(request.recording, limit_s=settings.question_limit_s)
    hotwords = split_hotwords(request.hotwords)
    question = Question(audio, request.language, request.reply_language, request.text, None, hotwords, request.options)
    pipeline = Pipeline(
        engines, system_prompt=settings.system_prompt, seed=settings.seed, options=settings.speech_options, max_turns=1
    )
    context = Context.after(settings.turn_deadline_s)
    context.heard = True  # whatever is yielded is shown or played at once: the answer cannot be started over
    with (
        closing(pipeline),
        Admission(1).acquire(context) as slot,
        # each event is shown or played at once: a broken answer cannot be started over
        closing(pipeline.run_turn(question, slot, watch=Stopwatch())) as events,
    ):
        reader = AnswerReader(events)
        for event in reader:
            if isinstance(event, Done):
                used = engines_json(engines_used(question, engines.infos(), reader))
                yield TurnCompleted(event.voice, used, finish_reason=reader.finish_reason)
            else:
                yield event


def recognize_here(engines: Engines, recording: bytes, language: Language | None) -> tuple[Transcript, float]:
    """Return the transcript of `recording`, and its length in s. None has the language detected.

    Raises the errors of decoding and recognition, and LanguageNotDetected.
    """
    if language is None:
        require_detector(engines, "language")
    audio = decode_speech(recording, limit_s=RECORDING_LIMIT_S)
    hearing = Hearing(engines, (), Context(), Stopwatch())
    return hearing.hear(audio, (language,) if language else tuple(Language)), audio.duration_s


def voice_here(engines: Engines, recording: bytes | None, language: Language, *, speaker: str | None = None) -> Voice:
    """Return the voice in `recording`, that of the model's `speaker`, or a neutral one for None.

    Raises the errors of decoding and the engine, and CommandError for a speaker that the model does not have.
    """
    if speaker is not None:
        voices = engines.synthesizers[language].built_in_voices
        named = {folded(name): voice for name, voice in voices.items()}
        if folded(speaker) not in named:
            raise CommandError(f"the model has no voice {speaker!r}; it has {', '.join(voices) or 'none'}")
        return named[folded(speaker)]
    references = [] if recording is None else [decode(recording, limit_s=RECORDING_LIMIT_S)]
    return engines.synthesizers[language].voice(references)


def speak_here(
    settings: Settings, engines: Engines, text: str, voice: Voice, language: Language, options: SpeechOptions
) -> Iterator[Audio]:
    """Yield the speech of `text`, of any length, sentence by sentence. Raises the errors of the synthesizer."""
    splitter, synthesizer = SentenceSplitter(language), engines.synthesizers[language]
    options = options.over(settings.speech_options)
    context = Context.after(SPEECH_DEADLINE_S)
    for index, sentence in enumerate([*splitter.feed(text), *splitter.flush()]):
        priority = Priority.LATER if index else Priority.FIRST
        pieces = synthesizer.speak(
            sentence, voice, language, seed=settings.seed, priority=priority, context=context, options=options
        )
        yield from pieces if "speed" in synthesizer.follows else at_speed(pieces, options.speed or 1.0)
