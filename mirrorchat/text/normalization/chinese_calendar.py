"""Mandarin text normalization: dates, times of day and years."""

import re

from mirrorchat.text.normalization.chinese_numbers import cardinal, digits, number_words
from mirrorchat.text.normalization.chinese_scores import SCORE_RULES
from mirrorchat.text.normalization.chinese_words import COUNTED
from mirrorchat.text.normalization.months import MONTH, MONTHS, YEAR, full_month
from mirrorchat.text.normalization.patterns import (
    CLOCK,
    SLASH_BETWEEN_QUANTITIES,
    START,
    TO,
    Rule,
    after,
    before,
    behind,
    month_and_day,
    rule,
)

NOT_LATIN_BEFORE = r"(?<![A-Za-z0-9_.,:/-])"
_OF_A_YEAR = "世界杯|奥运|亚运|欧洲杯|财年|赛季|年度|级(?!台阶)|届|款|版|高考|春晚|春夏|秋冬"
_DAY_HALF = r" ?(?P<half>[AaPp])\.?[Mm](?![A-Za-z])\.?"


def _spoken_time(match: re.Match[str]) -> str:
    hour, minute, second = int(match["hour"]), int(match["minute"]), match["second"]
    if hour > 24 or minute > 59:
        return match[0]
    half = match.groupdict().get("half") or ""
    return _part_of_day(hour, half) + _clock(hour, minute, second, bool(half))


def _clock(hour: int, minute: int, second: str | None, twelve_hours: bool) -> str:
    words = number_words(str(hour), "点") + "点"
    if minute == 30 and not second and (hour <= 12 or twelve_hours):
        return words + "半"
    if minute or second:
        words += ("零" if 0 < minute < 10 else "") + cardinal(minute) + "分"
    return words + (("零" if 0 < int(second) < 10 else "") + cardinal(int(second)) + "秒" if second else "")


def _part_of_day(hour: int, half: str) -> str:
    if not half:
        return ""
    if half in "aA":
        return "凌晨" if hour < 6 or hour == 12 else "上午"
    return "中午" if hour == 12 else "下午" if hour < 6 else "晚上"


def _spoken_hour(match: re.Match[str]) -> str:
    hour = int(match["hour"])
    return _part_of_day(hour, match["half"]) + _clock(hour, 0, None, True) if hour <= 12 else match[0]


def _spoken_date(match: re.Match[str]) -> str:
    """Return a date in figures in words."""
    date = month_and_day(match)
    return f"{digits(match['year'])}年{cardinal(date[0])}月{cardinal(date[1])}日" if date else match[0]


def _spoken_year(match: re.Match[str]) -> str:
    """Return the number before 年: a year digit by digit, a duration as a number."""
    written = match[1]
    is_duration = len(written) == 4 and written.endswith("00") and re.match(r"年(?:前|的?历史|以来|之久)", match[2])
    if is_duration or (written.endswith("000") and written != "2000"):
        return number_words(written)
    is_future = int(written) > _LAST_YEAR and "前" not in match[2]
    return number_words(written) if is_future else digits(written)


def _spoken_span(match: re.Match[str]) -> str:
    """Return `618年～907` as years, digit by digit."""
    return digits(match[1]) + match[2].replace(TO, "到") + digits(match[3])


def _spoken_years(match: re.Match[str]) -> str:
    """Return `1999～2005` as years, unless it counts the word that follows: 1950-2000元, but 1929-1933大萧条."""
    counts = COUNTED.match(after(match, 3)) and after(match, 1) not in ("大", "世", "全")
    return match[0] if counts else _spoken_span(match)


def _spoken_written_out(match: re.Match[str]) -> str:
    """Return a date whose month is in English words: 5 March 2024, March 5, 2024."""
    month = MONTHS.index(full_month(match["month"])) + 1
    return f"{digits(match['year'])}年{cardinal(month)}月{cardinal(int(match['d']))}日"


def _spoken_month_and_day(match: re.Match[str]) -> str:
    """Return `12/25` as a date where the words around it say so. Other fractions stay."""
    date = month_and_day(match)
    is_date = match["after"] is not None or int(match["d"]) > 12
    return f"{cardinal(date[0])}月{cardinal(date[1])}日" if date and is_date else match[0]


