"""From an answer to what is spoken of it, right to the character: whole sentences, as chat models write them."""

import pytest
from support.spoken import spoken
from support.spoken_english_answers import ENGLISH_ANSWERS

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text

CASES = [pytest.param(*case, id=case[0]) for cases in ENGLISH_ANSWERS.values() for case in cases]


@pytest.mark.parametrize(("written", "said"), CASES)
def test_english_answers(written: str, said: str) -> None:
    assert spoken(written, Language.ENGLISH) == said
    assert normalize_text(said, Language.ENGLISH) == said


def test_every_kind_has_eight_cases() -> None:
    assert {kind: len(cases) for kind, cases in ENGLISH_ANSWERS.items() if len(cases) < 8} == {}
