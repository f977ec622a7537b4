"""Runs a spoken question through every stage, in both languages, for `mirrorchat doctor`.

It runs in a separate process: engines are large, and native code can crash or hang.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from mirrorchat.audio.decoding import decode_speech
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.cli.doctor.finding_process import Say
from mirrorchat.cli.doctor.findings import Finding, Value, ok, problem, warning
from mirrorchat.cli.synthetic_speech import QUESTIONS, speak_question
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.process import WorkerFailed
from mirrorchat.engines import Engines, Language
from mirrorchat.errors import (
    ClientGone,
    ConfigurationError,
    DeadlineExceeded,
    MirrorChatError,
    ModelNotInstalled,
    NoWords,
)
from mirrorchat.pipeline import Pipeline, Question
from mirrorchat.settings import Settings, load_settings
from mirrorchat.startup.loading import build_engines
from mirrorchat.turn.admission import Admission
from mirrorchat.turn.reader import Answer
from mirrorchat.turn.stopwatch import Stopwatch

PARROT = "--parrot"
STAGES = ("decode", "recognize", "voice", "answer", "speak")  # names of Stopwatch, in the order of a turn

_PACKAGES = "`rm -f .venv/installed && scripts/environment` installs the packages again"
_MODEL = "`.venv/bin/mirrorchat models verify`, and `... install NAME --replace` for what it names; or free memory"
_CHAT = "see the section on chat, and correct chatgpt_apis or the variable that its line `source` names"
_TOO_SLOW = "raise turn_deadline_s, or choose faster weights (xtts_weights, wenet_weights), a GPU or more threads"


class StageWatch(Stopwatch):
    """A stopwatch that knows the stage in which a turn failed."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._running: list[str] = []
        self._failed: tuple[str, str] | None = None

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        with self._lock:
            self._running.append(stage)
        try:
            with super().time(stage):
                yield
        except Exception as error:
            with self._lock:
                if self._failed is None and not isinstance(error, ClientGone):  # which ends what runs beside the fault
                    self._failed = (stage, type(error).__name__)
            raise
        finally:
            with self._lock:
                self._running.remove(stage)

    def blame(self, error: MirrorChatError) -> tuple[str, str]:
        """Return the stage that failed (or was running), and the type of the first error."""
        with self._lock:
            if self._failed is not None:
                return self._failed
            stage = "recognize" if isinstance(error, NoWords) else next(iter(self._running), "speak")
            return stage, type(error).__name__


def findings(tell: Say, *options: str) -> Iterator[Finding]:
    """Yield a finding for the engines, and one for a turn in each language. PARROT replaces the chat APIs."""
    settings = load_settings()
    if PARROT in options:
        settings = replace(settings, chatgpt_apis=())
    tell("loading the engines")
    started = time.monotonic()
    try:
        engines = build_engines(settings)
    except (ConfigurationError, ModelNotInstalled) as error:
        remedy = "see the sections on weights, packages and device: the server cannot start"
        yield problem("load", error.message, remedy, stage="load")
        return
    load_ms = round(1000 * (time.monotonic() - started))
    yield ok("load", f"{load_ms} ms: {_names(engines)}", load_ms=load_ms, **_engines_by_stage(engines))
    yield from turns(engines, settings, tell)


def turns(
    engines: Engines, settings: Settings, tell: Say, languages: Iterable[Language] = Language
) -> Iterator[Finding]:
    """Yield a finding for a turn in each of `languages`, and close `engines`."""
    pipeline = Pipeline(engines, system_prompt=settings.system_prompt, seed=settings.seed, max_turns=1)
    try:
        for language in languages:
            tell(f"a turn in {language.value.capitalize()}")
            yield from _turn(pipeline, settings, language)
    finally:
        pipeline.close()


def _engines_by_stage(engines: Engines) -> dict[str, Value]:
    return {stage: info.name for stage, info in engines.infos().items()}


