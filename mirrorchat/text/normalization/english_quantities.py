"""English text normalization: money, units and sizes."""

import re

from mirrorchat.text.normalization.calculations import CompoundUnit, UnitPower, calculation_rules
from mirrorchat.text.normalization.english_numbers import cardinal, number_words, power_words, quantity
from mirrorchat.text.normalization.english_words import COUNTED, LETTER_UNITS, POWERS, POWERS_OF_TIME, UNITS
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
    modifies_noun,
    rule,
)

SECONDS_WRITTEN_APART = r"(?<!\d0)s"  # "90 s" and "1.5s" are seconds, "the 90s" are not
_UNIT_NAMES = any_of(unit for unit in UNITS if unit != "s")


def _unit_name(unit: UnitPower, is_singular: bool) -> str:
    name = (UNITS.get(unit.name) or LETTER_UNITS.get(unit.name, (unit.name,) * 2))[0 if is_singular else 1]
    if unit.power == "1":
        return name
    if unit.power in POWERS and unit.name not in ("s", "h", "min"):
        return f"{POWERS[unit.power]} {name}"
    return f"{name} {POWERS_OF_TIME.get(unit.power) or f'to the power of {cardinal(int(unit.power))}'}"


def _compound_unit(unit: CompoundUnit, is_one: bool) -> str:
    """Return `N·m` as newton meters, `J/(mol·K)` as joules per mole kelvin."""
    last = len(unit.factors) - 1
    words = [_unit_name(factor, is_one or at < last) for at, factor in enumerate(unit.factors)]
    words += ["per", *(_unit_name(divisor, True) for divisor in unit.divisors)] if unit.divisors else []
    return " " + " ".join(words)


CALCULATION_RULES: tuple[Rule, ...] = (
    *calculation_rules(_compound_unit),
    rule(r"(?<==)(\d{1,4})s\b", r"\1 s"),
    rule(r"(?<=[A-Za-z])/(?=\d{1,2} ?(?:h|hr|hours|days|min)\b)", " per "),
)
"""These stand in front of algebra, which would take the letters of units for variables."""


def _spoken_unit(match: re.Match[str]) -> str:
    words, is_one = quantity(match)
    is_angle = match["unit"] == "°" and COUNTED.match(after(match, 20)) is not None  # 45° angles
    is_one = is_one or is_angle or modifies_noun(match) or re.match("-[a-z]", after(match, 2)) is not None
    name = UNITS[match["unit"]][0 if is_one else 1]
    power = f"{POWERS[match['power']]} " if match["power"] else ""
    return f"{words} {power}{name}{_per(match['per'], match['per_power'])}"


def _inches(match: re.Match[str]) -> str:
    """Return the sign of `27"` or `3/4"` as a unit, unless it closes a quotation or follows feet (5'10")."""
    closes = len(re.findall(r'(?<!\d)"', before(match, 500))) % 2
    if not closes and COUNTED.match(after(match, 20)):
        return "-inch"  # 19" wheels
    return match[0] if closes or re.search(r"['′’] ?\d{1,2}(?:\.\d| 1/2)?$|\d{4}$", before(match, 8)) else " in."


def _feet(match: re.Match[str]) -> str:
    """Return the sign of `5'` as a unit, unless it closes a quotation."""
    closes = len(re.findall(r"(?<!\w)['‘]", before(match, 200))) % 2
    return match[0] if closes else "-foot" if after(match, 1) == "-" else " ft"


def _spoken_dimensions(match: re.Match[str]) -> str:
    """Return `5cm x 10 cm` as five by ten centimeters, `5 m × 2 m =` as a product."""
    numbers = [number_words(number) for number in re.findall(NUMBER, match[0])]
    one, many = UNITS["ft" if match["unit"] == "'" else match["unit"]]
    if re.match(" ?=", after(match, 2)):
        return f" {many} times ".join(numbers) + f" {many}" if match["lower"] else f"{' times '.join(numbers)} {many}"
    return f"{' by '.join(numbers)} {one if modifies_noun(match) else many}"


def _spoken_joined_unit(match: re.Match[str]) -> str:
    return f"-{UNITS[match[1]][0]}".replace(" per ", "-per-")


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


_POINTED_UNITS = r"fl\.? ?oz|sq\.? ?(?:ft|mi|yd|in)|[Tt]bsps?|[Tt]sps?|oz|lbs?|ft|yd|hrs?|mins?|sec|gal|pt|qt|mi|sq"
_WORD_UNITS = any_of(unit for unit in UNITS if len(unit) > 1 and unit.isalpha())
_SIZED = "pixels?|met(?:er|re)s?|feet|foot|inch|inches|grid|matrix|display|pan"
_LENGTH = r"(?:[mck]?m|ft|yd|in\.?|px|')"

