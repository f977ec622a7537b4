"""What written numbers look like: the patterns and the clean-up that both languages' spoken forms share."""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]
"""What to look for, and what to say instead. Rules run in order, each over the whole text."""

# Every repetition is bounded, so that no text, however hostile, costs more than a constant per character.
NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,15})?(?!\d)"
START = r"(?<![\dA-Za-z])(?<!\d[.,])"
SIGN = r"(?:(?<![\dA-Za-z)%°_-])-)?"  # "5-3" and "COVID-19" hold no minus
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
QUANTITY = rf"{START}(?P<a>{SIGN}{NUMBER})(?:[-~–—](?P<b>-?{NUMBER})| [~–—] (?P<c>-?{NUMBER}))?"

_ELEMENT = r"(?:[HCNOSPKFI]|Na|Cl|Ca|Mg|Fe|Al|Si|Zn|Cu|Ag)"
FORMULA = rf"(?<![A-Za-z0-9])(?=[A-Za-z]{{1,12}}\d)(?:{_ELEMENT}\d{{0,2}}){{2,6}}(?![A-Za-z0-9])"  # H2SO4

_CHARACTERS = {
    "−": "-", "‐": "-", "‑": "-", "﹣": "-", "\u00a0": " ", "\u3000": " ", "\u202f": " ", "\u2009": " ",
    "№": "No. ", "™": "", "®": "", "©": "", "\u200b": "", "\ufeff": "", "\u2060": "", "\u00ad": "",
    "µ": "μ", "∶": ":", "／": "/", "％": "%", "＋": "+", "－": "-", "＝": "=", "＆": "&", "＠": "@", "＃": "#",
    "＄": "$", "￥": "¥", "～": "~", "＜": "<", "＞": ">", "＊": "*", "￡": "£", "º": "°", "˚": "°", "￠": "¢",
}  # fmt: skip
_WIDE_PUNCTUATION_IN_NUMBER = re.compile(r"(?<=\d)[：．，](?=\d)")
_HAS_WIDE = re.compile(r"[^\x00-\x7f]")
_NARROW = {"：": ":", "．": ".", "，": "，"}


def apply_rules(text: str, rules: Iterable[Rule]) -> str:
    """Return `text` after each of `rules` in turn."""
    for pattern, say in rules:
        text = pattern.sub(say, text)
    return text


def rule(pattern: str, say: Callable[[re.Match[str]], str] | str, flags: int = 0) -> Rule:
    """Return a rule; a `say` that is a string may name the pattern's groups, as in `re.sub`."""
    if isinstance(say, str):
        template = say
        return re.compile(pattern, flags), lambda match: match.expand(template)
    return re.compile(pattern, flags), say


def any_of(words: Iterable[str]) -> str:
    """Return a pattern that matches one of `words`, the longest that fits."""
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"


def plain_characters(text: str) -> str:
    """Return `text` with one way to write each digit, sign and unit: full-width, circled, `℃`, `½` made ASCII.

    Superscripts become `^2`. No character that Unicode calls a digit is left but `0` to `9`.
    """
    text = _HAS_WIDE.sub(lambda match: _plain(match[0]), text)
    return _WIDE_PUNCTUATION_IN_NUMBER.sub(lambda match: _NARROW[match[0]], text)


@functools.lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    decimal = unicodedata.decimal(character, None)
    if decimal is not None:
        return str(decimal)
    folded = unicodedata.normalize("NFKC", character)
    if "\u2160" <= character <= "\u217f":  # Ⅲ
        return str(int(unicodedata.numeric(character)))
    if unicodedata.category(character) == "No":
        return _plain_numeral(character, folded)
    symbol_block = "\u2100" <= character <= "\u214f" or "\u3300" <= character <= "\u33ff"
    wide_letter = "\uff21" <= character <= "\uff5a" and folded.isalpha()
    return folded if symbol_block or wide_letter else character


def _plain_numeral(character: str, folded: str) -> str:
    """Return a numeral that is no decimal digit (`½`, `²`, `①`, `❷`) in ASCII."""
    if "⁄" in folded:
        return f" {folded.replace('⁄', '/')}"
    digit = unicodedata.digit(character, None)
    shape = unicodedata.decomposition(character)
    if shape.startswith("<super>"):
        return f"^{folded}"
    if shape.startswith("<sub>"):
        return folded
    return character if digit is None and not folded.isascii() else f" {folded if digit is None else digit} "
