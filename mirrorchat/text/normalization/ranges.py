"""Runs of ranges: 3万-5万, 10 min–20 min, P3~P5, -5°C~3°C, 9:00-17:00.

A hyphen is also a minus, a joint of a name (i5-12400), of a telephone number and of a date (2025-09-01), so both ends
are parsed before it is called a range. A range is then written in one way for the rules that follow: `TO` joins its
ends, which may share a unit.
"""

import re
from dataclasses import dataclass

from mirrorchat.text.normalization.chinese_words import UNITS as CHINESE_UNITS
from mirrorchat.text.normalization.english_words import UNITS as ENGLISH_UNITS
from mirrorchat.text.normalization.patterns import NUMBER, TO, Rule, after, before, rule
from mirrorchat.text.normalization.runs import RunKind
from mirrorchat.text.sentences.speech_length import HAN

_UNITS = frozenset(CHINESE_UNITS) | frozenset(ENGLISH_UNITS) | frozenset(
    ("k", "K", "w", "W", "M", "B", "T", "bn", "mn", "tn", "p", "P", "am", "pm", "AM", "PM", "st", "nd", "rd", "th",
     "hundred", "thousand", "million", "billion", "trillion", "percent")
)  # fmt: skip

_UNITS_OF_ONE_KIND = (
    ("s", "min", "h", "day", "week", "month", "year", "am", "pm", "秒", "分", "小时", "个小时", "天", "周", "星期",
     "个月", "年", "月", "日", "号", "点"),
    ("mm", "cm", "m", "km", "ft", "mi", "毫米", "厘米", "米", "公里", "千米"),
    ("mg", "g", "kg", "t", "克", "斤", "公斤", "千克", "吨"),
    ("KB", "MB", "GB", "TB"),
    ("百", "千", "万", "十万", "百万", "千万", "亿", "k", "K", "M", "B", "hundred", "thousand", "million", "billion"),
)  # fmt: skip
_CURRENCY_SIGNS = "$£€¥₹₩₽฿₫₺₴₪₱₦₿"
_LATIN_UNIT = rf"[A-Za-zμΩ]{{1,12}}(?:/(?:[A-Za-z]{{1,8}}|[{HAN}]{{1,2}}))?(?:\^?[23](?!\d))?"
_UNIT = rf"(?: ?(?:[%‰¢元{_CURRENCY_SIGNS}'′\"″]|°[A-Z]?)| ?{_LATIN_UNIT}|[{HAN}]{{1,5}}(?:/[{HAN}]{{1,2}})?)?"
_CURRENCY = rf"[A-Z]{{0,2}}[{_CURRENCY_SIGNS}] ?"


def _end(name: str, prefix: str) -> str:
    """Return the pattern of one end of a range, whose groups end in `_name`."""
    joint = f"(?P=joint_{name})"
    date = rf"\d{{4}}(?P<joint_{name}>[-/.])\d{{1,2}}(?:{joint}\d{{1,2}}(?![\d.])|(?![\d.]|{joint}\d{{1,2}}(?!\d)))"
    fraction = r"(?:1/\d{1,4}|\d{1,2}/\d{1,2})(?![/\d])"
    numbers = rf"{date}|\d{{1,3}}:\d{{1,3}}(?::\d\d)?|{fraction}|(?:{NUMBER}×)?10\^-?\d{{1,4}}|{NUMBER}"
    return rf"(?P<prefix_{name}>{prefix})?(?P<sign_{name}>[-+])?(?P<number_{name}>{numbers})(?P<unit_{name}>{_UNIT})"