def _spoken_days(match: re.Match[str]) -> str:
    """Return `5/1-5/5` as two dates if the first one is no fraction."""
    month, day, last_month, last_day = (int(match[name]) for name in ("m", "d", "m2", "d2"))
    if month < day <= 12 or not (1 <= month <= 12 and 1 <= last_month <= 12 and 1 <= last_day <= 31 and 1 <= day <= 31):
        return match[0]
    first, last = f"{cardinal(month)}月{cardinal(day)}日", f"{cardinal(last_month)}月{cardinal(last_day)}日"
    return f"{first}到{last}"


def _spoken_holidays(match: re.Match[str]) -> str:
    """Return `10.1-10.7` after its cue as two dates."""
    numbers = [int(match[name]) for name in ("m", "d", "m2", "d2")]
    if not all(1 <= number <= most for number, most in zip(numbers, (12, 31, 12, 31), strict=True)):
        return match[0]
    month, day, last_month, last_day = map(cardinal, numbers)
    return f"{match['cue']}{month}月{day}日到{last_month}月{last_day}日"


def _spoken_offset(match: re.Match[str]) -> str:
    """Return the offset of a time zone: UTC+5:30 is UTC 加五小时三十分."""
    hours = f"{match[1]} {'加' if match[2] == '+' else '减'}{cardinal(int(match[3]))}"
    return f"{hours}小时{cardinal(int(match[4]))}分" if match[4] and match[4] != "00" else hours


def _spoken_duration(match: re.Match[str]) -> str:
    """Return `2:00:35` as what something took if the text around it says so."""
    near = _CLAUSE_END.split(before(match, 14))[-1] + _CLAUSE_END.split(after(match, 6))[0]
    if not match[4] and not _TOOK.search(near):
        return match[0]
    hours, minutes, seconds = (int(number) for number in match.groups()[:3])
    words = f"{number_words(match[1], '小时')}小时" if hours else ""
    decimals = f"点{digits(match[4])}" if match[4] else ""
    return f"{words}{cardinal(minutes)}分{cardinal(seconds)}{decimals}秒"


_LAST_YEAR = 2199  # a greater number before 年 counts years: 半衰期约5730年
_CLAUSE_END = re.compile("[，。！？；,!?;]")
_TOOK = re.compile("纪录|用时|成绩|马拉松|耗时|时长|片长|全程|完赛|夺冠|跑出|跑完")
_HOLIDAYS = "(?:放假|假期|国庆|国庆节|春节|元旦|五一|暑假|寒假|清明|端午|中秋|活动|时间|日期|日期为)[是为：:]?"
_DATE_CUES = "在|于|到|至|从|自|截至|截止|日期是"
_YEAR_CUES = "截至|截止|始于|建于|立于|生于|发布于"
_DAY_ENDS = "送达|到货|发货|上线|上映|开学|截止|到期|出发|考试"
_DAY_ENDS += "|之前|之后|以前|以后|上午|下午|晚上|早上|中午|凌晨|当天|当晚|前后|（周|周|星期"
_QUARTER = r"(?P<quarter>[QH][1-4])"