def _names(engines: Engines) -> str:
    infos = engines.infos()
    return ", ".join(
        f"{stage} {info.name}{f' on {info.device}' if info.device else ''}{f' ({info.tier})' if info.tier else ''}"
        for stage, info in infos.items()
    )


def _turn(pipeline: Pipeline, settings: Settings, language: Language) -> Iterator[Finding]:
    """Ask a question. If no words are recognized, ask again with its text, to try the other stages too."""
    text, _ = QUESTIONS[language]
    subject = language.value.capitalize()
    synthesizer = pipeline.engines.synthesizers[language]
    try:
        recording = encode_wav(speak_question(language, synthesizer, limit_s=settings.turn_deadline_s))
    except WorkerFailed as error:
        yield problem(subject, f"the question could not be spoken: {error}", _PACKAGES, stage="question")
        return
    no_recognizer = pipeline.engines.recognizers[language].info.name == "none"
    finding = _asked(pipeline, settings, language, recording, text if no_recognizer else None)
    yield finding
    if finding.values.get("error") == NoWords.__name__:
        yield replace(_asked(pipeline, settings, language, recording, text), subject=f"{subject}, text given")


def _asked(pipeline: Pipeline, settings: Settings, language: Language, recording: bytes, text: str | None) -> Finding:
    watch = StageWatch()
    subject = language.value.capitalize()
    context = Context.after(settings.turn_deadline_s)
    try:
        with watch.time("decode"):
            audio = decode_speech(recording, limit_s=settings.question_limit_s)
        with Admission(1).acquire(context) as slot:
            answer = pipeline.answer(Question(audio, language, language, text), slot, watch=watch)
        if answer.unspoken:
            raise answer.unspoken[0].reason
    except MirrorChatError as error:
        return _failure(subject, watch, error, pipeline.engines, language)
    return _success(subject, watch, answer, given=text is not None)


def _success(subject: str, watch: Stopwatch, answer: Answer, *, given: bool) -> Finding:
    times = _times(watch)
    transcript = "its text was given" if given else f"transcript {answer.transcript!r}"
    text = f"{_listed(times)}; {answer.audio.duration_s:.1f} s of speech ({answer.voice.kind.value}); {transcript}"
    return ok(subject, text, **times, speech_s=round(answer.audio.duration_s, 2), voice=answer.voice.kind.value)


def _failure(subject: str, watch: StageWatch, error: MirrorChatError, engines: Engines, language: Language) -> Finding:
    stage, kind = watch.blame(error)
    times = _times(watch)
    values: dict[str, Value] = {"stage": stage, "error": kind, **times}
    remedy = _remedy(stage, engines, language)
    if isinstance(error, NoWords):
        found = "recognize: no words were recognized in a synthetic question"
        return warning(subject, found, f"if it does not recognize your speech either: {remedy}", **values)
    found = f"{stage}: {error.message} ({kind}); {_listed(times)}"
    return problem(subject, found, _TOO_SLOW if kind == DeadlineExceeded.__name__ else remedy, **values)


def _remedy(stage: str, engines: Engines, language: Language) -> str:
    if stage == "answer":
        return _CHAT
    engine = engines.recognizers[language] if stage == "recognize" else engines.synthesizers[language]
    return _PACKAGES if stage == "decode" or engine.info.name == "embedded" else _MODEL


def _times(watch: Stopwatch) -> dict[str, Value]:
    """Return the milliseconds of each stage that ran, of the whole turn, and until the first sound."""
    seconds = watch.timings().seconds
    times: dict[str, Value] = {f"{name}_ms": round(1000 * seconds[name]) for name in STAGES if name in seconds}
    if watch.first_audio_s is not None:
        times["first_audio_ms"] = round(1000 * watch.first_audio_s)
    return {**times, "total_ms": round(1000 * seconds["total"])}


def _listed(times: dict[str, Value]) -> str:
    return ", ".join(f"{name.removesuffix('_ms').replace('_', ' ')} {value} ms" for name, value in times.items())
