"""The small models against the floor: turns of one caller in alternation, and the time to hear a question of 3 s."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turn_player import Caller, Heard, percentiles
from mirrorchat.audio.decoding import decode_speech
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer
from mirrorchat.engines import Language, Priority, Recognizer, Voice, VoiceKind

Figures = dict[str, Any]
ANSWER_LIMIT_S = 60.0
QUESTION_LIMIT_S = 10.0

# 3 s each, as the small models speak them. The floor hears no Mandarin: it hears the English question and answers in
# Mandarin.
QUESTIONS = {
    Language.ENGLISH: "What is the best way to learn a new language in a single year?",
    Language.CHINESE: "学习语言最好的办法是什么？",
}


@dataclass(frozen=True)
class Side:
    """A server: a caller for each language of the answer, and what returns a caller's turn."""

    callers: dict[Language, Caller]
    ask: Callable[[Caller], Heard]


def spoken_questions(models: Path, threads: int, english: Path | None) -> dict[Language, Audio]:
    """Return QUESTIONS as the small models speak them, in their own voices; `english` is a recording for the first.

    pocketsphinx takes twice as long to hear a person as to hear a synthetic voice.
    """
    from mirrorchat.small.synthesizer import SmallSynthesizer

    synthesizer, neutral = SmallSynthesizer(models / "kokoro", threads=threads), Voice(VoiceKind.NEUTRAL, "")
    spoken: dict[Language, Audio] = {}
    for language, text in QUESTIONS.items():
        if english and language is Language.ENGLISH:
            spoken[language] = decode_speech(english.read_bytes(), limit_s=QUESTION_LIMIT_S)
            continue
        pieces = synthesizer.speak(
            text, neutral, language, seed=0, priority=Priority.LATER, context=Context.after(ANSWER_LIMIT_S)
        )
        spoken[language] = Audio(np.concatenate([piece.samples for piece in pieces]), synthesizer.sample_rate)
    return spoken


def callers_of(side: str, port: int, questions: dict[Language, Audio]) -> dict[Language, Caller]:
    """Return a caller of the server at `port` for each language of the answer."""
    callers = {}
    for answer in Language:
        asked = answer if side == "small" else Language.ENGLISH
        recording = encode_wav(questions[asked])
        callers[answer] = Caller(port, recording, language=asked.value, reply_language=answer.value)
    return callers


def compare_with_floor(sides: dict[str, Side], turns: int) -> Figures:
    """Return the figures of `turns` turns on each side, "floor" and "small", for each language of the answer.

    A turn of each warms up: at the first one the server does not know the speed of its speech.
    """
    figures: Figures = {"first_sound": {}, "first_sound_ms": {}, "underruns": {}, "worst_gap_ms": {}, "answers": turns}
    for language in Language:
        heard: dict[str, list[Heard]] = {side: [] for side in sides}
        for at in range(1 + turns):
            for name, side in sides.items():
                turn = side.ask(side.callers[language])
                heard[name] += [turn] if at else []
        figures = _with_language(figures, language.value, heard)
        print(f"  {language.value}: " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


def _with_language(figures: Figures, language: str, heard: dict[str, list[Heard]]) -> Figures:
    """Return `figures` with those of one language. Underruns and gaps are the small models'."""
    first_ms = {side: percentiles([turn.first_s for turn in turns], 1000) for side, turns in heard.items()}
    medians = {side: statistics.median(turn.first_s for turn in turns) for side, turns in heard.items()}
    gaps_s = [gap for turn in heard["small"] for gap in turn.gaps_s]
    values = {
        "first_sound": round(medians["small"] / medians["floor"], 2),
        "first_sound_ms": first_ms,
        "underruns": len(gaps_s),
        "worst_gap_ms": round(1000 * max(gaps_s, default=0.0), 1),
    }
    return figures | {name: figures[name] | {language: value} for name, value in values.items()}


def compare_hearing(question: Audio, models: Path, threads: int, rounds: int) -> Figures:
    """Return the small recognizer's time to hear `question` (English) over pocketsphinx's, heard in alternation."""
    from mirrorchat.small.whisper import WhisperRecognizer

    floor, small = EmbeddedRecognizer(), WhisperRecognizer(models / "whisper-base", threads=threads)
    times_ms: dict[str, list[float]] = {"pocketsphinx": [], "small": []}
    try:
        for at in range(1 + rounds):
            for name, engine in (("pocketsphinx", floor), ("small", small)):
                spent_ms = _hearing_ms(engine, question)
                times_ms[name] += [spent_ms] if at else []
    finally:
        floor.close()
        small.close()
    ratio = statistics.median(times_ms["small"]) / statistics.median(times_ms["pocketsphinx"])
    figures = {
        "hearing": round(ratio, 2),
        "hearing_ms": {name: percentiles(times) for name, times in times_ms.items()},
        "hearing_question_s": round(question.duration_s, 2),
    }
    print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


def _hearing_ms(recognizer: Recognizer, speech: Audio) -> float:
    started = time.perf_counter()
    recognizer.recognize(speech, Language.ENGLISH, context=Context.after(ANSWER_LIMIT_S))
    return 1000 * (time.perf_counter() - started)
