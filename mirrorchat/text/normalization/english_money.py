"""English text normalization: money."""

import re

from mirrorchat.text.normalization.english_numbers import cardinal, number_words
from mirrorchat.text.normalization.english_words import CURRENCIES, MAGNITUDES, RATES, UNITS
from mirrorchat.text.normalization.money import HAN_MAGNITUDES, MONEY_BEFORE_SIGN, MONEY_BEHIND_SIGN, Money, multiplied
from mirrorchat.text.normalization.patterns import Rule

_SIGNS = {"-": "minus ", "+": "plus "}


def _spoken_money(money: Money) -> str:
    one, many, *minor = CURRENCIES[money.currency]
    if minor and not money.upper and not money.magnitude and re.fullmatch(r"[\d,]{1,20}\.\d\d", money.number):
        words = _with_minor_units(money.number, (one, many, *minor))
    else:
        amount = _amount(money.upper or money.number, money.magnitude)
        lower = f"{_amount(money.number, money.lower_magnitude)} to " if money.upper else ""
        is_one = money.number == "1" and not money.upper and not money.magnitude
        words = f"{lower}{amount} {one if is_one or money.modifies_noun else many}"
    signs = "".join(_SIGNS[sign] for sign in money.signs)
    return signs + words + "".join(f" per {_rate(per)}" for per in money.per)


def _rate(per: str) -> str:
    return UNITS[per][0] if per in UNITS else RATES.get(per, per)


def _amount(number: str, magnitude: str) -> str:
    if magnitude in HAN_MAGNITUDES:
        return number_words(multiplied(number, HAN_MAGNITUDES[magnitude]))
    return f"{number_words(number)} {MAGNITUDES.get(magnitude, magnitude)}".rstrip()


def _with_minor_units(written: str, names: tuple[str, ...]) -> str:
    """Return `20.50` in major and minor units: twenty dollars and fifty cents."""
    one, many, minor_one, minor_many = names
    whole, _, minor = written.replace(",", "").partition(".")
    major = f"{number_words(whole)} {one if int(whole) == 1 else many}"
    minor_words = f"{cardinal(int(minor))} {minor_one if int(minor) == 1 else minor_many}"
    if not int(minor):
        return major
    return f"{major} and {minor_words}" if int(whole) else minor_words


MONEY_RULES: tuple[Rule, ...] = (MONEY_BEHIND_SIGN.spoken(_spoken_money), MONEY_BEFORE_SIGN.spoken(_spoken_money))
