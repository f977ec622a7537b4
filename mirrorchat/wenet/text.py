"""WeNet's units as text: as a person writes them, and as much of it as no further unit can change."""

import re
from collections.abc import Sequence

from mirrorchat.engines import Language

SPECIAL = re.compile(r"<[^<>]*>")  # `<blank>`, `<unk>`, `<sos/eos>`, `<|en|>`: no text
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W\d_{_CJK}]"
_BETWEEN_SCRIPTS = re.compile(rf"(?<=[{_CJK}])(?={_LETTER})|(?<={_LETTER})(?=[{_CJK}])")
_WITHIN_CJK = re.compile(rf"(?<=[{_CJK}]) +(?=[\d{_CJK}])|(?<=\d) +(?=[{_CJK}])")
_LONE_I = re.compile(r"(?<![\w'])i(?![\w-])")
_OPEN_WORD = re.compile(rf"[^\s{_CJK}]+\Z")


def written(units: Sequence[str], language: Language) -> str:
    """Return units as a person writes them.

    `▁` begins a word; `<blank>`, `<unk>`, `<sos/eos>` and their like are no text. English is in lower case, with a
    capital at the start and for "I". Chinese has no spaces, except round words in Latin letters, which keep their case.
    """
    return _tidy(_joined(units), language)


def settled(units: Sequence[str], language: Language) -> str:
    """Return `written(units)` without a last word or number that further units could make longer.

    A Chinese character is a word. `written` of these units and any others after them begins with it.
    """
    return _tidy(_OPEN_WORD.sub("", _joined(units)), language)


def _joined(units: Sequence[str]) -> str:
    return "".join(" " if SPECIAL.fullmatch(unit) else unit.replace("▁", " ") for unit in units)


def _tidy(text: str, language: Language) -> str:
    text = _WITHIN_CJK.sub("", _BETWEEN_SCRIPTS.sub(" ", " ".join(text.split())))
    text = " ".join(text.split())
    if language is Language.ENGLISH:
        text = _LONE_I.sub("I", text.lower())
        text = text[:1].upper() + text[1:]
    return text
