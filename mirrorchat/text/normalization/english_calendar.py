"""English text normalization: dates, times of day and years."""

import re

from mirrorchat.text.normalization.english_numbers import cardinal, ordinal, year
from mirrorchat.text.normalization.english_words import COUNTED
from mirrorchat.text.normalization.months import MONTH, MONTH_NAME, MONTHS, YEAR, full_month
from mirrorchat.text.normalization.patterns import (
    CLOCK,
    SLASH_BETWEEN_QUANTITIES,
    TO,
    Rule,
    after,
    before,
    month_and_day,
    rule,
)

_ON_THE_HOUR = "o'clock"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY = r"(Monday|Mon|Tuesday|Tues?|Wednesday|Wed|Thursday|Thu(?:rs?)?|Friday|Fri|Saturday|Sat|Sunday|Sun)\b\.?"
_YEAR_CUE = re.compile(
    r"\b(?:AD|A D|born|died|in|since|from|by|until|till|before|after|of|during|around|circa|about|early|late|mid|the"
    rf"|year|spring|summer|autumn|fall|winter|and|to|between|class|{'|'.join(MONTHS)}),? *$", re.IGNORECASE
)  # fmt: skip


def _spoken_time(match: re.Match[str]) -> str:
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), match["second"]
    if hour > 24 or minute > 59:
        return match[0]
    seconds = f" and {cardinal(int(second))} seconds" if second and int(second) else ""
    half = f" {match['half'].lower()}.m." if match["half"] else ""
    return _clock(hour, minute, bool(half)) + seconds + half


def _clock(hour: int, minute: int, twelve_hours: bool) -> str:
    if minute:
        return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    if twelve_hours:
        return cardinal(hour)
    if hour in (0, 24):
        return "midnight"
    return f"{cardinal(hour)} {'hundred' if hour > 12 else _ON_THE_HOUR}"


def _spoken_date(match: re.Match[str]) -> str:
    """Return a date in figures in words. A time may follow it."""
    date = month_and_day(match)
    if date is None:
        return match[0]
    month, day = date
    number = int(match["year"])
    number += 0 if number > 99 else 2000 if number < 70 else 1900
    after_it = ", " if match.groupdict().get("time") else ""
    return f"{MONTHS[month - 1]} {ordinal(day)}, {year(number)}{after_it}"


def _spoken_month_day(match: re.Match[str]) -> str:
    words = f"{full_month(match['month'])} {ordinal(int(match['d']))}"
    words += f" to {ordinal(int(match['upper']))}" if match["upper"] else ""
    return words + (f", {year(int(match['year']))}" if match["year"] else "")


def _spoken_day_month(match: re.Match[str]) -> str:
    article = match["article"] or "the "
    upper = f" to {ordinal(int(match['upper']))}" if match["upper"] else ""
    words = f"{article}{ordinal(int(match['d']))}{upper} of {full_month(match['month'])}"
    return words + (f", {year(int(match['year']))}" if match["year"] else "")


def _spoken_decade(match: re.Match[str]) -> str:
    century, tens = match["century"], match["tens"]
    if tens == "00":
        return f"{year(int(century + tens))}s"
    name = "tens" if tens == "10" else f"{cardinal(int(tens))[:-1]}ies"
    return f"{cardinal(int(century))} {name}" if century else name


def _spoken_year(match: re.Match[str]) -> str:
    """Return a four-digit number as a year if it looks like one."""
    number = int(match["year"])
    is_alone = before(match, 1) == "(" and after(match, 1) == ")"
    is_cued = is_alone or _YEAR_CUE.search(before(match, 12)) is not None
    is_counting = COUNTED.match(match.string, match.end()) is not None
    if 1900 <= number <= 2099:
        return year(number) if is_cued or not is_counting else match[0]
    return year(number) if is_cued and not is_counting else match[0]


def _spoken_duration(match: re.Match[str]) -> str:
    parts = zip(match.groups(), ("h", "min", "sec"), strict=True)
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def _spoken_days(match: re.Match[str]) -> str:
    return " to ".join(_full_day(name) for name in match.groups())


