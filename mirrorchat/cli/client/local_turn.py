"""Turns, recognition and speech on the engines of the configuration, in this process: no server."""

import re
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, redirect_stdout
from functools import partial

from mirrorchat.audio.decoding import decode, require_speakable
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.client.asked import Answered, AnswerEvent, Asked
from mirrorchat.cli.client.terminal import Waiting
from mirrorchat.engines import Context, Engines, Language, Priority, Transcript, Voice
from mirrorchat.pipeline import Pipeline, Question
from mirrorchat.server.answers import engines_json, engines_used
from mirrorchat.settings import Settings
from mirrorchat.startup.loading import build_engines
from mirrorchat.text.splitter import SentenceSplitter
from mirrorchat.turn.admission import Admission
from mirrorchat.turn.events import Done, Error
from mirrorchat.turn.stopwatch import Stopwatch

HEARD_LIMIT_S = 600.0  # of a recording that is transcribed or gives a voice
SPEECH_DEADLINE_S = 3600.0


@contextmanager
def loaded(
    settings: Settings, *, hearing: Collection[Language] = (), speaking: Collection[Language] = ()
) -> Iterator[Engines]:
    """Load the engines that hear and speak these languages, with a line at a terminal, and the chat.

    Raises ConfigurationError or ModelNotInstalled when one cannot start.
    """
    with Waiting("loading the engines"), redirect_stdout(sys.stderr):  # some packages print while they load
        engines = _aside(partial(build_engines, settings, hearing=hearing, speaking=speaking))
    with closing(engines):
        yield engines


def _aside(call: Callable[[], Engines]) -> Engines:
    """Return what `call` returns on another thread, so that Ctrl-C is noticed while native code runs."""
    result: Future[Engines] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="load-engines", daemon=True).start()
    return result.result()


def ask_here(settings: Settings, engines: Engines, asked: Asked) -> Generator[AnswerEvent]:
    """Yield the events of a turn; the last one is Answered. Raises what ended it."""
    audio = decode(asked.recording, limit_s=settings.question_limit_s)
    require_speakable(audio)
    hotwords = [word.strip() for word in re.split(r"[\n,，、]", asked.hotwords) if word.strip()]
    question = Question(audio, asked.language, asked.reply_language, asked.text, None, hotwords)
    pipeline = Pipeline(engines, system_prompt=settings.system_prompt, seed=settings.seed, max_turns=1)
    used = engines_json(engines_used(question, engines.infos()))
    with (
        closing(pipeline),
        Admission(1).acquire(Deadline.after(settings.turn_deadline_s)) as slot,
        # whatever is yielded is shown or played at once: an answer that breaks off cannot be started over
        closing(pipeline.run_turn(question, slot, watch=Stopwatch(), heard=lambda: True)) as events,
    ):
        for event in events:
            if isinstance(event, Error):
                raise event.reason
            yield Answered(event.voice, used) if isinstance(event, Done) else event


def hear_here(engines: Engines, recording: bytes, language: Language) -> tuple[Transcript, float]:
    """Return what is said in `recording`, and its length in seconds. Raises what decoding and recognition do."""
    audio = decode(recording, limit_s=HEARD_LIMIT_S)
    require_speakable(audio)
    return engines.recognizers[language].recognize(audio, language, context=Context()), audio.duration_s


def voice_here(engines: Engines, recording: bytes | None, language: Language) -> Voice:
    """Return the voice heard in `recording`, a neutral one for None. Raises what decoding and the engine do."""
    references = [] if recording is None else [decode(recording, limit_s=HEARD_LIMIT_S)]
    return engines.synthesizers[language].voice(references)


def say_here(settings: Settings, engines: Engines, text: str, voice: Voice, language: Language) -> Iterator[Audio]:
    """Yield `text`, of any length, spoken in `voice`, sentence by sentence. Raises what the synthesizer does."""
    cutter = SentenceSplitter(language)
    deadline = Deadline.after(SPEECH_DEADLINE_S)
    for index, sentence in enumerate([*cutter.feed(text), *cutter.flush()]):
        priority = Priority.LATER if index else Priority.FIRST
        yield from engines.synthesizers[language].speak(
            sentence, voice, language, seed=settings.seed, priority=priority, deadline=deadline, context=Context()
        )