_DAY_PART = "[早晚]上?|上午|中午|下午|傍晚|凌晨|夜里|次日|当日|第二天|(?:周|星期)[一二三四五六日天]"
_NOT_INSIDE = r"(?<![A-Za-z0-9_@#/:.])(?<![A-Za-z0-9,]-)(?<!\d,)(?<![=+*/×÷^<>√])(?<![=+*/×÷^<>] )(?<![=+*/×÷]\()"
_RANGE = (
    _NOT_INSIDE
    + _end("a", rf"第|零下|{_CURRENCY}|[A-Za-z]{{1,8}}[.-]?")
    + r"(?P<dash> ?[~–—]{1,2} ?|--?| --? )"
    + _end("b", rf"第|零下|{_CURRENCY}|[A-Za-z]{{1,8}}[. -]?|{_DAY_PART}")
)
_YEAR_AND_MONTH = re.compile(r"(?:19|20)\d\d-(?:0[1-9]|1[0-2])")
_YEAR_POINT_MONTH = re.compile(r"(?<!\d)((?:19|20)\d\d)\.(0?[1-9]|1[0-2])(?![\d.])")
_RESULT = re.compile(" ?(?:equals|is|gives|makes|等|得|是)")
_TIME_OR_DATE = re.compile(r"\d{1,3}:|\d{4}[-/.]\d{1,2}[-/.]")
_VARIABLE = re.compile("[nxyz]")
_LONG_ZERO = re.compile(r"0\d{2,40}")  # a code: 0324
_NOT_BEHIND = re.compile(r"\) ?[×÷*/=^]|\([A-Za-z]|√|-\d|-[A-Z]{2}| ?[=<>≤≥]| ?[+×÷*] ?\d|\^|[.,:/]\d")


@dataclass(frozen=True)
class _End:
    prefix: str
    sign: str
    number: str
    unit: str

    @property
    def is_plain(self) -> bool:
        return not (self.prefix or self.sign or self.unit)

    @property
    def value(self) -> float:
        return float(self.number.replace(",", "")) if re.fullmatch(NUMBER, self.number) else 0.0


@dataclass(frozen=True)
class Range:
    """The two ends of a range as they are written."""

    lower: str
    upper: str


def _range(match: re.Match[str]) -> Range | None:
    lower, upper = (
        _End(*(match[f"{part}_{name}"] or "" for part in ("prefix", "sign", "number", "unit"))) for name in "ab"
    )
    dash = match["dash"].strip(" ")
    unit = upper.unit.strip(" ")
    word_follows = unit.isascii() and unit.isalpha() and unit not in _UNITS  # "5–10 and +3"
    is_range = (
        (word_follows or not _NOT_BEHIND.match(after(match, 3)))
        and _prefixes_agree(match, lower, upper, dash)
        and _units_agree(lower, upper, dash)
        and not (dash == "-" and _is_something_else(match, lower, upper))
    )
    if not is_range:
        return None
    sign = "-" if dash == "--" and (lower.sign or before(match, 1) == "-") else ""
    ends = match.string[match.start() : match.start("dash")], sign + match.string[match.end("dash") : match.end()]
    if all(_YEAR_POINT_MONTH.search(end) for end in ends):
        ends = _with_months(ends[0]), _with_months(ends[1])
    return Range(*ends)


def _with_months(end: str) -> str:
    """Return `2018.9` as `2018-09`: both ends are a year and a month."""
    return _YEAR_POINT_MONTH.sub(lambda match: f"{match[1]}-{match[2]:0>2}", end)


def _prefixes_agree(match: re.Match[str], lower: _End, upper: _End, dash: str) -> bool:
    """Return whether both prefixes name the same thing: P3-P5, $5-$10, Day 1-Day 3, 第3-5章, Q1-3."""
    if upper.prefix.endswith(" ") and not lower.prefix:
        start = match.start() - len(upper.prefix)
        return match.string[max(0, start) : match.start()] == upper.prefix
    is_money = lower.prefix.rstrip(" ")[-1:] in tuple(_CURRENCY_SIGNS)
    if is_money or not lower.prefix or not lower.prefix[0].isascii() or not lower.prefix[0].isalpha():
        return not upper.prefix[:1].isascii() or not upper.prefix[:1].isalpha() or "$" in upper.prefix
    if lower.prefix == upper.prefix:
        return dash != "-" or lower.value < upper.value
    is_short = (
        len(lower.prefix) == 1
        and (lower.unit == upper.unit or not re.match("[A-Za-z]", upper.unit))
        and lower.value < upper.value < 100
    )
    return not upper.prefix and (dash != "-" or is_short)


def _units_agree(lower: _End, upper: _End, dash: str) -> bool:
    """Return whether the text after the lower number is a unit: a letter of a name is none."""
    first, last = lower.unit.strip(" "), upper.unit.strip(" ")
    if not first or first == last:
        return True
    if first[0] in "和与或及跟到至" or first.endswith(("的", "是", "为")):  # 10的-9次方
        return False
    is_degree = last.startswith(("°", "度")) and not first.startswith(("°", "度"))
    if is_degree and dash == "-":
        return False
    if "—" in dash and not _measure_the_same(first, last):
        return False
    return not first[0].isalpha() or not first.isascii() or first.split("/")[0] in _UNITS


