"""English text normalization: money, units and sizes."""

import re

from mirrorchat.text.normalization.english_numbers import cardinal, number_words, power_words, quantity
from mirrorchat.text.normalization.english_words import POWERS, POWERS_OF_TIME, UNITS
from mirrorchat.text.normalization.patterns import (
    BARE_UNIT,
    NUMBER,
    QUANTITY,
    START,
    TO,
    Rule,
    after,
    any_of,
    before,
    rule,
)

SECONDS_WRITTEN_APART = r"(?<!\d0)s"  # "90 s" and "1.5s" are seconds, "the 90s" are not
_UNIT_NAMES = any_of(unit for unit in UNITS if unit != "s")


def _spoken_unit(match: re.Match[str]) -> str:
    words, is_one = quantity(match)
    is_one = is_one or _describes(match)
    name = UNITS[match["unit"]][0 if is_one else 1]
    power = f"{POWERS[match['power']]} " if match["power"] else ""
    return f"{words} {power}{name}{_per(match['per'], match['per_power'])}"


def _describes(match: re.Match[str]) -> bool:
    """Return whether the quantity modifies a singular noun, and its unit is therefore singular: `a 5 km run`."""
    return bool(re.search(r"\b[Aa]n? $", before(match, 4)) and re.match(r" [a-z]", after(match, 2)))


def _inches(match: re.Match[str]) -> str:
    """Return `27"` in inches, unless the sign closes a quotation."""
    if len(re.findall(r'(?<!\d)"', before(match, 500))) % 2:
        return match[0]
    return f"{number_words(match[1])} {'inch' if match[1] == '1' or _describes(match) else 'inches'}"


def _per(name: str | None, power: str | None = None) -> str:
    if not name:
        return ""
    unit = UNITS[name][0] if name in UNITS else name
    if power and name == "s":
        return f" per {unit} {POWERS_OF_TIME[power]}"
    return f" per {POWERS[power]} {unit}" if power else f" per {unit}"


def _spoken_power(match: re.Match[str]) -> str:
    """Return the exponent of a number and the unit after it: `10^8 m/s`."""
    return power_words(match["power"]) + (f" {UNITS[match['unit']][1]}{_per(match['per'])}" if match["unit"] else "")


def _spoken_feet(match: re.Match[str]) -> str:
    return f"{cardinal(int(match[1]))} foot {cardinal(int(match[2]))}"


def _spoken_bare_unit(match: re.Match[str]) -> str:
    """Return a unit without a number: `m^2`, `kg/m^3`."""
    power = f"{POWERS[match['power']]} " if match["power"] else ""
    unit = UNITS[match["unit"]][1] if match["unit"] in UNITS else match["unit"]
    return f"{power}{unit}{_per((match['per'] or '')[1:], match['per_power'])}"


QUANTITY_RULES: tuple[Rule, ...] = (
    rule(rf"(?<=\d)\^(?P<power>-?\d{{1,15}})(?!\d)"
         rf"(?: ?(?P<unit>{_UNIT_NAMES}|s)(?:/(?P<per>[A-Za-z]{{1,12}}))?(?![A-Za-z\d]))?",
         _spoken_power),
    rule(r"(?<=\d) ?sq\.? ?(ft|mi|km|cm|yd|m)(?![\w])", r" \1^2"),
    rule(rf"{START}(\d)(?:'| ?ft\.? )(\d{{1,2}})(?:\"| ?in(?:\.|\b)|(?![\d\"]))", _spoken_feet),
    rule(rf"{START}({NUMBER})\"(?= [a-z]|{TO})", _inches),
    rule(rf"{START}(7|10|14|21)([268]0|40)p\b", lambda match: f"{cardinal(int(match[1]))} {cardinal(int(match[2]))} p"),
    rule(rf"{QUANTITY} ?(?P<unit>{_UNIT_NAMES}|(?:(?<= )|(?<=\.\d)){SECONDS_WRITTEN_APART})"
         r"(?:\^?(?P<power>[23])(?!\d))?"
         r"(?:/(?P<per>[A-Za-z]{1,12})(?:\^?(?P<per_power>[23]))?)?(?![A-Za-z\d])", _spoken_unit),
    rule(BARE_UNIT, _spoken_bare_unit),
    rule(r"\b((?:kilo|centi|milli)?met(?:er|re)s|feet|inches|miles|yards)\^([23])(?!\d)",
         lambda match: f"{POWERS[match[2]]} {match[1]}"),
)  # fmt: skip
