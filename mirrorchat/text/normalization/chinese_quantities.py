"""Mandarin text normalization: money, temperatures, percentages and units."""

import re

from mirrorchat.text.normalization.calculations import CompoundUnit, UnitPower, calculation_rules
from mirrorchat.text.normalization.chinese_numbers import cardinal, digits, number_words, power_words, quantity
from mirrorchat.text.normalization.chinese_words import COUNTED, DEGREES, LETTER_UNITS, POWERS, UNITS
from mirrorchat.text.normalization.patterns import (
    BARE_UNIT,
    NUMBER,
    QUANTITY,
    SIGN,
    START,
    TO,
    Rule,
    after,
    any_of,
    before,
    rule,
)
from mirrorchat.text.sentences.speech_length import HAN

_ROUND = {"100": "百", "1000": "千"}
_TIMES = frozenset({"天", "小时", "分钟", "秒"})


def _unit_name(unit: UnitPower) -> str:
    name = UNITS.get(unit.name) or LETTER_UNITS.get(unit.name, unit.name)  # dpi is a unit of English only
    if unit.power == "1":
        return name
    return (
        POWERS[unit.power] if unit.power in POWERS and name.endswith("米") else f"{cardinal(int(unit.power))}次方"
    ) + name


def _compound_unit(unit: CompoundUnit, _is_one: bool) -> str:
    """Return `N·m` as 牛米, `J/(mol·K)` as 焦耳每摩尔开, `m·s^-2` as 米每二次方秒."""
    factors = "".join(map(_unit_name, unit.factors)).replace("千瓦小时", "千瓦时")
    divisors = "".join(
        f"每{name}" if at == 0 or name in _TIMES else name for at, name in enumerate(map(_unit_name, unit.divisors))
    )
    return factors + divisors


def _named_unit(match: re.Match[str]) -> str:
    return POWERS.get(match["power"] or "", "") + UNITS[match["unit"]]


def _spoken_divisor(match: re.Match[str]) -> str:
    return f"每{_named_unit(match)}"


def _spoken_unit(match: re.Match[str]) -> str:
    name = _named_unit(match)
    return quantity(match, name) + name + _per(match)


def _per(match: re.Match[str]) -> str:
    per = match["per"]
    return f"每{POWERS.get(match['per_power'] or '', '')}{UNITS.get(per, per)}" if per else ""


def _spoken_power(match: re.Match[str]) -> str:
    """Return the exponent of a number and the unit after it: `10^8m/s`."""
    return power_words(match["power"]) + (UNITS[match["unit"]] + _per(match) if match["unit"] else "")


def _spoken_degrees(match: re.Match[str]) -> str:
    """Return a temperature in words. Below zero it begins with 零下, not with 负."""
    unit = DEGREES[match["scale"]] if match["scale"] else "度"
    return quantity(match, unit).replace("负", "零下") + unit


def _spoken_percent(match: re.Match[str]) -> str:
    whole = {"%": "百分之", "‰": "千分之", "‱": "万分之"}[match["sign"]]
    words = quantity(match, "")
    if words == "一百" and match["sign"] == "%":
        return "百分之百"
    return f"负{whole}{words[1:]}" if words.startswith("负") else whole + words


def _plain_amount(written: str) -> str:
    """Return `20.50` as `20.5` and `20.00` as `20`."""
    return re.sub(r"\.?0{1,2}$", "", written) if "." in written else written


_NAME_WITH_NUMBER = re.compile(r"(?:(?<!\d)[A-Za-z]-?\d{1,6}|\d\.\d{1,4}\.\d{1,4})$")  # fp16w, 1.1.1w


def _ten_thousand(match: re.Match[str]) -> str:
    """Return the letter W after a number as 万, or as the unit of power where the text is about electricity."""
    following = _CLAUSE_END.split(after(match, 8))[0]
    near = _CLAUSE_END.split(before(match, 12))[-1] + following
    if _NAME_WITH_NUMBER.search(before(match, 20)):
        return match[0]
    if _ELECTRIC.search(near):
        return "W"
    is_sure = "w" in match[0] or not before(match, 1).isdigit() or following.startswith("+")
    counts = COUNTED.match(following.lstrip("+多余")) or _COUNTS_IN_WAN.search(near)
    return "万" if is_sure or counts else "W"


_CLAUSE_END = re.compile("[，。！？；,!?;]")
_ELECTRIC = re.compile(
    "充|功率|功耗|瓦|灯|电(?!费|脑|视|影|商|话|梯|动车|瓶车)|适配|输出|输入|音响|喇叭|音箱|太阳能|显卡|处理器|空调|加热|吹风机|吸尘器|烤箱"
    "|微波炉|亮度|TDP|USB|PD"
)
_COUNTS_IN_WAN = re.compile(
    "薪|工资|收入|阅读|播放|浏览|点击|观看|粉|赞|关注|花|赚|卖|买|存款|预算|价|首付|房|贷|彩礼|市值|投资|销|用户|人|奖金|罚款|欠"
    "|借|费|成本|利润|营收|流水|提成|押金|学费|转账|余额|年入|月入|日活|月活|步|字|车|像素|一平|一个|一套|一台|一年|一月|涨到|突破|左右|以上|以下|以内"
)

