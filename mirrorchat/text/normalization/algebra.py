"""Runs of algebra in plain text: y=2x+1, (a+b)², x₁, |x|, f(x), a→b, and LaTeX without its marks (\\frac{1}{2}).

A letter is a variable only beside a sign of mathematics. `2x` alone is a multiple (twice as fast), unless the text
around it speaks of mathematics.
"""

import re
from collections.abc import Collection, Mapping

from mirrorchat.text.normalization.formula_parser import formula_in_words
from mirrorchat.text.normalization.formula_words import FormulaWords
from mirrorchat.text.normalization.latex import FUNCTIONS, SIGN_COMMANDS, TEXT_COMMANDS
from mirrorchat.text.normalization.patterns import BARE_UNIT, Rule, after, any_of, before, rule

_RELATIONS = "=<>≤≥≠≈≡≅∝∈∉⊂⊆→⇒⇔∥⊥"
_OPERATORS = _RELATIONS + "+×·÷±∓∪∩*/"
_COMMAND = (
    rf"\\(?:{any_of({*SIGN_COMMANDS, *TEXT_COMMANDS, *FUNCTIONS, 'frac', 'dfrac', 'tfrac', 'sqrt', 'vec', 'bar'})})"
)
_TOKEN = (
    rf"(?: ?[{re.escape(_OPERATORS)}] ?(?![\s=>])| - |-(?![\s>-])"
    r"|\d{1,15}(?:[.,]\d{1,15}){0,3}°?"
    rf"|(?:sqrt|lim|{'|'.join(FUNCTIONS)})(?![A-Za-z]{{2}})(?: (?=[A-Za-zθ\d](?![A-Za-z])))?"
    r"|[A-Za-z]{1,4}(?![A-Za-z])|[α-ωΑ-Ω]|[()^_{}\[\]√∛∜∑∏∫∞∂∇∀∃∅]|\|(?! )|(?<=[A-Za-z\d)])\|"
    r"|(?<=[nmk]) (?=log )|(?<=[A-Za-z])′|['′](?=['′ ]?[(=])|!(?= ?[=+×/)])|, ?(?=[A-Za-z\d]\))"
    rf"|{_COMMAND}(?![A-Za-z]) ?|\\[,;!% ])"
)
_RUN = re.compile(rf"(?<![A-Za-z0-9_.\\@#&$€£¥-])(?:{_TOKEN}){{2,150}}")
_WORDS_OF_TWO = frozenset({
    "is", "in", "of", "at", "to", "by", "or", "as", "an", "am", "pm", "us", "uk", "id", "ok", "vs", "no", "if", "it",
    "on", "pi", "we", "he", "so", "do", "go", "up", "my", "me", "be", "hi",
})  # fmt: skip
_POINTS = frozenset("ABCDEFGHMNOPQRXYZ")
# A name of programmers (max_size, en_GB, SHA1_DC); an index stands behind one letter.
_IDENTIFIER = re.compile(
    r"(?<![A-Za-z])(?!(?:log|lim|max|min)_)[A-Za-z]{2,}\d{0,9}_(?!\{)|_[A-Za-z]{3}|_(?!\d{1,2}[A-Za-z]_)[A-Za-z\d]{1,9}_|_$"
)
_NO_FRACTIONS = frozenset(
    {"a/c", "b/c", "y/n", "n/a", "m/f", "f/m", "t/f", "p/e", "s/n", "w/o", "i/o", "p/s", "y/o", "c/o"}
)
_LETTERS = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,4}(?![A-Za-z])")
_FUNCTION_NAME = re.compile(rf"(?:sqrt|lim|{'|'.join(FUNCTIONS)})[xyznt]?")
_HAS_VARIABLE = re.compile(r"(?<![A-Za-z])[A-Za-z]|[α-ωΑ-Ω]")
# An operator between two operands, or an exponent or index of a letter.
_STRONG = re.compile(
    rf"[A-Za-zα-ωΑ-Ω\d)}}\]|'′!°] ?[{re.escape(_RELATIONS)}+×·÷±*∪∩] ?[-(|√∑∏∫∞∅A-Za-zα-ωΑ-Ω\d\\]"
    r"|[A-Za-zα-ω)}]\d?[\^_]"
)
_FUNCTION_OF = re.compile(
    r"(?<![A-Za-z\d])(?:O\(1\)|O\([^()]{0,12}[nmk][^()]{0,12}\)|[ya]\([tn]\)"
    r"|(?:arc)?(?:sin|cos|tan|log|ln|exp)(?:\(| ?\d| ?[xyzαβθ](?![A-Za-z'’]))"
    r"|[fghFGPφψ]['′]{0,2}\((?:-?\d{0,3}[a-zA-Zθ]|\d{1,3}|[A-Z]\|[A-Z])\))"
)
_TERM = r"(?:\d{0,4}[a-zπθ]|\d{1,4}|d[a-z]|\([^()/]{1,40}\))"
_FRACTION = re.compile(rf"(?<![A-Za-z\d])-?{_TERM}/{_TERM}$")
_LESS_ONE = re.compile(r"^(?:\d{1,4}[a-z](?:\^\d)?|[xynkt](?:\^\d)?)-\d{0,4}[a-z]?$")
# Roots, powers in letters, factorials, |x|, sums and integrals, and braces, which only notation has.
_SURE = re.compile(
    r"\blim ?\(?[a-z] ?→|[A-Za-z]′|^-\d{1,4}[xyz]$|\(\d{1,4}[a-z]\)\(|\d\^[A-Za-z(]|^sqrt\("
    r"|[√∛∜][({A-Za-zα-ω\d]|\d! ?[=×+/]|^\|[^|]{1,20}\||[∑∏∫∂∇∀∃][A-Za-z_({]"
    r"|\{[^{}]{0,30}[A-Za-z]\}|\^\{|_\{"
)
_MULTIPLE = re.compile(r"\d{1,6}(?:\.\d{1,4})?[a-z]{1,3}")
_MATHS_NEARBY = re.compile(
    r"[a-zA-Z)]\^|\b[xyz] ?[=<>+]|[=+] ?\d{0,3}[xyz]\b|\bf\(x\)|(?<![A-Za-z\d])[xyz](?![A-Za-z])|\bterms?\b"
    r"|\b(?:[Dd]erivative|[Ii]ntegral|[Ee]quation|[Ff]unction|[Pp]olynomial|[Cc]oefficient|[Ss]implif|[Ff]actor|[Ee]xpand"
    r"|[Ss]olve|[Ss]lope|algebra)|方程|函数|导数|积分|系数|化简|求解|多项式|代数|单项式|同类项|斜率"
)
_NO_OPERAND = re.compile(r"/ ?[=<>≤≥≠≈+×÷*/]")
_NEARBY_CHARS = 200
_PLAIN_TAIL = re.compile(
    r"(?<=[=<>≤≥≠≈])( ?)(-?\d{1,15}(?:[.,]\d{1,15}){0,3}°?(?: ?[A-Za-z]{1,4}(?:/[a-z]{1,3})?(?:\^[23])?)?)$"
)
_UNIT_TAIL = re.compile(r"(?<![A-Za-zμΩ])([A-Za-zμΩ]{1,4})(?:/[A-Za-zμΩ]{1,4})?(?:\^-?[1-4])?$")
# What programmers write; n!=120 has a factorial.
_COMPARISON = rule(
    r"(?<![<>=!-])(?:[<>=]|(?<![nkm\d)])!)=(?![=>])",
    lambda match: {"<": "≤", ">": "≥", "!": "≠", "=": "="}[match[0][0]],
)
_JOINED_FUNCTION = rule(r"(?<![A-Za-z\\])(sin|cos|tan|cot|ln|lg|log)([xyzABC])(?= ?[+/=^→×]| - )", r"\1 \2")
_FUNCTION_OF_ANGLE = rule(r"(?<![A-Za-z\\])((?:[a-z]{1,2})?)(sin|cos|tan)([A-Z])(?![A-Za-z])", r"\1 \2 \3")


