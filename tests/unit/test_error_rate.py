"""Error rates: cases counted by hand, properties, and what two texts that say the same have in common."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorchat.cli.evaluation.error_rate import FEWEST_RESAMPLED, Edits, edits, interval, tokens
from mirrorchat.engines import Language

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
TEXTS = st.lists(st.sampled_from("abcd"), max_size=12)


@pytest.mark.parametrize(
    ("said", "heard", "substituted", "deleted", "inserted"),
    [
        ("", "", 0, 0, 0),
        ("a b c", "a b c", 0, 0, 0),
        ("a b c", "", 0, 3, 0),
        ("", "a b", 0, 0, 2),
        ("a b c", "a x c", 1, 0, 0),
        ("a b c", "a c", 0, 1, 0),
        ("a c", "a b c", 0, 0, 1),
        ("a b", "b a", 2, 0, 0),
        ("the cat sat on the mat", "a cat on the mat mat", 1, 1, 1),
        ("k i t t e n", "s i t t i n g", 2, 0, 1),
    ],
)
def test_edits_counted_by_hand(said: str, heard: str, substituted: int, deleted: int, inserted: int) -> None:
    wanted = said.split()
    assert edits(wanted, heard.split()) == Edits(substituted, deleted, inserted, len(wanted))


@given(TEXTS, TEXTS, TEXTS)
def test_a_detour_is_never_shorter(one: list[str], other: list[str], third: list[str]) -> None:
    assert edits(one, third).errors <= edits(one, other).errors + edits(other, third).errors


def test_rates_are_of_what_was_said() -> None:
    total = edits(["a", "b", "c"], ["a", "b"]) + edits(["d"], ["d", "e", "f"])
    assert total == Edits(0, 1, 2, 4) and total.rate == 0.75
    assert Edits(0, 0, 2, 0).rate is None


@pytest.mark.parametrize(
    ("one", "other", "language", "expected"),
    [
        ("It's 5 o'clock, isn’t it?", "IT'S FIVE O'CLOCK ISN'T IT", ENGLISH, 5),
        ("Dr. Smith paid $20.", "doctor smith paid twenty dollars", ENGLISH, 5),
        ("well-known -- 'quoted' words", "well known quoted words", ENGLISH, 4),
        ("IT WAS US", "It was us", ENGLISH, 3),  # capitals are no acronyms here
        ("Café ｄｅｆ", "cafe\u0301 def", ENGLISH, 2),
        ("今天25度，很热！", "今天二十五度很热", CHINESE, 8),
        ("换 一 首 歌", "换一首歌", CHINESE, 4),
        ("我用iPhone", "我用 iphone", CHINESE, 3),
    ],
)
def test_what_sounds_the_same_is_the_same(one: str, other: str, language: Language, expected: int) -> None:
    assert tokens(one, language) == tokens(other, language)
    assert len(tokens(one, language)) == expected


@given(st.text(max_size=60), st.sampled_from(list(Language)))
def test_any_text_has_units_without_blanks(text: str, language: Language) -> None:
    assert all(unit and not any(map(str.isspace, unit)) for unit in tokens(text, language))


def test_intervals_hold_the_rate_and_need_enough_texts() -> None:
    parts = [Edits(count % 3, 0, 0, 10) for count in range(30)]
    bounds = interval(parts)
    assert bounds and 0.0 < bounds[0] < 0.1 < bounds[1] < 0.2
    assert interval(parts) == bounds
    assert interval([Edits(1, 0, 0, 10)] * FEWEST_RESAMPLED) == (0.1, 0.1)
    assert interval(parts[: FEWEST_RESAMPLED - 1]) is None