def _measure_the_same(first: str, last: str) -> bool:
    """Return whether two units can end one range. A long dash also parts clauses: it ran 5 km—10 people followed."""
    return last.startswith(first) or any(
        first.startswith(family) and last.startswith(family) for family in _UNITS_OF_ONE_KIND
    )


def _is_something_else(match: re.Match[str], lower: _End, upper: _End) -> bool:
    """Return whether a hyphen subtracts, or joins a year and a month or the parts of a code."""
    is_measured = upper.unit != "" and lower.value < upper.value and not _RESULT.match(upper.unit)
    is_apart = match["dash"].startswith(" ")
    if is_apart and not (
        lower.prefix or lower.unit or upper.prefix or is_measured or _TIME_OR_DATE.match(lower.number)
    ):
        return True
    if _YEAR_AND_MONTH.fullmatch(lower.number):  # a whole date: 2025-09-01
        return len(upper.number) < 3
    if _VARIABLE.fullmatch(upper.unit) and lower.value > upper.value:
        return True
    if not lower.is_plain or upper.prefix or upper.sign or upper.unit.startswith(("年", "个")):
        return False
    if lower.value >= upper.value > 0 and lower.value + upper.value == 100:  # shares: 50-50, an 80-20 split
        return True
    numbers = f"{lower.number}-{upper.number}"
    has_long_zero = any(_LONG_ZERO.fullmatch(number) for number in (lower.number, upper.number))
    return has_long_zero or _YEAR_AND_MONTH.fullmatch(numbers) is not None


RANGE = RunKind(re.compile(_RANGE), _range)

_WEEKDAY = "(?:周|星期|礼拜)[一二三四五六日天末]"
_HAN_NUMBER = "[零一二两三四五六七八九十百千]"
_ORDINAL = "[A-Z甲乙丙丁戊]"
_HAN_DASH = "[-~–—]{1,2}"
_LETTERS_END = "(?![A-Za-z0-9_-])"
_IP_ADDRESS = r"\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"
RANGE_RULES: tuple[Rule, ...] = (
    rule(rf"(?<![\d.])({_IP_ADDRESS}) ?[-~–—] ?(?={_IP_ADDRESS})", rf"\1{TO}"),
    rule(r"(?<![\d./-])(\d{1,3})-(?=(?:1/[2348]|3/[48]|2/3|[57]/8)(?![\d/]| ?[-+=×)]))", r"\1 "),  # 1-1/2 cups
    RANGE.spoken(lambda run: f"{run.lower}{TO}{run.upper}"),
    # Ends without figures.
    rule(rf"(?<=[周期拜][一二三四五六日天]) ?{_HAN_DASH} ?(?={_WEEKDAY})", TO),
    rule(rf"(?<={_HAN_NUMBER})(?P<unit>[{HAN}]{{1,2}}) ?{_HAN_DASH} ?(?=第?{_HAN_NUMBER}{{1,4}}(?P=unit))",
         rf"\g<unit>{TO}"),
    rule(rf"(?<={_HAN_NUMBER}){_HAN_DASH}(?=第?{_HAN_NUMBER})", TO),
    rule(rf"(?<![A-Za-z0-9_-])(?P<end>{_ORDINAL})(?P<unit>[{HAN}]) ?{_HAN_DASH} ?(?={_ORDINAL}(?P=unit))",
         rf"\g<end>\g<unit>{TO}"),
    rule(rf"(?<![A-Za-z0-9_-])(X{{0,4}}[SL]|M) ?[-~–] ?(?=(?:X{{1,4}}[SL]|[2-5]XL){_LETTERS_END})", rf"\1{TO}"),
    rule(rf"(?<![A-Za-z0-9_-])(?:([A-Z]) ?[~–] ?(?=[A-Z])|([a-z])~(?=[a-z])|(A|a)-(?=[Zz])"
         rf"|([A-Z])-(?=[A-Z][组座区级班栋楼段]))(?=.{_LETTERS_END})", rf"\1\2\3\4{TO}"),
)  # fmt: skip
