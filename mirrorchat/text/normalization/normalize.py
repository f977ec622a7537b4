"""Text normalization, from written form to spoken form: numbers, dates, money, units and signs become words.

The engines misread short written forms (they drop the minus of `-3°C` and the dollar of `$20`), so none is left to
them.

    normalize_text("It is -3°C.", Language.ENGLISH)  # "It is minus three degrees Celsius."
"""

import functools
import re
import unicodedata

from mirrorchat.engines import Language
from mirrorchat.text.normalization.chinese import normalize_chinese
from mirrorchat.text.normalization.english import normalize_english

_CHARACTERS = {
    "−": "-", "‐": "-", "‑": "-", "﹣": "-", "\u00a0": " ", "\u3000": " ", "\u202f": " ", "\u2009": " ",
    "№": "No. ", "™": "", "®": "", "©": "", "\u200b": "", "\ufeff": "", "\u2060": "", "\u00ad": "",
    "µ": "μ", "∶": ":", "／": "/", "％": "%", "＋": "+", "－": "-", "＝": "=", "＆": "&", "＠": "@", "＃": "#",
    "＄": "$", "￥": "¥", "～": "~", "＜": "<", "＞": ">", "＊": "*", "￡": "£", "º": "°", "˚": "°", "￠": "¢",
}  # fmt: skip
_WIDE_MARK_IN_NUMBER = re.compile(r"(?<=\d)[：．](?=\d)")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_NARROW = {"：": ":", "．": "."}


def normalize_text(text: str, language: Language) -> str:
    """Return `text` as a careful speaker of `language` says it, without digits or signs that the engines misread.

    Text in spoken form does not change. Chinese characters in English text stay; the synthesizer speaks them.
    """
    text = _with_plain_characters(text)
    return normalize_chinese(text) if language is Language.CHINESE else normalize_english(text)


def _with_plain_characters(text: str) -> str:
    """Return `text` with one form of each digit, sign and unit: full-width, circled, `℃` and `½` become ASCII.

    Superscripts become `^2`. Of the characters that are digits in Unicode only `0` to `9` are left.
    """
    text = _NOT_ASCII.sub(lambda match: _plain(match[0]), text)
    return _WIDE_MARK_IN_NUMBER.sub(lambda match: _NARROW[match[0]], text)


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
