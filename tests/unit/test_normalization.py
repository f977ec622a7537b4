"""Text normalization: the spoken form of each case is right to the character."""

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spoken_chinese_cases import CHINESE_CASES
from support.spoken_english_cases import ENGLISH_CASES

from mirrorchat.engines import Language
from mirrorchat.text.normalization.chinese_numbers import cardinal as chinese_cardinal
from mirrorchat.text.normalization.normalize import normalize_text

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE


@pytest.mark.parametrize(("written", "spoken"), ENGLISH_CASES)
def test_english(written: str, spoken: str) -> None:
    assert normalize_text(written, ENGLISH) == spoken


@pytest.mark.parametrize(("written", "spoken"), CHINESE_CASES)
def test_chinese(written: str, spoken: str) -> None:
    assert normalize_text(written, CHINESE) == spoken


@pytest.mark.parametrize("cases", [ENGLISH_CASES, CHINESE_CASES], ids=["english", "chinese"])
def test_the_tables_hold_320_distinct_cases(cases: tuple[tuple[str, str], ...]) -> None:
    assert len({written for written, _ in cases}) == len(cases) >= 320


@pytest.mark.parametrize("language", list(Language))
def test_spoken_text_does_not_change(language: Language) -> None:
    for written, _ in ENGLISH_CASES + CHINESE_CASES:
        spoken = normalize_text(written, language)
        assert normalize_text(spoken, language) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        (
            "Dr. Lee paid $20 for 3 kg at 3:30 pm on 9/1/2025.",
            "Doctor Lee paid twenty dollars for three kilograms at three thirty p.m. on September first, "
            "twenty twenty-five.",
        ),
        ("It fell from 5°C to -3°C.", "It fell from five degrees Celsius to minus three degrees Celsius."),
        ("About 50% of 1,000 users pay.", "About fifty percent of one thousand users pay."),
    ],
)
def test_english_sentences(written: str, spoken: str) -> None:
    assert normalize_text(written, ENGLISH) == spoken


def read_back(words: str) -> int:
    """Return the number that Chinese words say: an independent reader, by place values."""
    total = section = digit = 0
    for word in words:
        if word in "零一二三四五六七八九两":
            digit = 2 if word == "两" else "零一二三四五六七八九".index(word)
        elif word in "十百千":
            section += (digit or 1) * {"十": 10, "百": 100, "千": 1000}[word]
            digit = 0
        else:
            group = section + digit
            total = (total + group) * 10**8 if word == "亿" else total + group * 10**4
            section = digit = 0
    return total + section + digit


def slow_reference(number: int) -> str:
    """Return a number below 100,000 in words, place by place: with every zero, then without superfluous ones."""
    if number == 0:
        return "零"
    places = zip(str(number).zfill(5), ("万", "千", "百", "十", ""), strict=True)
    words = "".join("零" if digit == "0" else "零一二三四五六七八九"[int(digit)] + place for digit, place in places)
    words = re.sub("零+", "零", words).strip("零")
    words = re.sub("^一十", "十", words)
    words = re.sub("二万", "两万", words)
    return re.sub("^二千", "两千", words)


def test_chinese_numbers_as_the_slow_reference_says_them() -> None:
    for number in range(100_000):
        assert chinese_cardinal(number) == slow_reference(number)


@settings(max_examples=500)
@given(st.integers(0, 10**15))
def test_chinese_numbers_can_be_read_back(number: int) -> None:
    words = chinese_cardinal(number)
    assert read_back(words) == number
    assert "零零" not in words and "零万" not in words and not (number and words.endswith("零"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text("0123456789.,:-/%$¥°C kmAPamx年月日个第+=() '\"", max_size=60))
def test_any_text_is_normalized_to_words_without_digits(text: str) -> None:
    for language in Language:
        assert not any(character.isdigit() for character in normalize_text(text, language))


@pytest.mark.parametrize("language", list(Language))
def test_a_very_long_number_is_said_digit_by_digit(language: Language) -> None:
    spoken = normalize_text("1234567890" * 1000, language)
    one = {"english": "one", "chinese": "一"}[language]
    assert spoken.count(one) == 1000
    assert "hundred" not in spoken and "百" not in spoken


_HOSTILE = """
from mirrorchat.engines import Language
from mirrorchat.text.sentences.markup import strip_markup
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import SentenceSplitter, split_text
for unit in ["1", "1.", "1,", "1,111", '"', "(", "[", "[a](", "_", "*", "`", "1-", "1/", "1:", "a.", "a@", "https://a.",
             "$1", "。“", "! ", "<a", "~~~\\n", "1 ", "US ", "Mon-", "1\\"a ", "a 1 m ", ", a", "^1",
             "$", "$a", "\\\\", "\\\\frac{", "x^", "x=", "|", "|a\\n", "|a|\\n|-|\\n|b|\\n", "&", "&amp;", "⁴", "ʰ",
             "ส", "[1]", "/a.b", "<sub>", "(x", "f(", "==", "拨打110/", "2、3", "1h2m", "¥1万-", "$-9M", "10W+",
             "call 911, ", "+86 138"]:
    text = (unit * 20_000)[:8_000]
    for language in Language:
        splitter = SentenceSplitter(language)
        sentences = splitter.feed(text) + splitter.flush()
        assert max(map(len, sentences), default=0) <= 200
        assert not any(map(str.isdigit, normalize_text(text, language)))
        assert "".join("".join(split_text(text, language, 80)).split()) == "".join(text.split())
    strip_markup(text)
print("done")
"""


def test_hostile_text_costs_no_more_than_its_length() -> None:
    result = subprocess.run([sys.executable, "-c", _HOSTILE], capture_output=True, text=True, timeout=300, check=False)
    assert result.stdout == "done\n", result.stderr
