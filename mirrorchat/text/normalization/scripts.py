"""Scripts that a voice cannot read: their words are left out, with a pause instead.

eSpeak NG would spell them by code: "Thai letter E 3 2 A".
"""

import functools
import re
import unicodedata
from collections.abc import Collection

from mirrorchat.engines import Language

# Names of scripts as they begin the names of their letters in Unicode.
ESPEAK_SCRIPTS = frozenset({
    "LATIN", "CJK", "DEVANAGARI", "HANGUL", "BENGALI", "TAMIL", "KANNADA", "MALAYALAM", "SINHALA", "GUJARATI",
    "GURMUKHI", "GEORGIAN",
})  # fmt: skip
"""What eSpeak NG's English and Mandarin voices read: it has a voice for each, and changes to it by itself."""
XTTS_SCRIPTS = frozenset({"LATIN", "CJK", "CYRILLIC", "ARABIC", "DEVANAGARI"})
"""What XTTS has tokens for. It reads Japanese and Korean only in Latin letters."""

_IPA = r"\u0250-\u02ff"
# Words that are neither Latin nor Chinese, and words with signs of the phonetic alphabet, whose letters are Latin.
_FOREIGN = (
    r"\u0370-\u1dbf\u1f00-\u1fff\u2800-\u28ff\u2c00-\u2dff\u2e80-\u2fff\u3031-\u319f\u31f0-\u31ff"
    r"\ua000-\uabff\uac00-\ud7ff\ufb13-\ufdff\ufe70-\ufeff"
    r"\U00010000-\U0001efff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[A-Za-z]{{0,30}}[{_IPA}][A-Za-z{_IPA}\u00e6\u00f0\u00f8\u0153.]{{0,60}}|[{_FOREIGN}]{{1,1000}}")
_GREEK_LETTERS = re.compile(r"[Α-Ωα-ω]{1,2}")
_LEFT_OUT = "\ue000"
_OTHERS = rf"(?:[ ,，、/-]{{0,3}}{_LEFT_OUT}){{0,500}}"
_IN_QUOTES = re.compile(rf"(?:[\"“‘'「『《\[]|[(（/]) ?{_LEFT_OUT}{_OTHERS}[.,!?。，！？]? ?[\"”’'」』》\])）/]")
_ROW = re.compile(rf"[:：,，]? ?{_LEFT_OUT}(?:[ ,，、/·-]{{0,3}}{_LEFT_OUT}){{0,500}} ?")
_MARKS = ",.!?;:，。！？；：、…—"
_PAUSES = {Language.ENGLISH: ", ", Language.CHINESE: "，"}
_LATIN_BASES = {"đ": "d", "Đ": "D"}
_RARE_LATIN = re.compile(r"[\u0180-\u024f\u1e00-\u1effđĐ]")


def without_unreadable(text: str, language: Language, scripts: Collection[str]) -> str:
    """Return `text` without the words of scripts that are not in `scripts`; a comma takes their place.

    One or two Greek letters are no word: the rules of formulas know their names. Rare Latin letters (ệ) lose their
    marks.
    """
    if text.isascii():
        return text
    text = _RARE_LATIN.sub(lambda match: _LATIN_BASES.get(match[0]) or _base(match[0]), text)
    shorter = _WORD.sub(lambda match: match[0] if _is_readable(match[0], frozenset(scripts)) else _LEFT_OUT, text)
    if shorter == text:
        return text
    shorter = _IN_QUOTES.sub(_LEFT_OUT, shorter)
    return _ROW.sub(lambda match: _pause(match, _PAUSES[language]), shorter)


def has_readable(text: str) -> bool:
    """Return whether some voice can say something of `text`: a letter or digit in a script that it reads."""
    return any(map(str.isalnum, without_unreadable(text, Language.ENGLISH, ESPEAK_SCRIPTS | XTTS_SCRIPTS)))


def _base(letter: str) -> str:
    return unicodedata.normalize("NFD", letter)[0]


def _is_readable(word: str, scripts: frozenset[str]) -> bool:
    if _GREEK_LETTERS.fullmatch(word):
        return True
    return all(
        _script(character) in scripts for character in word if character.isalnum() or "\u2800" <= character <= "\u28ff"
    )


@functools.lru_cache(maxsize=4096)
def _script(character: str) -> str:
    if re.match(f"[{_IPA}]", character):
        return "IPA"
    # eSpeak NG and XTTS know the Chinese characters of the basic plane only.
    return "RARE" if character >= "\U00010000" else unicodedata.name(character, "").partition(" ")[0]


def _pause(match: re.Match[str], pause: str) -> str:
    before, after = match.string[: match.start()].rstrip()[-1:], match.string[match.end() :].lstrip()[:1]
    if not before or not after or after in _MARKS:
        return ""
    if before in _MARKS:
        return " " if match[0].startswith(" ") else ""
    return pause
