"""The spoken question where one of the embedded engines fails: the stage is named, and what to do."""

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from support.small_models import kokoro_folder, whisper_folder

from mirrorchat.cli.doctor.findings import Finding, State
from mirrorchat.cli.doctor.round_trip import STAGES, turns
from mirrorchat.cli.synthetic_speech import QUESTIONS, speak_question, synthesize
from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer, ParrotChat
from mirrorchat.engines import EngineInfo, Engines, Language, Tier, Transcript
from mirrorchat.errors import NoChatApi, RecognitionFailed, SynthesisFailed
from mirrorchat.settings import Settings
from mirrorchat.small.synthesizer import SmallSynthesizer
from mirrorchat.small.whisper import WhisperRecognizer

Embedded = tuple[EmbeddedRecognizer, ParrotChat, EmbeddedSynthesizer]


@pytest.fixture(scope="module")
def engines() -> Iterator[Embedded]:
    recognizer, synthesizer = EmbeddedRecognizer(), EmbeddedSynthesizer()
    yield recognizer, ParrotChat(), synthesizer
    recognizer.close()
    synthesizer.close()


class Except:
    """An engine in all but one thing; it is not closed, as others use it after this test."""

    def __init__(self, engine: object, method: str = "", does: object = None) -> None:
        self._engine = engine
        self._method, self._does = method, does

    def __getattr__(self, name: str) -> Any:
        return self._does if name == self._method else getattr(self._engine, name)

    def close(self) -> None:
        pass


def turn(
    engines: Embedded, method: str = "", does: Callable[..., Any] | None = None, limit_s: float = 60.0
) -> list[Finding]:
    """Return what is found of an English turn when `method`, whichever engine's it is, does something else."""
    recognizer, chat, synthesizer = (cast(Any, Except(engine, method, does)) for engine in engines)
    whole = Engines(dict.fromkeys(Language, recognizer), chat, dict.fromkeys(Language, synthesizer))
    said: list[str] = []
    found = list(turns(whole, Settings(turn_deadline_s=limit_s), said.append, [Language.ENGLISH]))
    assert said == ["a turn in English"]
    return found


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_every_stage_has_its_time(engines: Embedded) -> None:
    (found,) = turn(engines)
    assert found.state is State.OK and "learn a language" in found.found
    assert [name for name in found.values if name.endswith("_ms")] == [
        *(f"{stage}_ms" for stage in STAGES), "first_audio_ms", "total_ms"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "error", "stage", "remedy"),
    [
        ("recognize", RecognitionFailed("it crashed"), "recognize", "scripts/environment"),
        ("voice", SynthesisFailed("no voice"), "voice", "scripts/environment"),
        ("stream", NoChatApi("no chat API answered", []), "answer", "chatgpt_apis"),
        ("speak", SynthesisFailed("no sound"), "speak", "scripts/environment"),
        ("speak", ZeroDivisionError("sk-secret"), "speak", "scripts/environment"),
    ],
)
def test_a_failing_stage_is_named_with_what_to_do(
    engines: Embedded, method: str, error: Exception, stage: str, remedy: str
) -> None:
    (found,) = turn(engines, method, failing(error))
    assert found.state is State.PROBLEM and found.found.startswith(f"{stage}: ") and remedy in found.remedy
    assert found.values["stage"] == stage and found.values["error"] == type(error).__name__
    assert "sk-secret" not in found.found


def test_a_stage_that_takes_too_long_is_named(engines: Embedded) -> None:
    (found,) = turn(engines, "recognize", lambda *_, **__: time.sleep(2.0), limit_s=1.0)
    assert found.state is State.PROBLEM and found.values["stage"] == "recognize"
    assert found.values["error"] == "DeadlineExceeded" and "turn_deadline_s" in found.remedy
    assert "; decode " in found.found and "total_ms" in found.values


def test_where_nothing_is_heard_the_other_stages_are_tried_with_the_words(engines: Embedded) -> None:
    heard = lambda *_, **__: Transcript("", Language.ENGLISH)  # noqa: E731
    unheard, given = turn(engines, "recognize", heard)
    assert unheard.state is State.WARNING and unheard.values["error"] == "NoWords"
    assert given.state is State.OK and given.subject == "English, text given" and "speak_ms" in given.values


def test_the_small_voice_asks_in_mandarin_and_whisper_hears_it() -> None:
    recognizer = WhisperRecognizer(whisper_folder(), threads=2)
    synthesizer = SmallSynthesizer(kokoro_folder(), threads=2)
    whole = Engines(dict.fromkeys(Language, recognizer), ParrotChat(), dict.fromkeys(Language, synthesizer))
    (found,) = turns(whole, Settings(), lambda _: None, [Language.CHINESE])
    assert found.state is State.OK and "'今天天气怎么样？'" in found.found and found.values["voice"] == "tint"


def test_a_misheard_question_is_no_problem(engines: Embedded) -> None:
    """eSpeak NG asks in Mandarin and Whisper hears something else."""
    recognizer = WhisperRecognizer(whisper_folder(), threads=2)
    whole = Engines(
        dict.fromkeys(Language, recognizer), ParrotChat(), dict.fromkeys(Language, cast(Any, Except(engines[2])))
    )
    for found in turns(whole, Settings(), lambda _: None, [Language.CHINESE]):
        assert found.state is not State.PROBLEM and "今天天气怎么样" not in found.found


def test_where_the_installed_voice_fails_espeak_ng_asks(engines: Embedded) -> None:
    info = EngineInfo("small", "a model", "cpu", "", Tier.SMALL)
    synthesizer = Except(Except(engines[2], "info", info), "speak", failing(SynthesisFailed("no sound")))
    (espeak,) = synthesize(QUESTIONS[Language.ENGLISH])
    spoken = speak_question(Language.ENGLISH, cast(Any, synthesizer), limit_s=10.0)
    assert (spoken.sample_rate, len(spoken.samples)) == (espeak.sample_rate, len(espeak.samples))