# These stand in front of ranges and codes, which would take their hyphens and letters.
EARLY_CALENDAR_RULES: tuple[Rule, ...] = (
    rule(r"(?<![A-Za-z])(UTC|GMT) ?([+-])0?(\d{1,2})(?::?(00|30|45))?(?![0-9:])", _spoken_offset),
    rule(r"(?<![A-Za-z0-9.,:-])(\d{1,2})([-~–—])(\d{1,2}) ?([AaPp][Mm])(?![A-Za-z])", r"\1\4\2\3\4"),
    rule(r"(?<![A-Za-z0-9.,])((?:1[5-9]|20)\d0)s(?![A-Za-z])", lambda match: f"{digits(match[1])}年代"),
    rule(r"(?:[tT]he |['’])([1-9]0)s(?![A-Za-z])", lambda match: f"{cardinal(int(match[1]))}年代"),
    rule(r"(?<![A-Za-z0-9./])((?:19|20)\d\d)/(0[1-9]|1[0-2])(?![0-9/.])", r"\1-\2"),
    rule(r"(?<![A-Za-z0-9.,])(\d{1,3})h ?(\d{1,2})m(?:in)?(?![A-Za-z0-9])", r"\1小时\2分"),
    rule(r"(?<![A-Za-z0-9./-])(?P<year>1[3-9]|[23]\d)/(?P<m>0?[1-9]|1[0-2])/(?P<d>[0-3]?\d)(?![A-Za-z0-9/.])",
         _spoken_date),
    rule(r"(?<=[A-Za-z])(?=\d{1,3}(?:\.\d{1,2})?%)", " "),
    rule(SLASH_BETWEEN_QUANTITIES, r"\1、"),
    rule(rf"(?P<cue>{_HOLIDAYS})(?P<m>\d{{1,2}})\.(?P<d>\d{{1,2}}) ?[-~–—] ?"
         r"(?P<m2>\d{1,2})\.(?P<d2>\d{1,2})(?![\d.])",
         _spoken_holidays),
    rule(r"(?<=[至到于])(0?[1-9]|1[0-2])-(0[1-9]|1[3-9]|2\d|3[01])(?![\d-])",
         lambda match: f"{cardinal(int(match[1]))}月{cardinal(int(match[2]))}日"),
    rule(r"第(\d{1,4})/(\d{1,4})页", r"第\1页，共\2页"),
    *SCORE_RULES,
    rule(r"(?<![A-Za-z0-9./])(?P<m>\d{1,2})/(?P<d>\d{1,2}) ?[-~–—] ?(?P<m2>\d{1,2})/(?P<d2>\d{1,2})(?![0-9/.])",
         _spoken_days),
    rule(rf"(?<![A-Za-z0-9.,])(?P<d>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)? {MONTH},? {YEAR}(?![0-9])",
         _spoken_written_out),
    rule(rf"(?<![A-Za-z]){MONTH} (?P<d>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?,? {YEAR}(?![0-9])", _spoken_written_out),
    rule(rf"(?<![A-Za-z0-9]){_QUARTER} ?{YEAR}(?![0-9])", r"\g<year>年\g<quarter>"),
    rule(rf"(?<![A-Za-z0-9.,]){YEAR} ?{_QUARTER}(?![A-Za-z0-9])", r"\g<year>年\g<quarter>"),
    rule(r"(?<![A-Za-z0-9])FY ?((?:19|20)\d\d|\d\d)(?![0-9])", lambda match: f"{digits(match[1])}财年"),
    rule(r"(?<![\d.:])(\d{1,2}):([0-5]\d):([0-5]\d)(?:\.(\d{1,3}))?(?![\d:])", _spoken_duration),
    rule(r"(?<=\d:\d\d)\+1(?!\d)", "（次日）"),
    rule(r"(?<![\d.:])(\d{1,2}):([0-5]\d)\.(\d{1,3})(?!\d)",
         lambda match: f"{number_words(match[1])}分{cardinal(int(match[2]))}点{digits(match[3])}秒"),
    rule(rf"(?<![A-Za-z0-9./])(?:{behind(_DATE_CUES)}(?P<m>\d{{1,2}})/(?P<d>\d{{1,2}})"
         rf"(?![0-9/.])(?P<after>(?={_DAY_ENDS}))?)", _spoken_month_and_day),
    rule(rf"(?<![A-Za-z0-9./])(?P<m>\d{{1,2}})/(?P<d>\d{{1,2}})(?P<after>(?={_DAY_ENDS}))", _spoken_month_and_day),
    rule(r"(?<![0-9./])(\d{2}|\d{4})/(\d\d)(?=赛季|学年|财年)", rf"\1{TO}\2"),
    rule(r"(?<![0-9./])([5-9]0)[/、]([5-9]0|00)(?=后(?![天年个来]))",
         lambda match: f"{digits(match[1])}、{digits(match[2])}"),
    rule(r"(?<=\d年) ?[-~–—] ?(?=(?:公元)?前?\d)", TO),
)  # fmt: skip

