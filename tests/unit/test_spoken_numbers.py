"""Text normalization: numbers as people write them, by kind, right to the character."""

import re

import pytest
from support.spoken import kinds_with_few_cases, parameters
from support.spoken_chinese_numbers import CHINESE_NUMBERS
from support.spoken_english_numbers import ENGLISH_NUMBERS

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import SentenceSplitter

TABLES = {Language.CHINESE: CHINESE_NUMBERS, Language.ENGLISH: ENGLISH_NUMBERS}
CASES = parameters(TABLES)


@pytest.mark.parametrize(("language", "written", "spoken"), CASES)
def test_numbers_of_people(language: Language, written: str, spoken: str) -> None:
    assert normalize_text(written, language) == spoken
    assert normalize_text(spoken, language) == spoken


def without_pauses(words: str) -> str:
    return re.sub(r"[\s,.;:!?，。；：！？、“”\"]", "", words)


@pytest.mark.parametrize("language", list(TABLES))
def test_numbers_in_a_stream_are_spoken_alike(language: Language) -> None:
    """The sentences of an answer are cut before they are spoken: no cut may stand inside a number."""
    ends = {Language.CHINESE: "。然后呢？", Language.ENGLISH: " today. And then?"}
    for cases in TABLES[language].values():
        for written, spoken in cases:
            splitter = SentenceSplitter(language)
            sentences = splitter.feed(written + ends[language]) + splitter.flush()
            words = " ".join(normalize_text(sentence, language) for sentence in sentences)
            assert without_pauses(words).startswith(without_pauses(spoken)), written


@pytest.mark.parametrize("language", list(TABLES))
def test_every_kind_has_eight_cases(language: Language) -> None:
    assert kinds_with_few_cases(TABLES[language]) == {}
