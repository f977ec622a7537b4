"""Runs of numbers in a form of their own.

Scientific notation, decimal commas and timestamps are rewritten in the usual form: 1.6e-19 as 1.6×10^-19, 22,1 °C as
22.1 °C, 2024-05-06T10:00Z as 2024-05-06 10:00 UTC.
"""

import itertools
import re
from dataclasses import dataclass

from mirrorchat.text.normalization.chinese_words import UNITS as CHINESE_UNITS
from mirrorchat.text.normalization.english_words import UNITS as ENGLISH_UNITS
from mirrorchat.text.normalization.patterns import NUMBER, Rule, any_of
from mirrorchat.text.normalization.runs import RunKind

_UNIT_WORDS = (
    "million", "billion", "thousand", "percent", "degrees", "times", "hours", "minutes", "seconds", "days", "weeks",
    "months", "years", "meters", "metres", "kilometers", "kilometres", "kilograms", "kilos", "grams", "liters",
    "litres", "euros", "dollars", "pounds", "公斤", "千克", "克", "吨", "米", "厘米", "毫米", "公里", "千米", "升",
    "毫升", "倍", "万", "亿",
)  # fmt: skip
_UNIT_NAMES = any_of({*CHINESE_UNITS, *ENGLISH_UNITS, *_UNIT_WORDS})
_MANTISSA = r"(?<![A-Za-z0-9.,_#])(?P<mantissa>\d{1,15}(?:\.\d{1,15})?)"
_BARE_EXPONENT = rf"\d{{1,3}}(?:(?![A-Za-z0-9_])|(?={_UNIT_NAMES}(?![A-Za-z0-9])))"
_EXPONENT = rf"[eE](?:(?P<signed>[-+]\d{{1,3}})(?![0-9_])|(?P<bare>{_BARE_EXPONENT}))(?!\.\d)"
_POWER_OF_TEN = r" ?[xX×*·] ?10 ?(?:\^|\*\*) ?(?P<power>[-+]?\d{1,3}(?!\d))"

_UPPER_END = r"(?: ?[-~–—] ?-?\d{1,15}(?:,\d{1,2})?)?"
_UNIT = rf"(?:{_UPPER_END} ?(?:[%‰€$£]|°[CF]?|{_UNIT_NAMES})(?![A-Za-z0-9]))"


@dataclass(frozen=True)
class Scientific:
    """A number times a power of ten."""

    mantissa: str
    exponent: str


@dataclass(frozen=True)
class CommaDecimal:
    """A number whose decimals stand behind a comma, its whole part without separators."""

    whole: str
    decimals: str


@dataclass(frozen=True)
class Timestamp:
    """A date and a time of ISO 8601; `offset` (+8, +5:30) is its time zone's, empty for UTC."""

    date: str
    time: str
    offset: str


@dataclass(frozen=True)
class NumberChain:
    """Three numbers or more that hyphens join, which are no range: 1-2-3, 4-4-2, 123-45-6789."""

    numbers: tuple[str, ...]

    @property
    def is_code(self) -> bool:
        """Whether the numbers are groups of digits: one has three digits or more, and they do not ascend."""
        values = [int(number) for number in self.numbers]
        is_ascending = all(first < second for first, second in itertools.pairwise(values))
        return max(map(len, self.numbers)) > 2 and not is_ascending


@dataclass(frozen=True)
class Sum:
    """A calculation with numbers: 3+5-2, 10-3=. Its hyphens subtract."""

    written: str


def _sum(match: re.Match[str]) -> Sum | None:
    written = match["sum"]
    is_calculation = match["equals"] is not None or re.search(r"[+×÷*]", written)
    return Sum(written) if is_calculation and not re.match(r"\d{4}-\d\d-\d\d", written) else None


def _chain(match: re.Match[str]) -> NumberChain | None:
    numbers = match[0].split("-")
    years = [len(number) == 4 and number[0] in "12" for number in numbers]
    is_date = len(numbers) == 3 and (years[0] or years[-1])
    return None if is_date else NumberChain(tuple(numbers))


def _scientific(match: re.Match[str]) -> Scientific:
    exponent = match["signed"] or match["bare"] or match["power"]
    return Scientific(match["mantissa"], f"{int(exponent)}")


def _timestamp(match: re.Match[str]) -> Timestamp:
    minutes = f":{match['minutes']}" if match["minutes"] not in (None, "00") else ""
    return Timestamp(match["date"], match["time"], f"{int(match['offset']):+d}{minutes}" if match["offset"] else "")


def _comma_decimal(match: re.Match[str]) -> CommaDecimal | None:
    """Return None for thousands (1,000) and lists (1,2): only what stands around the number makes decimals of them."""
    whole, decimals = match["whole"], match["decimals"]
    is_thousands = len(decimals) == 3 and whole != "0" and "." not in whole
    is_measured = match["money"] is not None or match["unit"] is not None
    is_sure = is_measured or "." in whole or (whole == "0" and len(decimals) > 1)
    return CommaDecimal(whole.replace(".", ""), decimals) if is_sure and not is_thousands else None


SCIENTIFIC = RunKind(re.compile(rf"{_MANTISSA}(?:{_EXPONENT}|{_POWER_OF_TEN})"), _scientific)
COMMA_DECIMAL = RunKind(
    re.compile(
        r"(?P<money>(?<=[$€£¥])|(?<=[$€£¥] ))?(?<![A-Za-z0-9.,_])(?P<whole>\d{1,3}(?:\.\d{3}){1,4}|\d{1,15})"
        rf",(?P<decimals>\d{{1,15}})(?![0-9]|[.,]\d)(?P<unit>(?={_UNIT}))?"
    ),
    _comma_decimal,
)
TIMESTAMP = RunKind(
    re.compile(
        r"(?<![A-Za-z0-9_.-])(?P<date>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.\d{1,9})?"
        r"(?:Z|(?P<offset>[+-]\d\d):?(?P<minutes>\d\d))(?![A-Za-z0-9:])"
    ),
    _timestamp,
)
SUM = RunKind(
    re.compile(
        rf"(?<![A-Za-z0-9_.,:/)~–—-])(?P<sum>{NUMBER}%?(?: ?[-+×÷*] ?{NUMBER}%?){{1,20}})"
        r"(?P<equals>(?= ?(?:=|equals|等于)|\) ?(?:[×÷*/+-] ?[\d(]|=)))?(?![A-Za-z0-9_^])"
    ),
    _sum,
)
NUMBER_CHAIN = RunKind(
    re.compile(
        r"(?<![A-Za-z0-9_.,:/+-])(?!\d{4}(?:-\d\d?){1,2}-\d{4}-)\d{1,15}(?:-\d{1,15}){2,9}"
        r"(?![A-Za-z0-9_-]|[.,]\d| ?=)"
    ),
    _chain,
)
WRITTEN_NUMBER_RULES: tuple[Rule, ...] = (
    TIMESTAMP.spoken(lambda run: f"{run.date} {run.time} UTC{run.offset}"),
    SUM.spoken(lambda run: re.sub(" ?- ?", " - ", run.written)),
    SCIENTIFIC.spoken(lambda run: f"{run.mantissa}×10^{run.exponent}"),
    COMMA_DECIMAL.spoken(lambda run: f"{run.whole}.{run.decimals}"),
)
