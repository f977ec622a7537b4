"""Mandarin text normalization: money, temperatures, percentages and units."""

import re

from mirrorchat.text.normalization.chinese_numbers import cardinal, number_words, power_words, quantity
from mirrorchat.text.normalization.chinese_words import CURRENCIES, CURRENCY_CODES, DEGREES, MAGNITUDES, POWERS, UNITS
from mirrorchat.text.normalization.patterns import NUMBER, QUANTITY, START, Rule, any_of, number_parts, rule
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


def _spoken_money(match: re.Match[str]) -> str:
    name = CURRENCIES.get((match["country"] or "") + match["currency"]) or CURRENCIES[match["currency"]]
    magnitude = MAGNITUDES.get(match["magnitude"] or "", match["magnitude"] or "")
    words = number_words(_plain_amount(match["a"]), magnitude or name)
    if match["b"]:
        words += "到" + number_words(_plain_amount(match["b"]), magnitude or name)
    if match["magnitude"] in ("M", "B"):
        words, magnitude = _times(match["a"], {"M": 10**6, "B": 10**9}[match["magnitude"]]), ""
    return ("负" if match["sign"] else "") + words + magnitude + name


def _times(written: str, factor: int) -> str:
    """Return `written` times `factor` as one Chinese number: 2.5 million is 二百五十万."""
    whole, decimals = number_parts(written)
    exact = int(whole + decimals) * factor
    quotient, rest = divmod(exact, 10 ** len(decimals))
    return cardinal(quotient) if not rest and quotient < 10**15 else f"{number_words(written)}乘以{cardinal(factor)}"


def _plain_amount(written: str) -> str:
    """Return `20.50` as `20.5` and `20.00` as `20`."""
    return re.sub(r"\.?0{1,2}$", "", written) if "." in written else written


QUANTITY_RULES: tuple[Rule, ...] = (
    rule(rf"(?<=\d)\^(?P<power>-?\d{{1,15}})(?!\d)"
         rf"(?: ?(?P<unit>{any_of(UNITS)})(?:/(?P<per>[A-Za-z]{{1,12}})(?P<per_power>))?(?![A-Za-z\d]))?",
         _spoken_power),
    rule(rf"(?P<sign>(?<![A-Za-z0-9)])-)?(?P<country>(?<![A-Za-z])(?:US|HK|NZ|NT|JP|A|C|S))?(?P<currency>[$£€¥₹₩]) ?"
         rf"(?P<a>-?{NUMBER})(?:[-~–—](?P<b>{NUMBER}))?(?P<magnitude>[万亿千百]{{1,2}}|[kKMB](?![A-Za-z]))?(?:元|美元)?",
         _spoken_money),
    rule(rf"(?<![A-Za-z])(?P<code>{any_of(code for code in CURRENCY_CODES if code.isascii())}) ?"
         rf"(?P<b>)(?P<c>)(?P<a>{NUMBER})",
         lambda match: quantity(match, CURRENCY_CODES[match["code"]]) + CURRENCY_CODES[match["code"]]),
    rule(rf"{QUANTITY} ?(?P<code>{any_of(CURRENCY_CODES)})(?![A-Za-z\d])",
         lambda match: quantity(match, CURRENCY_CODES[match["code"]]) + CURRENCY_CODES[match["code"]]),
    rule(rf"{START}({NUMBER})[-~–—](?={NUMBER}(?:元|块|美元|欧元|英镑))",
         lambda match: f"{number_words(_plain_amount(match[1]))}到"),
    rule(rf"(?P<a>)(?:{START}|(?<=到))(?P<plain>{NUMBER})(?=元|块|美元|欧元|英镑)",
         lambda match: number_words(_plain_amount(match["plain"]), match.string[match.end() : match.end() + 1])),
    rule(rf"{QUANTITY} ?°(?P<scale>[CF])(?![A-Za-z])", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?:°|度)(?P<scale>)(?!电)", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?P<sign>[%‰])", _spoken_percent),
    rule(r"(?<=\d) ?m/s\^?2(?!\d)", "米每二次方秒"),
    rule(rf"{QUANTITY} ?(?P<unit>{any_of(UNITS)})(?:\^?(?P<power>[23])(?!\d))?"
         rf"(?:/(?P<per>[A-Za-z]{{1,12}}|[{HAN}])(?:\^?(?P<per_power>[23]))?)?(?![A-Za-z\d])", _spoken_unit),
)  # fmt: skip
