"""Runs of angles and prime marks: coordinates (39°54′20″N) and lengths or times with two primes (6′2″)."""

import re
from dataclasses import dataclass

from mirrorchat.text.normalization.patterns import NUMBER, modifies_noun
from mirrorchat.text.normalization.runs import RunKind

_PART = r"\d{1,3}(?:\.\d{1,9})?"
_MINUTE_SIGN = "['′’]"
_SECOND_SIGN = "(?:[\"″”]|''|′′)"
_SCREEN = "[屏显电液笔轮平曲]| ?(?:AM)?OLED| ?LCD| ?IPS| ?[\\d.]{1,3}K| ?\\d{3,4} ?[x×]|CMOS"
_MOST_FEET = 9


@dataclass(frozen=True)
class Angle:
    """Degrees with minutes and seconds; `side` is N, S, E, W, or empty if there is none or the text names it."""

    degrees: str
    minutes: str
    seconds: str
    side: str


@dataclass(frozen=True)
class Primes:
    """Two numbers with prime marks: feet and inches, or minutes and seconds."""

    first: str
    second: str

    @property
    def is_length(self) -> bool:
        """Whether the numbers can be feet and inches."""
        is_time = self.second.startswith("0") and len(self.second) > 1
        return not is_time and int(self.first) <= _MOST_FEET and float(self.second) < 12


@dataclass(frozen=True)
class Prime:
    """A number with one prime mark, single (′) or double (″)."""

    number: str
    is_double: bool
    modifies_noun: bool
    """Whether an English noun follows that the number modifies: `a 27″ screen`."""


def _angle(match: re.Match[str]) -> Angle | None:
    minutes, side = match["minutes"] or "", match["before"] or match["after"] or ""
    if not minutes and not side:
        return None
    return Angle(match["degrees"], minutes, match["seconds"] or "", "" if match["named"] is not None else side)


def _prime(match: re.Match[str]) -> Prime:
    return Prime(match["number"], match["double"] is not None, modifies_noun(match))


ANGLE = RunKind(
    re.compile(
        r"(?<![A-Za-z0-9.,])(?P<named>(?<=[经纬]))?(?:(?P<before>[NSEW]) ?)?"
        rf"(?P<degrees>-?{_PART}) ?°(?: ?(?P<minutes>{_PART}) ?{_MINUTE_SIGN}"
        rf"(?: ?(?P<seconds>{_PART}) ?{_SECOND_SIGN})?)?(?: ?(?P<after>[NSEW])(?![A-Za-z0-9]))?"
    ),
    _angle,
)
PRIMES = RunKind(
    re.compile(
        rf"(?<![A-Za-z0-9.,])(?P<first>\d{{1,3}}) ?{_MINUTE_SIGN}"
        rf" ?(?P<second>\d{{1,2}}(?:\.\d{{1,2}})?) ?{_SECOND_SIGN}"
    ),
    lambda match: Primes(match["first"], match["second"]),
)
PRIME = RunKind(
    re.compile(
        rf"(?<![A-Za-z0-9.,])(?P<number>{NUMBER}) ?"
        rf"(?:(?P<double>″|′′|\"(?={_SCREEN}))|′)(?![A-Za-z0-9(])"
    ),
    _prime,
)
