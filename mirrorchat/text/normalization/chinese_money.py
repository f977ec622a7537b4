"""Mandarin text normalization: money."""

import re

from mirrorchat.text.normalization.chinese_numbers import number_words
from mirrorchat.text.normalization.chinese_words import CURRENCIES, RATES, UNITS
from mirrorchat.text.normalization.money import (
    LATIN_MAGNITUDES,
    MONEY_BEFORE_SIGN,
    MONEY_BEHIND_SIGN,
    Money,
    multiplied,
)
from mirrorchat.text.normalization.patterns import Rule

_SIGNS = {"-": "负", "+": "加"}


def _spoken_money(money: Money) -> str:
    name = CURRENCIES[money.currency]
    words = _amount(money.number, "" if money.upper else money.magnitude, name)
    if money.upper:
        words = _amount(money.number, money.lower_magnitude, money.magnitude or name) + "到"
        words += _amount(money.upper, money.magnitude, name)
    signs = "".join(_SIGNS[sign] for sign in money.signs)
    return signs + words + name + "".join(f"每{_rate(per)}" for per in money.per)


def _amount(number: str, magnitude: str, name: str) -> str:
    """Return the amount in words; Chinese counts by 万 and 亿, so 2.5 million is 二百五十万."""
    number = re.sub(r"\.?0{1,15}$", "", number) if "." in number else number
    if magnitude in LATIN_MAGNITUDES:
        return number_words(multiplied(number, LATIN_MAGNITUDES[magnitude]), name)
    return number_words(number, magnitude or name) + magnitude


def _rate(per: str) -> str:
    return RATES.get(per.lower()) or UNITS.get(per, per)


MONEY_RULES: tuple[Rule, ...] = (MONEY_BEHIND_SIGN.spoken(_spoken_money), MONEY_BEFORE_SIGN.spoken(_spoken_money))