def _spoken_day(match: re.Match[str]) -> str:
    """Return the full name of a day. The point of `on Tuesday.` ends the sentence, that of `on Tue.` does not."""
    return _full_day(match[0]) + ("." if match[0].endswith("day.") else "")


def _full_day(written: str) -> str:
    return next(day for day in _DAYS if day.startswith(written[:3]))


def _spoken_months(match: re.Match[str]) -> str:
    return f"{full_month(match[1])} to {full_month(match[2])}"


def _spoken_short_span(match: re.Match[str]) -> str:
    """Return `1914-18` as a span of years if it can be one."""
    first, upper = int(match["year"]), int(match["upper"])
    return f"{year(first)} to {cardinal(upper)}" if upper > first % 100 and upper > 9 else match[0]


def _spoken_short_year(match: re.Match[str]) -> str:
    return ("oh " if match[1].startswith("0") else "") + cardinal(int(match[1]))


def _spoken_short_date(match: re.Match[str]) -> str:
    """Return `9/1` after its cue as a date unless it can be a fraction: by 1/3."""
    date = month_and_day(match)
    month, day = int(match["m"]), int(match["d"])
    is_weekday = match["cue"].startswith(_DAYS)
    is_fraction = month < day <= 12 and not is_weekday and (match["cue"].lower() != "on" or day in (2, 3, 4))
    if date is None or is_fraction:
        return match[0]
    return f"{match['cue']} {MONTHS[date[0] - 1]} {ordinal(date[1])}".lstrip()


CALENDAR_RULES: tuple[Rule, ...] = (
    rule(rf"(?<!-)\b{_DAY} ?[-–—~] ?{_DAY}(?!-)", _spoken_days),
    rule(rf"(?<![\w-]){_DAY}(?=,? (?:{MONTH}|\d{{1,2}}(?:[/:]\d|[ap]m)))|(?<=\b[Oo]n )(?!Sun ){_DAY}(?! ?[-–—~])",
         _spoken_day),
    rule(r"(?<![\w-])(Mon|Tues?|Wed|Thu(?:rs)?|Fri)\.(?=[,:]| [a-z(])", _spoken_day),
    rule(rf"\b({MONTH_NAME})\b\.? ?[-–—~] ?({MONTH_NAME})\b(?:\.(?= [a-z]|,))?(?! \d{{1,2}}(?!\d))", _spoken_months),
    rule(rf"(?<=\d) ?[-–] ?(?={MONTH} \d)", " to "),
    rule(rf"(?<![\w./-]){YEAR}[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}})(?!\d|[-/.]\d)(?P<time>[T ](?=\d\d:))?",
         _spoken_date),
    rule(rf"(?<![\w./-])(?P<m>\d{{1,2}})[/.](?P<d>\d{{1,2}})[/.](?P<loose>){YEAR}(?!\d|[-/.]\d)", _spoken_date),
    rule(r"(?<![\w./-])(?P<m>12)/(?P<d>24|25|31)(?P<cue>)(?![\w/-]|[.,]\d)", _spoken_short_date),
    rule(rf"\b(?P<cue>[Oo]n|[Bb]y|[Bb]efore|[Aa]fter|[Ss]ince|[Uu]ntil|[Tt]ill|[Ff]rom|to|and|[Dd]ue"
         rf"|(?:{'|'.join(_DAYS)}),?) (?P<m>\d{{1,2}})/(?P<d>\d{{1,2}})"
         r"(?![\w/-]|[.,]\d| (?:of|cup|inch|mile)\b)", _spoken_short_date),
    rule(r"(?<![\w./-])(?P<year>(?:19|20)\d\d)-(?P<m>0[1-9]|1[0-2])(?![\d-]|[./]\d)",
         lambda match: f"{MONTHS[int(match['m']) - 1]} {year(int(match['year']))}"),
    rule(rf"\b{MONTH} (?P<d>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:{TO}(?P<upper>[1-9]|[12]\d|3[01]))?(?![\w:%/.]\w|\w)"
         rf"(?:,? {YEAR}(?![\w]))?", _spoken_month_day),
    rule(rf"(?P<article>\b[Tt]he )?(?<![\w.,/-])(?P<d>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
         rf"(?:{TO}(?P<upper>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?)? (?:of )?{MONTH}"
         rf"(?:,? {YEAR}(?!\w))?", _spoken_day_month),
    rule(rf"(?<![\w:.,]){CLOCK}(?: ?(?P<half>[AaPp])\.?[Mm]\b(?:\.(?= *[^\sA-Z]))?)?", _spoken_time),
    rule(r"(?<![\w:.,])(?P<hour>\d{1,2})(?P<minute>)(?P<second>) ?(?P<half>[AaPp])\.?[Mm]\b(?:\.(?= *[^\sA-Z]))?",
         _spoken_time),
    rule(r"(?<=[ap]\.m\.)\.", ""),
)  # fmt: skip

