"""Runs of quantities: units that signs join (400 N·m, 8.314 J/(mol·K)), and calculations with units (5kg×10N/kg=50N).

Algebra would take the letters of the units for variables. The units become words here; the numbers and the signs of
arithmetic stay in written form for the rules that follow.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

from mirrorchat.text.normalization.chinese_words import UNITS as CHINESE_UNITS
from mirrorchat.text.normalization.english_words import UNITS as ENGLISH_UNITS
from mirrorchat.text.normalization.patterns import NUMBER, Rule, after, any_of, before
from mirrorchat.text.normalization.runs import RunKind

_LETTERS = "NACKFTWd"  # alone behind a number most of them are no units: 5A, 4K, 3F, 2T
_NAMES = {*CHINESE_UNITS, *ENGLISH_UNITS, *_LETTERS}
_UNIT = any_of(name for name in _NAMES if re.fullmatch("°[CF]|fl oz|[A-Za-zμΩ]{1,8}", name)) + "(?![A-Za-z])"
_FACTOR = rf"{_UNIT}(?:\^?[234](?!\d)|\^\{{?-?[1-4]\}}?(?!\d))?"
_PRODUCT = rf"{_FACTOR}(?: ?[·*] ?{_FACTOR}){{0,3}}"
_EXPRESSION = rf"{_PRODUCT}(?:/(?:\({_PRODUCT}\)|{_FACTOR}(?:·{_FACTOR})?)){{0,2}}"
_AMOUNT = rf"(?:(?:{NUMBER} ?[×*] ?)?10\^-?\d{{1,3}}|{NUMBER})"
_ITEM = rf"{_AMOUNT}(?: ?{_EXPRESSION}(?![A-Za-z0-9(^]))?"
_SIGN = " ?[×÷*/+=≈±-] ?"
_PART = re.compile(rf"(?P<number>{_AMOUNT})(?: ?(?P<unit>{_EXPRESSION}))?(?P<sign>{_SIGN})?")
_FACTORS = re.compile(rf"(?P<name>{_UNIT})(?:\^?\{{?(?P<power>-?[1-4])\}}?)?")
# What a text with a unit of one letter is about, or the sign of the quantity.
_CONTEXTS = {
    "A": r"电流|电压|额定|插座|保险丝|充电|\d ?m?V(?![A-Za-z])|I ?[=≈]"
         r"|\b(?:currents?|volts?|fuse|breaker|outlet|circuit|charger|wire)\b",
    "K": r"温|绝对零度|开尔文|temperature|[Kk]elvin|°[CF]|absolute|T ?[=≈]",
    "C": r"电荷|电量|库仑|\bcharge|coulomb|[qQ] ?[=≈]",
    "N": r"力(?![扬])|牛顿|重|\b[Ff]orce|[Nn]ewton|weigh|thrust|[FGNfT] ?[=≈]",
    "F": r"电容|法拉|[Cc]apacit",
    "T": r"磁场|磁感应|磁共振|magnet|MRI",
}  # fmt: skip
_LETTER_UNIT = re.compile(
    rf"(?<![A-Za-z0-9.,^$€£¥-])(?P<number>{_AMOUNT})(?P<gap> ?)(?P<unit>[NAKCFT])"
    r"(?![A-Za-z0-9/^·_+-]|[.]\d|[级景屏工薪]| grades?\b)"
)
_CLAUSE_END = re.compile(r"[，。！？；!?;]|\. ")
_NEARBY_CHARS = 30
_IS_JOINED = re.compile(rf"[·*(]|-\d|/.*/|(?<![A-Za-z])[{_LETTERS}]/|/[{_LETTERS}](?![A-Za-z])")


@dataclass(frozen=True)
class UnitPower:
    """A unit and its exponent, a digit from 1 to 4."""

    name: str
    power: str


@dataclass(frozen=True)
class CompoundUnit:
    """The units above and below the line: those of `N·m^2/kg^2`."""

    factors: tuple[UnitPower, ...]
    divisors: tuple[UnitPower, ...]


@dataclass(frozen=True)
class Term:
    """A number of a calculation, its unit if it has one, and the sign behind it."""

    number: str
    unit: CompoundUnit | None
    sign: str


@dataclass(frozen=True)
class Calculation:
    """The terms of a calculation; a quantity with a compound unit is one term."""

    terms: tuple[Term, ...]


def _calculation(match: re.Match[str]) -> Calculation | None:
    parts = list(_PART.finditer(match["terms"]))
    if not (_is_compound(match, parts[0]) if len(parts) == 1 else _has_units(parts)):
        return None
    signs = "".join(part["sign"] or "" for part in parts)
    divides = match["result"] is not None or re.search("[=×÷*]", signs) is not None
    terms = []
    for part, following in itertools.zip_longest(parts, parts[1:]):
        has_unit = part["unit"] or (following and following["unit"])
        unit = _unit(part["unit"]) if part["unit"] else None
        terms.append(Term(part["number"], unit, _sign(part["sign"] or "", divides and bool(has_unit))))
    return Calculation(tuple(terms))


def _is_compound(match: re.Match[str], part: re.Match[str]) -> bool:
    """Return whether one quantity has units that algebra would take for variables."""
    unit = part["unit"] or ""
    is_inside = before(match, 1) == "(" and after(match, 1) == ")"
    is_result = match["result"] is not None and "/" in unit
    is_power = "^" in part["number"] and unit != ""
    return bool(_IS_JOINED.search(unit)) or (is_inside and len(unit) > 1) or is_result or is_power


def _has_units(parts: list[re.Match[str]]) -> bool:
    """Return whether the terms are quantities. In a sum each has a unit: `2m+3` is algebra, `3/4 kg` a fraction."""
    units = [part["unit"] for part in parts]
    signs = {(part["sign"] or "").strip() for part in parts} - {""}
    needs_all = signs == {"/"} or signs & {"+", "-", "±"}
    return all(units) if needs_all else any(unit and unit not in _LETTERS for unit in units)


def _sign(written: str, divides: bool) -> str:
    sign = written.strip()
    if sign == "/":
        return "÷" if divides else "/"
    return {"*": "×", "-": " - "}.get(sign, sign)


def _unit(written: str) -> CompoundUnit:
    above, _, below = written.partition("/")
    units = [(match["name"], match["power"] or "1") for match in _FACTORS.finditer(above)]
    divisors = [UnitPower(match["name"], match["power"] or "1") for match in _FACTORS.finditer(below)]
    inverse = [UnitPower(name, power[1:]) for name, power in units if power.startswith("-")]
    factors = [UnitPower(name, power) for name, power in units if not power.startswith("-")]
    return CompoundUnit(tuple(factors), (*inverse, *divisors))


CALCULATION = RunKind(
    re.compile(
        r"(?<![A-Za-z0-9.,^_/~–—{})-])(?P<result>(?<==)|(?<== ))?"
        rf"(?P<terms>{_ITEM}(?:{_SIGN}{_ITEM}){{0,8}})(?![A-Za-z0-9^(]|[.,]\d|[·*/] ?[A-Za-z])"
    ),
    _calculation,
)


def calculation_rules(speak: Callable[[CompoundUnit, bool], str]) -> tuple[Rule, Rule]:
    """Return the rules for calculations and for units of one letter.

    `speak` returns the words of a unit; it is told whether the number is 1.
    """

    def written(calculation: Calculation) -> str:
        return "".join(
            term.number + (speak(term.unit, term.number == "1") if term.unit else "") + term.sign
            for term in calculation.terms
        )

    def letter(match: re.Match[str]) -> str:
        near = _CLAUSE_END.split(before(match, _NEARBY_CHARS))[-1] + "\n"
        near += _CLAUSE_END.split(after(match, _NEARBY_CHARS))[0]
        is_unit = "^" in match["number"] or re.search(_CONTEXTS[match["unit"]], near)
        unit = CompoundUnit((UnitPower(match["unit"], "1"),), ())
        is_one = match["number"] == "1" or re.search(r"\b[Aa]n? $", before(match, 4)) is not None
        return match["number"] + speak(unit, is_one) if is_unit else match[0]

    return CALCULATION.spoken(written), (_LETTER_UNIT, letter)
