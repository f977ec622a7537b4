"""Text normalization: runs of several signs that mean one thing, by kind, right to the character."""

import time

import pytest
from support.spoken import kinds_with_few_cases, parameters
from support.spoken_chinese_runs import CHINESE_RUNS
from support.spoken_english_runs import ENGLISH_RUNS

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text

TABLES = {Language.CHINESE: CHINESE_RUNS, Language.ENGLISH: ENGLISH_RUNS}
CASES = parameters(TABLES)


@pytest.mark.parametrize(("language", "written", "spoken"), CASES)
def test_runs(language: Language, written: str, spoken: str) -> None:
    assert normalize_text(written, language) == spoken
    assert normalize_text(spoken, language) == spoken


@pytest.mark.parametrize("language", list(TABLES))
def test_every_kind_has_eight_cases(language: Language) -> None:
    assert kinds_with_few_cases(TABLES[language]) == {}


@pytest.mark.parametrize("language", list(TABLES))
@pytest.mark.parametrize(
    "unit", ["1-", "1万-", "A1-", "1e5-", "1°1′", "v1.", "1.1.1.1:", "1,1-", "0x1", "1+1-", "Day 1-"]
)
def test_runs_without_an_end_cost_no_more_than_their_length(language: Language, unit: str) -> None:
    text = (unit * 20_000)[:20_000]
    began = time.process_time()
    spoken = normalize_text(text, language)
    assert time.process_time() - began < 10
    assert not any(map(str.isdigit, spoken))
