"""The small synthesizer in a turn: Mandarin begins with a short clause, and is cut between words only."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from support.chat_server import ChatServer, answer
from support.small_models import kokoro_folder
from support.turns import Turns

from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer
from mirrorchat.engines import Language, SpeaksClauses, Synthesizer
from mirrorchat.text.clauses import spoken_length
from mirrorchat.text.splitter import SentenceSplitter
from mirrorchat.turn.clause_pace import FAST_SPEED, FIRST_CHARS
from mirrorchat.turn.events import Done, SpokenAudio

CHINESE = Language.CHINESE
REPLY = "学习一门语言最好的办法是每天练习三十分钟，而且从第一周起就大声说。多听说得好的人怎么讲，再重复2026年的新闻。"
SENTENCES = SentenceSplitter(CHINESE).feed(REPLY + "\n")


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    folder: Path = kokoro_folder()
    try:
        from mirrorchat.small.synthesizer import SmallSynthesizer
    except ModuleNotFoundError as error:
        pytest.skip(f"small models absent: {error}")
    return SmallSynthesizer(folder, threads=2)


def spoken_texts(synthesizer: Synthesizer, *, speed: float | None) -> list[str]:
    """Return the texts that a turn speaks one by one, where speech has lately had the `speed`."""
    # The question comes with its words, so no recognizer is asked.
    engines = (cast(EmbeddedRecognizer, None), cast(EmbeddedSynthesizer, synthesizer))
    with ChatServer(answer(REPLY)) as chat:
        turns = Turns(engines, chat)
        if speed is not None:
            turns.admission.playback.spoke(100.0 * speed, 100.0, 1, CHINESE)
        events = list(turns.run("你好", reply_language=CHINESE, deadline_s=300.0))
    assert isinstance(events[-1], Done)
    return list(dict.fromkeys(event.sentence for event in events if isinstance(event, SpokenAudio)))


def ends(texts: Sequence[str]) -> set[int]:
    return {sum(map(len, texts[: index + 1])) for index in range(len(texts))}


def test_mandarin_begins_with_a_clause_of_eight_characters(synthesizer: Synthesizer) -> None:
    texts = spoken_texts(synthesizer, speed=None)
    assert 3 <= spoken_length(texts[0]) <= FIRST_CHARS[CHINESE] == 8
    assert "".join(texts) == REPLY
    assert isinstance(synthesizer, SpeaksClauses)
    assert ends(texts) <= ends(synthesizer.words(REPLY))
    assert any("三十分钟" in text for text in texts) and any("2026年" in text for text in texts)


def test_fast_speech_keeps_its_sentences(synthesizer: Synthesizer) -> None:
    assert spoken_texts(synthesizer, speed=2.0 * FAST_SPEED) == SENTENCES
    assert spoken_length(SENTENCES[0]) > FIRST_CHARS[CHINESE]
