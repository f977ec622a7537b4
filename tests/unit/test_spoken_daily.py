"""Text normalization: what answers of daily life hold, by kind, right to the character."""

import pytest
from support.spoken_chinese_daily import CHINESE_DAILY
from support.spoken_english_daily import ENGLISH_DAILY

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text

TABLES = {Language.CHINESE: CHINESE_DAILY, Language.ENGLISH: ENGLISH_DAILY}
CASES = [
    pytest.param(language, *case, id=f"{kind}: {case[0]}")
    for language, table in TABLES.items()
    for kind, cases in table.items()
    for case in cases
]


@pytest.mark.parametrize(("language", "written", "spoken"), CASES)
def test_daily_life(language: Language, written: str, spoken: str) -> None:
    assert normalize_text(written, language) == spoken
    assert normalize_text(spoken, language) == spoken


@pytest.mark.parametrize("language", list(TABLES))
def test_every_kind_has_eight_cases(language: Language) -> None:
    assert {kind: len(cases) for kind, cases in TABLES[language].items() if len(cases) < 8} == {}