# These stand in front of ranges and codes, which would take their points and letters.
EARLY_CALENDAR_RULES: tuple[Rule, ...] = (
    rule(r"(?:(?<=\bBC)|(?<=\bAD)|(?<=\bCE)) ?[-–] ?(?=AD \d|\d)", " to "),
    rule(r"(?<=\b[A-Z]T)/(?=\d)", ", "),  # ET/7 a.m. PT
    rule(r"(?<![\w.,])(UTC|GMT) ?([+-])0?(\d{1,2})(?::?00(?!\d))?(?=:?[1-9]\d(?!\d)|(?![\d:]))",
         lambda match: f"{match[1]} {'plus' if match[2] == '+' else 'minus'} {match[3]}"),
    rule(r"(?<![\w./])((?:19|20)\d\d)/(0[1-9]|1[0-2])(?![\w/.])", r"\1-\2"),
    rule(r"(?<![\w:.,])(\d{1,2})\.([0-5]\d)(?= ?[ap]\.?m\b)", r"\1:\2"),
    rule(r"(?<=\bFY)((?:19|20)\d\d)/(?=\d\d(?!\d))", rf"\1{TO}"),
    rule(r"\bFY ?(?=(?:19|20)?\d\d(?!\d))", "F Y "),
    rule(r"(?<=\d)(st|nd|rd|th)/(?=\d{1,4}(?:st|nd|rd|th)\b)", r"\1 or "),
    rule(SLASH_BETWEEN_QUANTITIES, r"\1, "),
    rule(r"\b([QH][1-4])['’](?=\d\d(?!\d))", r"\1 "),
    rule(r"(?<![\w./-])(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<loose>)(?P<year>\d\d)(?![\w/]|[.,]\d)", _spoken_date),
    rule(r"(?<![\w.,])(\d{1,3})h ?(\d{1,2})m(?:in)?(?: ?(\d{1,2})s(?:ec)?)?(?!\w)", _spoken_duration),
    rule(r"(?<![\w.,-])(1\d{3})(?= (?:AD|BC|CE|BCE)\b)", lambda match: year(int(match[1]))),
)  # fmt: skip

DECADE_RULES: tuple[Rule, ...] = (
    rule(r"(?<!\w)100(0?)s(?= of\b)", lambda match: "thousands" if match[1] else "hundreds"),
    rule(r"(?<![\w'=])(?P<century>1[1-9]|20)?'?(?P<tens>[1-9]0)'?s\b", _spoken_decade),
    rule(r"(?<!\w)(?P<century>1[1-9]|20)(?P<tens>00)'?s\b", _spoken_decade),
)  # fmt: skip

YEAR_RULES: tuple[Rule, ...] = (
    rule(r"(?<![\w.,$-])(?P<year>1[5-9]\d\d|20\d\d)～(?P<upper>\d\d)(?![\w%-]|[.,]\d)", _spoken_short_span),
    rule(r"(?<=[a-z,] )['’](\d\d)(?![\w'’])", _spoken_short_year),
    rule(rf"(?<![\w.,]){YEAR}[{TO}/](?P<upper>[12]\d{{3}})(?![\w]|[.,]\d)",
         lambda match: f"{year(int(match['year']))} to {year(int(match['upper']))}"),
    rule(rf"(?<![\w.,$-]){YEAR}(?![\w]|[.,-]\d)", _spoken_year),
)  # fmt: skip
