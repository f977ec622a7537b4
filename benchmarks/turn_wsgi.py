"""The application of benchmarks/turn.py: the real one, with measurements and a second route.

- Random weights never end a sentence. So each piece of text gets the number of audio tokens that speech of its length
  has. The time of a token does not depend on the values of the weights.
- The recognizer, the voice and the first chunk of a sentence are timed; GET /measured returns the times.
- POST /original answers in the order of the original design, on the same engines.
"""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast
from unittest.mock import patch

import numpy as np
from flask import Blueprint, Response, current_app, jsonify, request

from mirrorchat.app import create_app
from mirrorchat.audio.decoding import decode
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Engines, Language, Priority
from mirrorchat.llm import build_messages
from mirrorchat.server import runtime as server_runtime
from mirrorchat.server.runtime import Runtime
from mirrorchat.settings import Settings
from mirrorchat.startup.loading import build_engines
from mirrorchat.text.splitter import SentenceSplitter

P = ParamSpec("P")
R = TypeVar("R")

TOKENS_S = 21.5  # audio tokens of XTTS in a second of speech
CHARACTERS_S = {Language.ENGLISH: 14.0, Language.CHINESE: 4.5}  # of speech per second
LANGUAGE = Language.ENGLISH

_measured: list[tuple[str, float]] = []  # stage, seconds
bench = Blueprint("bench", __name__)


@bench.get("/measured")
def measured() -> Response:
    """Return the stages of all turns since the last call, and the number of turns that hold a slot."""
    stages = _measured.copy()
    _measured.clear()
    return jsonify(stages=stages, running=_runtime().admission.running)


@bench.post("/original")
def original() -> Response:
    """Recognize, compute the voice, wait for the whole answer, speak every sentence, and send one wav."""
    runtime = _runtime()
    engines, context = runtime.pipeline.engines, Context.after(runtime.settings.turn_deadline_s)
    audio = decode(request.files["audio"].read(), limit_s=runtime.settings.question_limit_s)
    heard = engines.recognizers[LANGUAGE].recognize(audio, LANGUAGE, context=context)
    synthesizer = engines.synthesizers[LANGUAGE]
    voice = synthesizer.voice([audio])
    messages = build_messages(runtime.pipeline.system_prompt, LANGUAGE, heard.text)
    reply = "".join(text for text in engines.chat.stream(messages, context=context) if isinstance(text, str))
    cutter = SentenceSplitter(LANGUAGE)
    speech = [
        audio.samples
        for sentence in [*cutter.feed(reply), *cutter.flush()]
        for audio in synthesizer.speak(sentence, voice, LANGUAGE, seed=0, priority=Priority.LATER, context=context)
    ]
    return Response(encode_wav(Audio(np.concatenate(speech), synthesizer.sample_rate)), mimetype="audio/wav")


def _runtime() -> Runtime:
    return cast(Runtime, current_app.extensions["mirrorchat"])


def build_measured_engines(settings: Settings) -> Engines:
    """Return the engines of `settings` with timers. XTTS gets sentences of fixed length."""
    engines = build_engines(settings)
    for recognizer in engines.recognizers.values():
        patch.object(recognizer, "recognize", _timed("recognize", recognizer.recognize)).start()
    for synthesizer in {id(each): each for each in engines.synthesizers.values()}.values():
        patch.object(synthesizer, "voice", _timed("voice", synthesizer.voice)).start()
        patch.object(synthesizer, "speak", _first_chunk_timed(synthesizer.speak)).start()
    if "mirrorchat.synth" in sys.modules:  # no import here: torch takes half the memory of the embedded engines
        _give_sentences_a_length()
    return engines


def _timed(stage: str, work: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(work)
    def timed(*arguments: P.args, **settings: P.kwargs) -> R:
        started = time.monotonic()
        result = work(*arguments, **settings)
        _measured.append((stage, time.monotonic() - started))
        return result

    return timed


def _first_chunk_timed(speak: Callable[..., Iterator[Audio]]) -> Callable[..., Iterator[Audio]]:
    """Return `speak` with a timer for the first audio of the first sentence."""

    def timed(*arguments: Any, priority: Priority, **settings: Any) -> Iterator[Audio]:
        started, waiting = time.monotonic(), priority is Priority.FIRST
        for audio in speak(*arguments, priority=priority, **settings):
            if waiting:
                _measured.append(("first_chunk", time.monotonic() - started))
                waiting = False
            yield audio

    return timed


def tokens_of(piece: str, language: Language) -> int:
    """Return the number of audio tokens of `piece` at the pace of ordinary speech."""
    return math.ceil(len(piece) * TOKENS_S / CHARACTERS_S[language])


def _give_sentences_a_length() -> None:
    from mirrorchat import synth
    from mirrorchat.xtts.decode import DecodeEngine
    from mirrorchat.xtts.utterance import FinishReason, Request, Utterance

    submit, finish = DecodeEngine.submit, Utterance.finish

    def submit_exactly(engine: DecodeEngine, wanted: Request) -> Utterance:
        sampling = replace(wanted.sampling, min_tokens=wanted.max_tokens)
        return submit(engine, replace(wanted, sampling=sampling))

    def finish_well(utterance: Utterance, reason: FinishReason) -> None:
        finish(utterance, FinishReason.STOP if reason is FinishReason.LENGTH else reason)

    patch.object(synth, "token_budget", tokens_of).start()
    patch.object(DecodeEngine, "submit", submit_exactly).start()
    patch.object(Utterance, "finish", finish_well).start()


patch.object(server_runtime, "build_engines", build_measured_engines).start()
app = create_app()
app.register_blueprint(bench)