def algebra_rules(words: FormulaWords) -> tuple[Rule, ...]:
    """Return the rules that speak algebra in the language of `words`."""

    def spoken(match: re.Match[str]) -> str:
        head, rest = _without_prose(match[0])
        if not _is_algebra(head, match, words.units):
            return match[0]
        quantity = ""
        tail = _PLAIN_TAIL.search(head)
        if tail and _is_quantity(tail[2], head, words.units):  # the rules of numbers and units know what follows it
            head, quantity = head[: tail.start()], tail[2]
        notation = head if "\\" in head else head.replace("sqrt", "√").replace(" / ", "÷")
        in_words = formula_in_words(notation, words)
        return match[0] if in_words is None else words.join([in_words, quantity] if quantity else [in_words]) + rest

    return (_COMPARISON, _JOINED_FUNCTION, _FUNCTION_OF_ANGLE, (_RUN, spoken))


def greek_rule(letters: Mapping[str, str]) -> Rule:
    """Return the rule that names Greek letters in text; it follows the rules of units, which have some (μm, Ω)."""

    def named(match: re.Match[str]) -> str:
        name = letters[match[0]]
        apart = name.isascii()
        return " " * (apart and before(match, 1).isalnum()) + name + " " * (apart and after(match, 1).isalnum())

    return rule(any_of(letters), named)