CALENDAR_RULES: tuple[Rule, ...] = (
    rule(rf"{NOT_LATIN_BEFORE}(?P<year>[12]\d{{3}})[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}})(?!\d|[-/.]\d)"
         r"(?:[T ](?=\d\d:))?", _spoken_date),
    rule(rf"{NOT_LATIN_BEFORE}(?P<m>\d{{1,2}})[/.](?P<d>\d{{1,2}})[/.](?P<loose>)(?P<year>[12]\d{{3}})(?!\d|[-/.]\d)",
         _spoken_date),
    rule(rf"{NOT_LATIN_BEFORE}(?P<year>(?:19|20)\d\d)-(?P<m>0[1-9]|1[0-2])(?![\d-]|[./]\d|[个年])",
         lambda match: f"{digits(match['year'])}年{cardinal(int(match['m']))}月"),
    rule(rf"{START}(\d{{4}})(?:{TO}(\d{{4}}))?(?=年代)",
         lambda match: digits(match[1]) + (f"到{digits(match[2])}" if match[2] else "")),
    rule(rf"{START}(\d{{4}})(?={TO}\d0年代)", lambda match: digits(match[1])),
    rule(rf"{START}(\d{{3}})(年?[{TO}到至])(\d{{3,4}})(?=年)", _spoken_span),
    rule(rf"(?<=[（(])(\d{{3,4}})({TO})(\d{{3,4}})(?=[）)])", _spoken_span),
    rule(r"(?<=[（(])(\d{3})(?=年[）)])", lambda match: digits(match[1])),
    rule(r"(?<=[（(])((?:19|20)\d\d)(?=[）)])", lambda match: digits(match[1])),
    rule(rf"{START}((?:19|20)\d\d)\.(0?[1-9]|1[0-2])(?=至今|起|开始)",
         lambda match: f"{digits(match[1])}年{cardinal(int(match[2]))}月"),
    rule(r"(?<=前)(\d{2,4}) ?[-–—]{1,2} ?(前?)(\d{2,4})(?![\d年])",
         lambda match: f"{digits(match[1])}到{match[2]}{digits(match[3])}"),
    rule(rf"(?<=[A-Za-z] )((?:19|20)\d\d)(?![\d.%A-Za-z年月-]|{COUNTED.pattern})", lambda match: digits(match[1])),
    rule(r"(?<=[（(])((?:19|20)\d\d) ?[-–—] ?(?=[）)])", lambda match: f"{digits(match[1])}至今"),
    rule(r"(?:(?<=[于在自从至])|(?<![0-9])(?<=前))(?!\d00)(\d{3})(?=年(?![内间里中来多前后的历时级]))",
         lambda match: digits(match[1])),
    rule(rf"{START}((?:19|20)\d\d)([到至])((?:19|20)\d\d)(?![\d.%A-Za-z年-])", _spoken_years),
    rule(rf"{behind(_YEAR_CUES)}((?:19|20)\d\d)"
         rf"(?![\d.,%年]|{COUNTED.pattern})", lambda match: digits(match[1])),
    rule(rf"{START}(\d{{2}}|\d{{4}}){TO}(\d\d)(?=赛季|学年|财年|年度)",
         lambda match: f"{digits(match[1])}到{digits(match[2])}"),
    rule(rf"{START}([0129]\d)(?=年(?:\d{{1,2}}月|[底初末]))", lambda match: digits(match[1])),
    rule(rf"{START}(\d{{4}})(?:年?{TO}|年?(?=[至到]))([至到]?)(\d{{4}})(?=年)",
         lambda match: f"{digits(match[1])}年{match[2] or '到'}{digits(match[3])}"),
    rule(rf"{START}((?:19|20)\d\d)({TO})((?:19|20)\d\d)(?![\d.%A-Za-z-])", _spoken_years),
    rule(rf"{START}(0\d|[789][1-9]|\d{{4}})(?=(年(?!级|代|[前后来多])|年前|年的?历史))", _spoken_year),
    rule(r"(?<=公元)(前?)(\d{1,4})(?=年)", lambda match: match[1] + digits(match[2])),
    rule(rf"{START}((?:19|20)\d\d)(?={_OF_A_YEAR})", lambda match: digits(match[1])),
    rule(rf"{START}(?<!:)(\d0|\d5)(?=后(?![天年个来]))", lambda match: digits(match[1])),
    rule(rf"{START}(\d{{1,2}})[·•](\d{{1,2}})(?!\d)", lambda match: digits(match[1]) + digits(match[2])),
    rule(rf"{START}0(\d)(?=[月日])", lambda match: cardinal(int(match[1])) if match[1] != "0" else "零"),
    rule(rf"{NOT_LATIN_BEFORE}{CLOCK}{_DAY_HALF}", _spoken_time),
    rule(rf"{NOT_LATIN_BEFORE}{CLOCK}", _spoken_time),
    rule(rf"{NOT_LATIN_BEFORE}(?P<hour>\d{{1,2}}){_DAY_HALF}", _spoken_hour),
)  # fmt: skip
