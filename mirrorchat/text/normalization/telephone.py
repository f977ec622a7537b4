"""Runs of telephone and card numbers: `+1 (555) 123-4567`, `0755-8888 9999`, `400 800 1234`, `1234 5678 9012 3456`."""

import re
from dataclasses import dataclass

from mirrorchat.text.normalization.chinese_words import UNITS as CHINESE_UNITS
from mirrorchat.text.normalization.english_words import UNITS as ENGLISH_UNITS
from mirrorchat.text.normalization.patterns import any_of
from mirrorchat.text.normalization.runs import RunKind

_SHAPES = (
    r"\+\d{1,3}(?:[ -]\(?\d{1,8}\)?){2,6}|\+\d{10,13}",  # with the code of a country
    r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}",  # three, three and four digits
    r"\(0?\d{2,4}\) ?\d{3,4}[ -]?\d{4}",
    r"0\d{2,4}(?:[ -]\d{3,4}){1,2}",  # a trunk zero
    r"(?:0|86-)\d{2,3}-\d{5,8}(?:-\d{1,5})?|[48]00-\d{4}-\d{3}|[48]00\d-\d{3}-\d{3}",
    r"(?:\d{1,3}[ -])?\d{2,4}-\d{3,4}[ -]\d{4}",
    r"\d{3}-\d{4}",
    r"1[3-9]\d(?:[ -]?\d{4}){2}|[48]00(?!0{7})\d{7}",  # a mobile telephone or a hotline of China
    r"\d{4}(?: \d{4}){2,4}|\d{3}(?: \d{4}){2}",
)
_UNIT = rf" ?(?:[%‰°$€£¥元万亿]|{any_of([*CHINESE_UNITS, *ENGLISH_UNITS])}(?![A-Za-z]))"
_ROUND_NUMBERS = re.compile(r"\d\d0-\d\d[05]0")  # a range: 200-1500 people
_LENGTHS = range(7, 21)


@dataclass(frozen=True)
class Telephone:
    """The groups of digits of a telephone number, and whether a plus stands before them."""

    has_plus: bool
    groups: tuple[str, ...]


def _telephone(match: re.Match[str]) -> Telephone | None:
    groups = tuple(re.findall(r"\d{1,20}", match[0]))
    if _ROUND_NUMBERS.fullmatch(match[0]):
        return None
    return Telephone(match[0][0] == "+", groups) if sum(map(len, groups)) in _LENGTHS else None


TELEPHONE = RunKind(
    re.compile(rf"(?<![A-Za-z0-9.,+$€£¥₹₩₿-])(?<!\) )(?:{'|'.join(_SHAPES)})(?![A-Za-z0-9-]|[.,]\d|{_UNIT})"),
    _telephone,
)