def _without_prose(run: str) -> tuple[str, str]:
    """Split `run` where a word, a loose parenthesis or a loose sign shows that the algebra is over."""
    end = len(run)
    for letters in _LETTERS.finditer(run):
        is_name = _are_variables(letters[0]) or _FUNCTION_NAME.fullmatch(letters[0])
        if not is_name and not _is_in_command(run, letters.start()):
            end = letters.start()
            break
    opened: list[int] = []
    for at, character in enumerate(run[:end]):
        if character in "([{":
            opened.append(at)
        elif character in ")]}":
            if not opened:
                end = at
                break
            opened.pop()
    end = min([end, *opened])
    head = run[:end].rstrip(f" -{_OPERATORS}([{{^_√|,\\" if run[:end].count("|") % 2 else f" -{_OPERATORS}([{{^_√,\\")
    return head, run[len(head) :]


def _is_in_command(run: str, at: int) -> bool:
    return bool(re.search(r"\\[A-Za-z]{0,20}$|\\(?:text|mathrm|operatorname)\{[^}]{0,40}$", run[max(0, at - 60) : at]))


def _are_variables(letters: str) -> bool:
    """Return whether `letters` can be factors side by side (mc, nRT) or points (ABC, ABCD), and not a word."""
    if len(letters) == 2:
        return letters.lower() not in _WORDS_OF_TWO
    if letters.isupper():
        return list(letters) == sorted(letters) or (len(letters) == 3 and set(letters) <= _POINTS)
    return len(letters) == 3 and not letters.istitle() and not re.search("[aeiou]", letters.lower())


def _is_algebra(run: str, match: re.Match[str], units: Collection[str]) -> bool:
    if not run or "++" in run or "--" in run or _NO_OPERAND.search(run) or _IDENTIFIER.search(run):
        return False
    if "\\" in run:
        return True
    if _is_unit(run, match, units):
        return False
    if _SURE.search(run):
        return True
    if not _HAS_VARIABLE.search(run):
        return False
    if _MULTIPLE.fullmatch(run):
        return _is_multiple_of_variable(run, match, units)
    is_fraction = (
        _FRACTION.match(run) and run not in _NO_FRACTIONS and not match.string.startswith(" test", match.end())
    )
    return bool(_STRONG.search(run) or _FUNCTION_OF.search(run) or is_fraction or _LESS_ONE.match(run))


def _is_unit(run: str, match: re.Match[str], units: Collection[str]) -> bool:
    """Return whether the only letters of `run` are a unit: behind a number, as in 5 m² and 10^8m/s, or m² alone."""
    if re.fullmatch(BARE_UNIT, run):
        return True
    unit = _UNIT_TAIL.search(run.rstrip(")"))
    if unit is None or unit[1] not in units or _HAS_VARIABLE.search(run[: unit.start()]):
        return False
    digit_before = run[: unit.start()].rstrip()[-1:] or before(match, 2).strip()[-1:]
    return digit_before.isdigit()


def _is_multiple_of_variable(run: str, match: re.Match[str], units: Collection[str]) -> bool:
    letters = run.lstrip("0123456789.")
    if letters in units or (letters not in ("x", "y", "z") and len(letters) == 1):
        return False
    start, end = match.span()
    around = match.string[max(0, start - _NEARBY_CHARS) : start] + " " + match.string[end : end + _NEARBY_CHARS]
    return bool(_MATHS_NEARBY.search(around)) and (letters in ("x", "y", "z") or not re.search("[eiou]", letters))


def _is_quantity(tail: str, head: str, units: Collection[str]) -> bool:
    """Return whether `tail` is a number, maybe with a unit, and not a multiple of a variable."""
    unit = re.search(r"([A-Za-z]{1,4})(?:/[a-z]{1,3})?(?:\^[23])?$", tail)
    return unit is None or (unit[1] in units and (len(unit[1]) > 1 or not re.match(r"[xyz(f]", head)))
