"""Text cut for XTTS."""

import re

import pytest
from support.xtts_texts import CHINESE, ENGLISH, LONG, SHORT

from mirrorchat.engines import Language
from mirrorchat.xtts.text import CHARACTER_LIMITS, FEWEST_WORDS, TextSplitter


def splitter(language: Language, token_limit: int = 402) -> TextSplitter:
    return TextSplitter(language, len, token_limit)  # a token for each character


@pytest.mark.parametrize("language", [ENGLISH, CHINESE])
@pytest.mark.parametrize("token_limit", [402, 60, 20])
def test_nothing_is_lost_within_the_limits(language: Language, token_limit: int) -> None:
    pieces = splitter(language, token_limit).split(LONG[language])
    assert squeezed("".join(pieces)) == squeezed(LONG[language])
    assert all(len(piece) <= CHARACTER_LIMITS[language] and len(piece) < token_limit for piece in pieces)


def test_a_word_without_breaks_is_cut() -> None:
    pieces = splitter(ENGLISH).split("a" * 1_000)
    assert "".join(pieces) == "a" * 1_000
    assert max(map(len, pieces)) <= CHARACTER_LIMITS[ENGLISH]


@pytest.mark.parametrize(("language", "word"), [(ENGLISH, "Yes."), (CHINESE, "好的。")])
def test_short_sentences_join_their_neighbours(language: Language, word: str) -> None:
    for text in (f"{LONG[language]} {word}", f"{word} {LONG[language]}", f"{word} {SHORT[language]}", f"{word} {word}"):
        pieces = splitter(language).split(text)
        assert squeezed("".join(pieces)) == squeezed(text)
        assert len(pieces) == 1 or all(len(re.findall(r"[^\W_]", p)) > FEWEST_WORDS[language] for p in pieces)


def test_a_short_sentence_after_a_full_piece_takes_words_from_it() -> None:
    full = " ".join(["word"] * 49) + " end."
    assert len(full) == CHARACTER_LIMITS[ENGLISH] - 1
    first, second = splitter(ENGLISH).split(f"{full} Yes.")
    assert f"{first} {second}" == f"{full} Yes."
    assert len(second.split()) > FEWEST_WORDS[ENGLISH]


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)
