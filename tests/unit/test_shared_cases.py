"""Sentences that were once spoken wrongly, in a folder beside the checkout, and what should be spoken.

An expected value may hold remarks: `(or ...)` and the like at its end are left out, `control: X is right` asks for X
somewhere, and `...` stands for any text.
"""

import csv
import re

import pytest
from support.places import CASES

from mirrorchat.chat.reasoning import without_reasoning
from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import SentenceSplitter

_FILE = CASES / "text_cases.tsv"
_REMARK = re.compile(r"\s*\((?:or|no|not|now|one|debatable)\b[^()]*\)$")
_UNREADABLE = "[ก-๛]|letter"  # Thai, and its letters by name


def spoken(text: str, language: Language) -> str:
    """Return everything that is spoken of an answer."""
    splitter = SentenceSplitter(language)
    sentences = splitter.feed(without_reasoning(text)) + splitter.flush()
    return " ".join(normalize_text(sentence, language) for sentence in sentences)


def expected_pattern(expected: str) -> str:
    """Return the pattern that the whole spoken text has to match."""
    control = re.match(r"control: (\S+) is right", expected)
    text = f"...{control[1]}..." if control else _REMARK.sub("", expected)
    return ".*".join(map(re.escape, text.split("..."))) + "[。.]?"


def cases() -> list[tuple[str, str, str, str]]:
    if not _FILE.exists():
        return []
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row[0], row[2], row[3].replace("\\n", "\n").replace("\\\\", "\\"), row[4]) for row in list(rows)[1:]]


@pytest.mark.skipif(not _FILE.exists(), reason="the shared cases are absent")
@pytest.mark.parametrize(("name", "code", "written", "expected"), cases(), ids=[case[0] for case in cases()])
def test_case(name: str, code: str, written: str, expected: str) -> None:
    words = spoken(written, Language.parse(code))
    if expected.startswith("the Thai"):
        assert not re.search(_UNREADABLE, words)
        return
    pattern = expected_pattern(expected)
    if code == "zh":  # sentences join without a space
        words, pattern = words.replace(" ", ""), pattern.replace(r"\ ", "")
    assert re.fullmatch(pattern, words), f"{words}, expected: {expected}"