# These stand before all other runs, which would take the numbers one by one.
EARLY_QUANTITY_RULES: tuple[Rule, ...] = (
    rule(rf"(?<=\d)\+ ({_WORD_UNITS})\b", lambda match: f" plus {UNITS[match[1]][1]}"),
    rule(rf"(?<=illion )({_WORD_UNITS})\b(?!/)", lambda match: UNITS[match[1]][1]),
    rule(r"(?<!\d{4})(?<=\d) in(?=\.$| ?[=≈]|\^[23](?!\d))", " in."),
    rule(r"/(mo|yr|wk|hr|min|sec)\.(?= [a-z]|[,;:)])", r"/\1"),
    rule(r"(°[CF]?) ?/ ?(?=\d|gas\b)", r"\1, "),
    rule(r"(?<![\w.])(\d{1,2})C(\d{1,2})(?!\w)", r"\1 choose \2"),
    rule(rf"{START}{NUMBER}(?: ?[x×] ?{NUMBER}){{1,2}}(?=[ -](?:{_SIZED})\b)",
         lambda match: " by ".join(map(number_words, re.findall(NUMBER, match[0])))),
    rule(rf"{START}(\d)['′’] ?(\d{{1,2}}) 1/2\"", r"\1 foot \2 1/2"),
    rule(r"(?<=\d)[x×]/(?=(?:day|week|month|year|d|wk|mo|yr)\b)", " times per "),
    rule(r'(?<=\d)"(?![\w"])', _inches),
    rule(rf"(?<=\d)([ -]?(?:{_POINTED_UNITS}))\.(?= [a-z\d(]|[,;:)/])", lambda match: match[1].replace(".", "")),
    rule(rf"{START}{NUMBER} ?(?P<lower>{_LENGTH})?(?: ?[xX×] ?{NUMBER} ?(?(lower)(?P=lower))){{0,1}}"
         rf" ?[xX×] ?{NUMBER} ?(?P<unit>(?(lower)(?P=lower)|{_LENGTH}))(?![\w'^])", _spoken_dimensions),
    rule(r"(?<=(?<![\w'’.])\d)['’](?=[ .,;)-]|$)", _feet),
)  # fmt: skip

QUANTITY_RULES: tuple[Rule, ...] = (
    rule(rf"(?<![\w'’])(?<!the )(\d{{1,3}}{TO}\d{{1,3}})s\b", r"\1 s"),
    rule(rf"(?<=\()({_WORD_UNITS})(?=\))",
         lambda match: UNITS[match[1]][1]),
    rule(rf"(?<=\d)-({_UNIT_NAMES})(?!\w|-(?!old\b))", _spoken_joined_unit),
    rule(rf"(?<=\d)\^(?P<power>-?\d{{1,15}})(?!\d)"
         rf"(?: ?(?P<unit>{_UNIT_NAMES}|s)(?:/(?P<per>[A-Za-z]{{1,12}}))?(?![A-Za-z\d]))?",
         _spoken_power),
    rule(r"(?<=\d) ?sq\.? ?(ft|mi|km|cm|yd|m)(?![\w])", r" \1^2"),
    rule(rf"{START}(\d)(?:'| ?ft\.? )(\d{{1,2}})(?:\"| ?in(?:\.|\b)|(?![\d\"]))", _spoken_feet),
    rule(rf"{START}(7|10|14|21)([268]0|40)p\b", lambda match: f"{cardinal(int(match[1]))} {cardinal(int(match[2]))} p"),
    rule(rf"{QUANTITY} ?(?P<unit>{_UNIT_NAMES}|(?:(?<= )|(?<=\.\d)|(?<=\.\d\d)){SECONDS_WRITTEN_APART})"
         r"(?:\^?(?P<power>[23])(?!\d))?"
         r"(?:/(?P<per>[A-Za-z]{1,12})(?:\^?(?P<per_power>[23]))?)?(?![A-Za-z\d])", _spoken_unit),
    rule(BARE_UNIT, _spoken_bare_unit),
    rule(r"\b((?:kilo|centi|milli)?met(?:er|re)s|feet|inches|miles|yards)\^([23])(?!\d)",
         lambda match: f"{POWERS[match[2]]} {match[1]}"),
)  # fmt: skip
