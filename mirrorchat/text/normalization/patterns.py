"""The rules of text normalization, and the patterns and parts of numbers that both languages share."""

import re
from collections.abc import Callable, Iterable

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]
"""A pattern and its replacement. Rules run in order, each over the whole text."""

# Every repetition is bounded, so that no text, however hostile, costs more than a constant per character.
NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,2}(?:,\d\d){1,5},\d{3}|\d{1,40})(?:\.\d{1,40})?(?!\d)"
START = r"(?<![\dA-Za-z])(?<!\d[.,])"
SIGN = r"(?:(?<![\dA-Za-z)%°_-])-)?"  # "5-3" and "COVID-19" hold no minus
TO = "～"
"""Joins the ends of a range once `ranges.py` has recognized it. No other sign is written so: input has only `~`."""
QUANTITY = rf"{START}(?P<a>{SIGN}{NUMBER})(?:{TO}(?P<b>-?{NUMBER}))?"
FRACTION = (
    r"(?P<sign>(?<![A-Za-z0-9)])-)?(?<![A-Za-z0-9./_])(?:(?P<whole>\d{1,3}) )?"
    r"(?P<above>\d{1,6})/(?P<below>\d{1,6})(?![0-9/_]|\.\d)"
)
ABOUT = r"(?<![A-Za-z0-9_])~ ?(?=[-+]?[A-Z]{0,2}[$£€¥₹₩₽฿₫₿]?[-+]? ?\d)"
"""Matches a tilde that means about. It is that once ranges are parsed."""
CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?![\d:])"
ROMAN = r"(?=[IVXL])(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
"""Matches Roman numerals from 1 to 89: enough for monarchs, chapters and world wars."""

LONGEST_CARDINAL = 15  # digits; a longer number is said digit by digit
SHORTEST_CODE = 8  # digits; a bare number of this length is a code or a telephone number, unless it is round
ROUND_DIGITS = 4  # before the zeros: 12500000 is round, 13800138000 is a telephone number

_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}

SLASH_BETWEEN_QUANTITIES = (
    r"(?<![\d.])(?<![=≈×÷])(?<![=≈×÷] )(\d{1,6}(?:\.\d{1,4})?[A-Za-z]{1,3})/(?!100 ?(?:km|g|ml|mL))(?=\d{1,6}[A-Za-z])"
)
"""Matches the first of two quantities and the slash that lists them: 128G/256G, but not in the result 80m/8s."""
BARE_UNIT = (
    r"(?<![A-Za-z0-9])(?P<unit>[kcm]?m|[km]?g|μg|mol|[kMGT]B|[mk]?L)(?![A-Za-z0-9])"
    r"(?:\^(?P<power>[23])(?!\d)|(?P<per>/(?:[ck]?m|s|h|min|[dm]?L|kg)(?![A-Za-z0-9]))(?:\^(?P<per_power>[23])(?!\d))?)"
)
"""Matches a unit without a number that its power or its divisor gives away: m^2, km/h, kg/m^3."""


def apply_rules(text: str, rules: Iterable[Rule]) -> str:
    """Return `text` after each of `rules` in turn."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def rule(pattern: str, replacement: Callable[[re.Match[str]], str] | str) -> Rule:
    """Return a rule. A `replacement` that is a string may name the pattern's groups, as in `re.sub`."""
    if isinstance(replacement, str):
        template = replacement
        return re.compile(pattern), lambda match: match.expand(template)
    return re.compile(pattern), replacement


def any_of(words: Iterable[str]) -> str:
    """Return a pattern that matches one of `words`, the longest that fits."""
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"


def behind(words: str) -> str:
    """Return a pattern that matches the place behind one of `words`, which `|` parts. It consumes nothing."""
    return "(?:" + "|".join(f"(?<={re.escape(word)})" for word in words.split("|")) + ")"


def before(match: re.Match[str], length: int) -> str:
    """Return up to `length` characters before `match`."""
    return match.string[max(0, match.start() - length) : match.start()]


def after(match: re.Match[str], length: int) -> str:
    """Return up to `length` characters after `match`."""
    return match.string[match.end() : match.end() + length]


def modifies_noun(match: re.Match[str]) -> bool:
    """Return whether the English quantity `match` modifies a noun, so its unit is singular: `a 5 km run`."""
    return bool(re.search(r"\b[Aa]n? $", before(match, 4)) and re.match(r" [A-Za-z]", after(match, 2)))


def number_parts(written: str) -> tuple[str, str]:
    """Return the digits before and after the point of `-1,234.5`: `1234` and `5`."""
    whole, _, decimals = written.lstrip("-").replace(",", "").partition(".")
    return whole, decimals


def is_read_as_digits(whole: str) -> bool:
    """Return whether the digits `whole` are no cardinal: too many, or the first is a zero."""
    return len(whole) > LONGEST_CARDINAL or (len(whole) > 1 and whole.startswith("0"))


def is_code(digits: str) -> bool:
    """Return whether the bare number `digits` is a code or a telephone number: long and not round."""
    return len(digits) >= SHORTEST_CODE and len(digits.rstrip("0")) > ROUND_DIGITS


def month_and_day(match: re.Match[str]) -> tuple[int, int] | None:
    """Return the numbers in the groups `m` and `d`, None if they are no date.

    A pattern with a group `loose` has them in an order that is in doubt (`9/1/2025`): the month is first if it can be.
    """
    month, day = int(match["m"]), int(match["d"])
    if month > 12 and "loose" in match.groupdict():
        month, day = day, month
    return (month, day) if 1 <= month <= 12 and 1 <= day <= 31 else None


def roman_value(numeral: str) -> int:
    """Return the value of `numeral`, which `ROMAN` matches."""
    values = [_ROMAN_VALUES[letter] for letter in re.sub("[^IVXL]", "", numeral)]
    following = [*values[1:], 0]
    return sum(-value if value < after_it else value for value, after_it in zip(values, following, strict=True))
