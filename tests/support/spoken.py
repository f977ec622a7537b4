"""What is spoken of an answer: the splitter and text normalization in a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import SentenceSplitter


def spoken_sentences(answer: str, language: Language) -> list[str]:
    """Return the sentences of `answer` in spoken form."""
    splitter = SentenceSplitter(language)
    return [normalize_text(sentence, language) for sentence in splitter.feed(answer) + splitter.flush()]


def spoken(answer: str, language: Language) -> str:
    """Return `answer` in spoken form, in one line."""
    return ("" if language is Language.CHINESE else " ").join(spoken_sentences(answer, language))


Table = Mapping[str, Sequence[tuple[str, str]]]
"""Cases by kind: what is written, and what is spoken."""


def parameters(tables: Mapping[Language, Table]) -> list[Any]:
    """Return pytest's parameters (language, written, spoken), named after the kind and what is written."""
    return [
        pytest.param(language, *case, id=f"{kind}: {case[0]}")
        for language, table in tables.items()
        for kind, cases in table.items()
        for case in cases
    ]


def kinds_with_few_cases(table: Table) -> dict[str, int]:
    """Return the kinds with fewer than eight cases, and their numbers."""
    return {kind: len(cases) for kind, cases in table.items() if len(cases) < 8}
