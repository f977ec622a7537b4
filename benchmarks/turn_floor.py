"""The small models against the floor: turns of one caller in alternation, and the time to hear a question of 3 s."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.turn_player import Caller, Heard, percentiles
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer
from mirrorchat.engines import Language, Recognizer

Figures = dict[str, Any]
Ask = Callable[[Caller], Heard]

ROOT = Path(__file__).resolve().parent.parent
WARM_UPS = 2  # the first answers after a start are those of an engine of unknown speed
SPOKEN_QUESTION = "What is the best way to learn a new language in a single year?"  # 3 s, as hibari speaks it
# The floor hears no Mandarin: it hears the English question and answers in Mandarin. Both questions last 2.2 s.
QUESTIONS = {
    "floor": {Language.ENGLISH: "english", Language.CHINESE: "english"},
    "small": {Language.ENGLISH: "english", Language.CHINESE: "chinese"},
}
RECORDINGS = {"english": "question.wav", "chinese": "question_zh.wav"}


def callers_of(side: str, port: int) -> dict[Language, Caller]:
    """Return a caller for each language of the answer."""
    asked = QUESTIONS[side]
    return {
        answer: Caller(
            port,
            (ROOT / "examples" / RECORDINGS[question]).read_bytes(),
            language=question,
            reply_language=answer.value,
        )
        for answer, question in asked.items()
    }


def compare_with_floor(sides: dict[str, tuple[dict[Language, Caller], Ask]], turns: int) -> Figures:
    """Return the figures of `turns` turns on each side, "floor" and "small", for each language of the answer."""
    figures: Figures = {"first_sound": {}, "first_sound_ms": {}, "underruns": {}, "worst_gap_ms": {}, "answers": turns}
    for language in Language:
        heard: dict[str, list[Heard]] = {side: [] for side in sides}
        for at in range(WARM_UPS + turns):
            for side, (callers, ask) in sides.items():
                turn = ask(callers[language])
                heard[side] += [turn] if at >= WARM_UPS else []
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


def compare_hearing(models: Path, threads: int, rounds: int) -> Figures:
    """Return the time of the small recognizer over pocketsphinx's for a question of 3 s, heard in alternation."""
    from mirrorchat.small.speech import NeutralSpeech
    from mirrorchat.small.voices_base import HIBARI_VOICE, BaseVoice
    from mirrorchat.small.whisper import WhisperRecognizer

    speech = NeutralSpeech(None, threads).speak(SPOKEN_QUESTION, BaseVoice(HIBARI_VOICE, Language.ENGLISH), Context())
    assert speech is not None
    floor, small = EmbeddedRecognizer(), WhisperRecognizer(models / "whisper-base", threads=threads)
    times_ms: dict[str, list[float]] = {"pocketsphinx": [], "small": []}
    try:
        for at in range(1 + rounds):
            for name, engine in (("pocketsphinx", floor), ("small", small)):
                spent_ms = _hearing_ms(engine, speech)
                times_ms[name] += [spent_ms] if at else []
    finally:
        floor.close()
        small.close()
    ratio = statistics.median(times_ms["small"]) / statistics.median(times_ms["pocketsphinx"])
    figures = {
        "hearing": round(ratio, 2),
        "hearing_ms": {name: percentiles(times) for name, times in times_ms.items()},
        "hearing_question_s": round(speech.duration_s, 2),
    }
    print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


def _hearing_ms(recognizer: Recognizer, speech: Audio) -> float:
    started = time.perf_counter()
    recognizer.recognize(speech, Language.ENGLISH, context=Context.after(60.0))
    return 1000 * (time.perf_counter() - started)