MAGNITUDE_RULES: tuple[Rule, ...] = (
    rule(rf"(?:(?<=[\d多几余十百千])[wW]|(?<=\d) w)(?![A-Za-z0-9])(?: (?=[{HAN}]))?", _ten_thousand),
)


def _spoken_bare_unit(match: re.Match[str]) -> str:
    """Return a unit without a number: `m^2`, `kg/m^3`."""
    per = (match["per"] or "")[1:]
    name = POWERS.get(match["power"] or "", "") + UNITS.get(match["unit"], match["unit"])
    return name + (f"每{POWERS.get(match['per_power'] or '', '')}{UNITS.get(per, per)}" if per else "")


# These stand in front of algebra, which would take the letters of units for variables.
CALCULATION_RULES: tuple[Rule, ...] = (
    rule(
        rf"(?P<number>\d) ?(?P<unit>{any_of(UNITS)})/(?P<per>100|1000) ?(?P<base>km|公里|g|克|ml|mL|毫升)(?![A-Za-z])",
        lambda match: (
            f"{match['number']}{UNITS[match['unit']]}每{_ROUND[match['per']]}{UNITS.get(match['base'], match['base'])}"
        ),
    ),
    *calculation_rules(_compound_unit),
    rule(
        rf"(?P<base>\^-?\d{{1,3}})/(?P<unit>{any_of(UNITS)})(?P<power>)(?![A-Za-z0-9^])",
        lambda match: match["base"] + _spoken_divisor(match),
    ),
    rule(rf"(?<=[{HAN}\"″])[/·](?P<unit>{any_of(UNITS)})(?:\^?(?P<power>[23]))?(?![A-Za-z0-9^])", _spoken_divisor),
    rule(rf"(?<=[{HAN}])·(?=[月年天日时次])", "每"),  # 元/㎡·月
    rule(
        rf"(?<=[{HAN}\d])\((?P<unit>{any_of(UNITS)})(?:\^(?P<power>[23]))?\)", lambda match: f"({_named_unit(match)})"
    ),
    rule(r"(\d ?(?:分钟|小时|[秒片粒颗支杯滴包组页字张]))/(?=[次天日周月年人])", r"\1每"),
    rule(rf"(?<=[A-Za-z{HAN}])/(?=\d{{1,2}} ?(?:h|小时|天|d|周)(?![A-Za-z]))", "每"),
)

QUANTITY_RULES: tuple[Rule, ...] = (
    rule(rf"(?<=\d)\^(?P<power>-?\d{{1,15}})(?!\d)"
         rf"(?: ?(?P<unit>{any_of(UNITS)})(?:/(?P<per>[A-Za-z]{{1,12}})(?P<per_power>))?(?![A-Za-z\d]))?",
         _spoken_power),
    rule(rf"(?<=\d[米块])(\d\d)(?![\d.元块个]|{COUNTED.pattern})", lambda match: digits(match[1])),
    rule(rf"{START}({NUMBER}){TO}(?={NUMBER}(?:元|块|美元|欧元|英镑))",
         lambda match: f"{number_words(_plain_amount(match[1]))}到"),
    rule(rf"(?P<a>)(?:{START}|(?<=到))(?P<plain>{SIGN}{NUMBER})(?=元|块|美元|欧元|英镑)",
         lambda match: number_words(_plain_amount(match["plain"]), after(match, 3))),
    rule(rf"{QUANTITY} ?°(?P<scale>[CF])(?![A-Za-z])", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?:°|度)(?P<scale>)(?!电)", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?P<sign>[%‰‱])", _spoken_percent),
    rule(r"(?<=\d) ?m/s\^?2(?!\d)", "米每二次方秒"),
    rule(rf"{QUANTITY} ?(?P<unit>{any_of(UNITS)})(?:\^?(?P<power>[23])(?!\d))?"
         rf"(?:/(?P<per>[A-Za-z]{{1,12}}|[{HAN}](?![{HAN}]{{1,6}}\d))(?:\^?(?P<per_power>[23]))?)?(?![A-Za-z\d])",
         _spoken_unit),
    rule(rf"(?<=[万亿]) ?(?P<unit>{any_of(UNITS)})(?:\^?(?P<power>[23]))?"
         rf"(?:/(?P<per>[A-Za-z]{{1,12}}|[{HAN}])(?P<per_power>))?"
         r"(?![A-Za-z0-9^])", lambda match: _named_unit(match) + _per(match)),
    rule(BARE_UNIT, _spoken_bare_unit),
    rule(r"(公里|千米|分米|厘米|毫米|英里|(?<![方厘毫千分])米)\^([23])(?!\d)",
         lambda match: POWERS[match[2]] + match[1]),
)  # fmt: skip
