"""Text normalization: what answers of daily life hold, by kind, right to the character."""

import pytest
from support.spoken import kinds_with_few_cases, parameters
from support.spoken_chinese_daily import CHINESE_DAILY
from support.spoken_english_daily import ENGLISH_DAILY

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text

TABLES = {Language.CHINESE: CHINESE_DAILY, Language.ENGLISH: ENGLISH_DAILY}
CASES = parameters(TABLES)


@pytest.mark.parametrize(("language", "written", "spoken"), CASES)
def test_daily_life(language: Language, written: str, spoken: str) -> None:
    assert normalize_text(written, language) == spoken
    assert normalize_text(spoken, language) == spoken


@pytest.mark.parametrize("language", list(TABLES))
def test_every_kind_has_eight_cases(language: Language) -> None:
    assert kinds_with_few_cases(TABLES[language]) == {}
