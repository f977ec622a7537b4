"""Runs of chemistry: compounds (H2SO4, NaOH), ions (SO4^{2-}) and equations (2H2 + O2 → 2H2O), letter by letter."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mirrorchat.text.normalization.patterns import Rule
from mirrorchat.text.normalization.runs import RunKind

_ELEMENT = (
    "(?:A[cglmrstu]|B[aehikr]?|C[adeflmorsu]?|D[bsy]|E[rsu]|F[elmr]?|G[ade]|H[efgos]?|I[nr]?|Kr?|L[airu]|M[dgnot]"
    "|N[abdeiop]?|Os?|P[abdmortu]?|R[abefhnu]|S[bcegimnr]?|T[abceilm]|U|V|W|Xe|Yb?|Z[nr])"
)
_ATOMS = rf"{_ELEMENT}(?:[1-9]\d?)?"
_FORMULA = rf"(?=[A-Z])(?:{_ATOMS}|\((?:{_ATOMS}){{1,4}}\)[1-9]?){{1,10}}(?:·\d{{0,2}}(?:{_ATOMS}){{1,3}})?"
_CHARGE = r"\^(?:\{\d?[+-]\}|\d?[+-])"
_ELECTRONS = rf"(?:\d{{1,2}} ?)?e{_CHARGE}"
_SPECIES = (
    rf"(?:{_ELECTRONS}|(?:\d{{1,2}} ?)?{_FORMULA}(?:{_CHARGE})?"
    r"(?:\((?:aq|[slg]|[^()\s\w=+]{1,4}|[\u4e00-\u9fff]{1,4})\))?[↑↓]?)"
)
_ARROW = "[-=]{1,3}>|[→⟶⇌]"
_JOINT = rf" ?(?:{_ARROW}|[+=]|-(?= ?{_ELECTRONS})) ?(?:\([^()\s=+]{{1,12}}\) ?)?"
_NO_FORMULA_BEFORE = r"(?<![A-Za-z0-9^_/.,\\-])"
# Compounds without a number that no word looks like.
_PLAIN_COMPOUND = (
    "(?:Na|Li|Ca|Mg|Ba|Cu|Fe|Zn|Ag|Al|Hg|Pb|Mn|Si|K|H)(?:OH|Cl|Br|CN|F)"
    "|(?:Na|Li|Ca|Mg|Ba|Cu|Fe|Zn|Ag|Hg|Pb|Mn|Si)[IOSC](?![A-Za-z])"
)
_PIECE = re.compile(
    rf"(?P<sign>{_ARROW}|\^\{{?(?P<count>\d?)(?P<charge>[+-])\}}?|[+=↑↓-])|(?P<element>{_ELEMENT}|e(?=\^))|(?P<number>\d{{1,2}})"
    r"|(?:\((?:aq|[slg])\))|(?P<condition>\([^()\s=+A-Z]{1,12}\))|."
)


@dataclass(frozen=True)
class Chemistry:
    """A formula or an equation as it is written."""

    written: str


@dataclass(frozen=True)
class ChemistryWords:
    """What one language says for numbers, signs, and the charges + and -."""

    number: Callable[[str], str]
    signs: Mapping[str, str]
    charges: Mapping[str, str]
    join: Callable[[list[str]], str]


def chemistry_rules(words: ChemistryWords) -> tuple[Rule, ...]:
    """Return the rules that speak chemistry in the language of `words`."""

    def spoken(run: Chemistry) -> str:
        return words.join(list(filter(None, (_spoken_piece(piece, words) for piece in _PIECE.finditer(run.written)))))

    return EQUATION.spoken(spoken), ION.spoken(spoken), COMPOUND.spoken(spoken)


def _spoken_piece(piece: re.Match[str], words: ChemistryWords) -> str:
    if piece["element"]:
        return " ".join(piece["element"].upper()) if piece["element"] != "e" else "e"
    if piece["number"]:
        return words.number(piece["number"])
    if piece["charge"]:
        return (f"{words.number(piece['count'])} " if piece["count"] else "") + words.charges[piece["charge"]]
    if piece["sign"]:
        return words.signs["→" if piece["sign"][-1] in ">⟶" else piece["sign"]]
    return piece["condition"] or ""


def _equation(match: re.Match[str]) -> Chemistry | None:
    """Return None for formulas of physics and of algebra: P=UI, V=HI."""
    is_chemistry = re.search(rf"[A-Z)][a-z]?[2-9]|\^\{{\d?[+-]|{_PLAIN_COMPOUND}", match[0])
    return Chemistry(match[0]) if is_chemistry else None


def _compound(match: re.Match[str]) -> Chemistry | None:
    return Chemistry(match[0]) if len(re.findall(_ELEMENT, match[0])) > 1 else None


EQUATION = RunKind(
    re.compile(rf"{_NO_FORMULA_BEFORE}{_SPECIES}(?:{_JOINT}{_SPECIES}){{1,7}}(?![A-Za-z0-9_^/]|\.\d)"), _equation
)
ION = RunKind(
    re.compile(rf"{_NO_FORMULA_BEFORE}(?:{_FORMULA}|e){_CHARGE}(?![A-Za-z0-9])"), lambda match: Chemistry(match[0])
)
COMPOUND = RunKind(
    re.compile(
        rf"{_NO_FORMULA_BEFORE}(?:[2-9]?(?=[A-Za-z()]{{1,12}}[1-9]){_FORMULA}|{_PLAIN_COMPOUND})[↑↓]?(?![A-Za-z0-9_]|\.\d|-\d)"
    ),
    _compound,
)
