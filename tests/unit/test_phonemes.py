"""Phonemes of both languages: every syllable as in misaki, words as in jieba, mixed text, the division of long ones."""

import importlib
import re
from types import ModuleType

import pytest
from support.places import ROOT

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text


def small(name: str) -> ModuleType:
    """Import a module of the small models, whose packages are an extra."""
    try:
        return importlib.import_module(f"mirrorchat.small.{name}")
    except ModuleNotFoundError as error:
        pytest.skip(f"small models absent: {error}")


def package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"small models absent: {error}, the slow reference")


@pytest.fixture(scope="module")
def words() -> object:
    small("phonemes")
    if not importlib.util.find_spec("jieba"):
        pytest.skip("small models absent: jieba is not installed")
    return small("phonemes_words").MandarinWords()


@pytest.mark.filterwarnings("ignore")
def test_every_syllable_is_misakis() -> None:
    syllable_phonemes = small("phonemes_mandarin").syllable_phonemes
    misaki = package("misaki.zh").ZHG2P
    to_tone3 = package("pypinyin.contrib.tone_convert").to_tone3
    readings = {reading for line in package("pypinyin.pinyin_dict").pinyin_dict.values() for reading in line.split(",")}
    syllables = {to_tone3(reading, neutral_tone_with_five=True) for reading in readings}
    assert len(syllables) > 1500
    for syllable in sorted(syllables):
        assert syllable_phonemes(syllable) == misaki.py2ipa(syllable).replace("\u032f", ""), syllable


def test_some_syllables() -> None:
    """What the table says where misaki is not installed."""
    phonemes = small("phonemes_mandarin").mandarin_phonemes
    assert phonemes(["你好"]) == "ni↓xau↓"
    assert phonemes(["女儿", "吃", "四", "了"]) == "ny↓ɚ↗ ꭧʰɨ→ sɨ↘ lɤ"
    assert phonemes(["\u3402\u3403"]) == ""  # characters that no dictionary reads
    assert small("phonemes_mandarin").syllable_phonemes("x9") == ""
    assert small("phonemes_mandarin").syllable_phonemes("") == ""


@pytest.mark.filterwarnings("ignore")
def test_words_are_jiebas(words: object) -> None:
    jieba = package("jieba")
    jieba.setLogLevel(60)
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "zh").glob("*.md")))
    runs = sorted(set(re.findall("[\u4e00-\u9fff]{2,}", text)))[::3]
    assert len(runs) > 100
    for run in runs:
        assert words.split(run) == jieba.lcut(run, HMM=False), run  # type: ignore[attr-defined]


def test_words_keep_every_character(words: object) -> None:
    for text in ("", "我", "\u3402\u3402\u3402", "好" * 3_000):
        assert "".join(words.split(text)) == text  # type: ignore[attr-defined]


def test_mixed_text(words: object) -> None:
    asked: list[str] = []

    def english(text: str) -> str:
        asked.append(text)
        return text.upper()

    phonemizer = small("phonemes").Phonemizer(english, words)
    assert phonemizer.phonemes("我用Python写《代码》，好吗？") == "wo↓ jʊ↘ŋ PYTHON ɕje↓ “tai↘ma↓”, xau↓ ma?"
    assert asked == ["Python"]
    assert phonemizer.phonemes("say [this](/hˈaɪ/) now") == "SAY THIS (/HˈAꞮ/) NOW"  # no instruction to hibari
    assert phonemizer.phonemes(" 。…") == ". …"
    without_mandarin = small("phonemes").Phonemizer(english, None)
    assert without_mandarin.phonemes("the word 你好 means hello") == "THE WORD, MEANS HELLO"


def test_nothing_is_normalized_twice() -> None:
    """hibari's own rules would change nothing in spoken text, so they are left out."""
    english = package("hibari.g2p").G2P()
    texts = [
        "Dr. Smith paid $3.50 on 3/4/2024 at 7:30 p.m.",
        "NASA's record is 50% off, e.g. 5 km.",
        "I'm (aloud) in the U.S.",
    ]
    for text in texts:
        spoken = normalize_text(text, Language.ENGLISH)
        assert english(spoken) == english(spoken, normalize_text=False)


def test_long_phonemes_are_divided() -> None:
    divided = small("phonemes").divided
    text = "wˈʌn tˈu, θɹˈi fˈɔɹ. " * 100
    parts = divided(text, 400)
    assert "".join(parts) == text
    assert all(0 < len(part) <= 400 for part in parts)
    assert all(part.rstrip()[-1] in ",." for part in parts)
    assert divided("a" * 950, 400) == ["a" * 400, "a" * 400, "a" * 150]
    assert divided("one two", 5) == ["one ", "two"]
    assert divided("", 5) == divided("   ", 2) == []
