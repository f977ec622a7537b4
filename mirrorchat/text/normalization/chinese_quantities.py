"""Mandarin text normalization: money, temperatures, percentages and units."""

import re

from mirrorchat.text.normalization.chinese_money import MONEY_RULES
from mirrorchat.text.normalization.chinese_numbers import number_words, power_words, quantity
from mirrorchat.text.normalization.chinese_words import DEGREES, POWERS, UNITS
from mirrorchat.text.normalization.patterns import NUMBER, QUANTITY, SIGN, START, TO, Rule, any_of, rule
from mirrorchat.text.sentences.speech_length import HAN


def _spoken_unit(match: re.Match[str]) -> str:
    name = POWERS.get(match["power"] or "", "") + UNITS[match["unit"]]
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
    whole = "百分之" if match["sign"] == "%" else "千分之"
    words = quantity(match, "")
    if words == "一百" and match["sign"] == "%":
        return "百分之百"
    return f"负{whole}{words[1:]}" if words.startswith("负") else whole + words


def _plain_amount(written: str) -> str:
    """Return `20.50` as `20.5` and `20.00` as `20`."""
    return re.sub(r"\.?0{1,2}$", "", written) if "." in written else written


QUANTITY_RULES: tuple[Rule, ...] = (
    rule(rf"(?<=\d)\^(?P<power>-?\d{{1,15}})(?!\d)"
         rf"(?: ?(?P<unit>{any_of(UNITS)})(?:/(?P<per>[A-Za-z]{{1,12}})(?P<per_power>))?(?![A-Za-z\d]))?",
         _spoken_power),
    *MONEY_RULES,
    rule(rf"{START}({NUMBER}){TO}(?={NUMBER}(?:元|块|美元|欧元|英镑))",
         lambda match: f"{number_words(_plain_amount(match[1]))}到"),
    rule(rf"(?P<a>)(?:{START}|(?<=到))(?P<plain>{SIGN}{NUMBER})(?=元|块|美元|欧元|英镑)",
         lambda match: number_words(_plain_amount(match["plain"]), match.string[match.end() : match.end() + 1])),
    rule(rf"{QUANTITY} ?°(?P<scale>[CF])(?![A-Za-z])", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?:°|度)(?P<scale>)(?!电)", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?P<sign>[%‰])", _spoken_percent),
    rule(r"(?<=\d) ?m/s\^?2(?!\d)", "米每二次方秒"),
    rule(rf"{QUANTITY} ?(?P<unit>{any_of(UNITS)})(?:\^?(?P<power>[23])(?!\d))?"
         rf"(?:/(?P<per>[A-Za-z]{{1,12}}|[{HAN}])(?:\^?(?P<per_power>[23]))?)?(?![A-Za-z\d])", _spoken_unit),
)  # fmt: skip
