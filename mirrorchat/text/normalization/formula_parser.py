"""Parses mathematical notation, plain (2x+1, √2, a/b) or LaTeX (\\frac{1}{2}), and composes its words.

The grammar stands here; `english_formulas.py` and `chinese_formulas.py` have the words. The result may hold pieces in
written form (`50%`, `5 kg`), which the rules of text normalization speak afterwards.
"""

import itertools
import re

from mirrorchat.text.normalization.formula_tokens import tokens_of
from mirrorchat.text.normalization.formula_words import FormulaWords, Part
from mirrorchat.text.normalization.latex import ACCENTS, FUNCTIONS, TEXT_COMMANDS

LONGEST_CHARS = 2000
_DEEPEST = 25  # groups within groups; no formula that is meant to be heard has more
_ENDS = frozenset({")", "]", "}", "\\}", "&", "\\\\", "\\end"})
_OPENERS = frozenset({"(", "[", "\\{"})
_BIG = {"∑": "sum", "∏": "product", "∫": "integral", "∬": "integral", "∮": "integral", "lim": "limit"}
_LIST_SIGNS = frozenset(",;:，、|")
_ROOTS = {"√": "", "∛": "3", "∜": "4"}
_PREFIXES = frozenset("∂∇∠△")  # stand before what they belong to, like a letter
_PRIMES = {"'": 1, "’": 1, "′": 1, "″": 2}
_FUNCTION_LETTERS = frozenset("fghFGHPTOVWΓφψΦΨ")  # before a parenthesis; any other letter multiplies it
_COUNTS_CHOICES = ("C", "A")
_LETTER = re.compile(r"[A-Za-zα-ωΑ-Ωħ]")
_ELEMENTS = frozenset("HCNOFSPKBI")
_WHOLE_EXPONENTS = frozenset("∘′⊤")
_ORDINAL_ENDINGS = frozenset({"st", "nd", "rd", "th"})


def formula_in_words(notation: str, words: FormulaWords) -> str | None:
    """Return `notation` in words, None if it cannot be parsed: too long or too deep."""
    if len(notation) > LONGEST_CHARS:
        return None
    try:
        return _Parser(notation, words).whole()
    except RecursionError:
        return None


class _Parser:
    """A recursive descent over the tokens of one formula."""

    def __init__(self, notation: str, words: FormulaWords) -> None:
        self._tokens = tokens_of(notation)
        self._at = 0
        self._depth = 0
        self._words = words
        self._bar_ends = False  # inside |...|: the next bar closes
        self._arrow = "→"
        self._is_set = False

    def whole(self) -> str:
        parts = []
        while self._at < len(self._tokens):
            part = self._expression().words
            parts += [part] if part else []
            if self._at < len(self._tokens):
                self._at += 1  # a closing mark without its opening one, or the end of a row
        return self._words.join(parts)

    def _peek(self, ahead: int = 0) -> str:
        """Return the next token that is no space, or an empty one at the end."""
        while self._at < len(self._tokens) and self._tokens[self._at].isspace():
            self._at += 1
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _expression(self) -> Part:
        """Read terms and the signs between them, up to a closing mark."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RecursionError
        parts: list[Part] = []
        words: list[str] = []
        after_sign = True
        while (token := self._peek()) and token not in _ENDS and not (token == "|" and self._bar_ends):
            if self._is_sign(token) and not (token == "|" and after_sign):
                words.append(self._sign(self._next(), is_unary=after_sign))
                after_sign = token not in ("∞", "!", "∅", "…")
                parts.append(Part(token, is_compound=token not in _LIST_SIGNS))
                continue
            parts.append(self._term())
            words.append(parts[-1].words)
            after_sign = False
        self._depth -= 1
        words = [word for word in words if word]
        if len(parts) == 1 and not parts[0].is_compound:
            return parts[0]
        return Part(self._words.join(words), is_compound=any(part.is_compound for part in parts))

    def _is_sign(self, token: str) -> bool:
        is_operator = token in self._words.signs and token not in _BIG and token not in _PREFIXES
        return is_operator or token in _LIST_SIGNS or token == "-"

    def _sign(self, token: str, *, is_unary: bool) -> str:
        if token == "-":
            return self._words.phrases["negative" if is_unary else "minus"]
        if token == "±" and not is_unary:
            return self._words.phrases["plus or minus"]
        if token == "→":
            is_number = self._peek()[:1].isdigit() and not self._peek(1)[:1].isalpha()  # not in 2H₂ + O₂ → 2H₂O
            is_limit = is_number or self._peek() == "∞"
            return self._words.signs["approaches" if is_limit else self._arrow].strip()
        if token == "|":
            return self._words.phrases["such that" if self._is_set else "given"]
        return self._words.signs[token].strip() if token in self._words.signs else self._words.phrases[","]

    def _term(self) -> Part:
        """Read factors that stand side by side, and a fraction that a slash makes of them."""
        above = self._product()
        while self._peek() == "/" and self._peek(1) and above.words:
            self._next()
            if above.number.isdigit() and self._peek().isdigit():  # ½mv²: the numbers are a fraction by themselves
                fraction = self._fraction(above, self._factor())
                rest = [self._product()] if self._begins_factor(self._peek()) else []
                above = Part(self._words.join([fraction.words, *(part.words for part in rest)]))
            else:
                above = self._fraction(above, self._product())
        return above

    def _product(self) -> Part:
        factors = [self._factor()]
        while self._begins_factor(self._peek()):
            factor = self._factor()
            if factor.is_fraction and factors[-1].number.isdigit():
                factor = Part(self._words.phrase("mixed", factors.pop().words, factor.words))
            factors.append(factor)
        if len(factors) == 1:
            return factors[0]
        return Part(self._words.join([factor.words for factor in factors if factor.words]))

    def _begins_factor(self, token: str) -> bool:
        if token == "|" and not self._bar_ends:
            return self._bars_ahead() > 1
        return bool(token) and token not in _ENDS and token not in ("|", "/") and not self._is_sign(token)

    def _bars_ahead(self) -> int:
        """Return how many bars stand before the end of the group: a single one means `given`, as in P(A|B)."""
        ahead = itertools.takewhile(lambda token: token not in _ENDS, self._tokens[self._at :])
        return sum(token == "|" for token in ahead)

    def _fraction(self, above: Part, below: Part) -> Part:
        if above.number.isdigit() and below.number.isdigit():
            return Part(self._words.fraction(int(above.number), int(below.number)), is_fraction=True)
        return Part(self._words.phrase("fraction", above.words, below.words))

    def _factor(self) -> Part:
        token = self._next()
        if token in _BIG:
            return self._big(token)
        if token.lstrip("\\") in FUNCTIONS:
            return self._function(token.lstrip("\\"))
        if token == "\\begin":
            return self._environment()
        return self._postfixes(self._atom(token), token)

    def _atom(self, token: str) -> Part:
        name = token[1:] if token.startswith("\\") else ""
        if token[:1].isdigit():
            return Part(self._words.number(token), number=token)
        if token in _OPENERS:
            return self._parenthesis(token)
        if token == "{":
            return self._closed(self._expression())
        if token == "|":
            return self._absolute()
        if token in _ROOTS or name == "sqrt":
            return self._root(_ROOTS.get(token, ""))
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            return self._fraction(self._argument(), self._argument())
        if name in ("binom", "dbinom", "tbinom"):
            return Part(self._words.phrase("choose", self._argument().words, self._argument().words))
        if name in ACCENTS:
            accent = {"overrightarrow": "vec", "overline": "bar", "widehat": "hat"}.get(name, name)
            return Part(self._words.phrase(accent, self._argument().words))
        if name in TEXT_COMMANDS:
            return Part(self._raw_argument())
        if token in _PREFIXES:
            return Part(self._words.signs[token].strip())
        if _LETTER.fullmatch(token):
            return Part(self._words.letters.get(token, token))
        return Part(name if name.isalpha() else token if token.isalpha() else "")

    def _closed(self, part: Part) -> Part:
        """Pass the closing mark of a group."""
        if self._peek() in _ENDS - {"&", "\\\\", "\\end"}:
            self._at += 1
        return part

    def _parenthesis(self, opener: str) -> Part:
        outer, self._bar_ends = self._bar_ends, False
        outer_set, self._is_set = self._is_set, opener == "\\{"
        inside = self._closed(self._expression())
        self._bar_ends, self._is_set = outer, outer_set
        if opener == "\\{":
            return Part(self._words.phrase("set", inside.words))
        return Part(f"({inside.words})", is_compound=inside.is_compound)

    def _absolute(self) -> Part:
        outer, self._bar_ends = self._bar_ends, True
        inside = self._expression()
        self._at += self._peek() == "|"
        self._bar_ends = outer
        return Part(self._words.phrase("absolute", inside.words))

    def _root(self, degree: str) -> Part:
        degree = self._words.number(degree) if degree else ""
        if self._peek() == "[":
            self._next()
            degree = self._closed(self._expression()).words
        inside = self._argument(whole_number=True).words
        if not degree:
            return Part(self._words.phrase("root", inside))
        name = {self._words.number("2"): "root", self._words.number("3"): "cube root"}.get(degree, "nth root")
        return Part(self._words.phrase(name, inside, degree))

    def _argument(self, *, whole_number: bool = False) -> Part:
        """Read what a command applies to: a group, or one token (of a number in LaTeX: one digit)."""
        token = self._next()
        if token == "(" and whole_number:
            inside = self._parenthesis(token)
            return inside if inside.is_compound else Part(inside.words[1:-1])
        if token.isdigit() and len(token) > 1 and not whole_number:
            self._tokens[self._at - 1 : self._at] = [token[0], token[1:]]
            token = token[0]
        if token == "-":
            inside = self._argument(whole_number=whole_number)
            return Part(self._words.join([self._words.phrases["negative"], inside.words]), f"-{inside.number}")
        if token in self._words.signs or token in _WHOLE_EXPONENTS:
            return Part(token)
        return self._atom(token) if token else Part("")

    def _raw_argument(self) -> str:
        """Return the text between the braces that follow, as it is written."""
        if self._peek() != "{":
            return ""
        start = self._at + 1
        end = next((at for at in range(start, len(self._tokens)) if self._tokens[at] == "}"), len(self._tokens))
        self._at = end + 1
        written = "".join(self._tokens[start:end]).replace("\\", "")
        return " ".join(re.sub(r"_(?=\d)", "", written).split())

    def _exponent(self) -> Part:
        if self._peek() in ("(", "{"):
            self._next()
            return self._closed(self._expression_of_group())
        return self._argument(whole_number=True)

    def _expression_of_group(self) -> Part:
        """Read a group of which one sign may be all: `^{+}`, `^{\\circ}`, `^{\\prime}`, `_{-}`."""
        sign = self._peek()
        if self._peek(1) == "}" and (sign in self._words.signs or sign in _WHOLE_EXPONENTS):
            return Part(self._next())
        if sign == "-" and self._peek(1).isdigit() and self._peek(2) in ("}", ")"):
            return self._argument(whole_number=True)
        return self._expression()

    def _postfixes(self, part: Part, token: str) -> Part:
        """Read exponents, indices, primes and the like behind an atom."""
        is_function = (token in _FUNCTION_LETTERS and not self._is_growth(token)) or self._is_of_time()
        while mark := self._peek():
            if token in _COUNTS_CHOICES and part.words == token and mark in "_^" and (choices := self._choices(token)):
                part = choices
            elif mark == "^":
                self._next()
                part = self._raised(part)
            elif mark == "_":
                self._next()
                part = self._indexed(part, token)
            elif mark in _PRIMES:
                primes = self._count_primes()
                part = Part(self._words.phrase("prime" if primes == 1 else "double prime", part.words))
                is_function = True
            elif mark == "!":
                self._next()
                part = Part(self._words.phrase("factorial", part.words))
            else:
                break
        if part.number:
            part = self._with_unit(part)
        return self._applied(part) if is_function and self._peek() == "(" else part

    def _is_growth(self, token: str) -> bool:
        """Return whether `P(1 + r)` stands here, the value after a year: a product."""
        following = "".join(self._tokens[self._at : self._at + 6])
        return token == "P" and following.replace(" ", "").startswith(("(1+", "(1-"))

    def _choices(self, letter: str) -> Part | None:
        """Return `C_5^2` as a number of choices; None if a letter has no index and exponent side by side."""
        start, sides = self._at, {}
        while self._peek() in ("_", "^") and self._peek() not in sides:
            mark = self._next()
            sides[mark] = self._exponent().words
        if len(sides) == 2 and re.fullmatch(r"[\w+ -]{1,20}", sides["^"]):
            return Part(self._words.phrase(f"choices {letter}", sides["_"], sides["^"]))
        self._at = start
        return None

    def _is_of_time(self) -> bool:
        """Return whether an argument follows that only functions have: y(t), a(n)."""
        return self._peek() == "(" and self._peek(1) in ("t", "n") and self._peek(2) == ")"

    def _count_primes(self) -> int:
        primes = 0
        while self._peek() in _PRIMES:
            primes += _PRIMES[self._next()]
        return primes

    def _raised(self, base: Part) -> Part:
        exponent = self._exponent()
        match exponent.words:
            case "∘" | "°":
                return self._with_degrees(base)
            case "′":
                return Part(self._words.phrase("prime", base.words))
            case "*" | "×":
                return Part(self._words.phrase("star", base.words))
            case "⊤" | "T":
                return Part(self._words.phrase("transposed", base.words))
            case "+" | "-":
                return Part(self._words.join([base.words, self._words.signs.get(exponent.words, "").strip()]))
        if exponent.words.replace(" ", "") in _ORDINAL_ENDINGS:
            return Part((base.number or base.words) + exponent.words.replace(" ", ""))
        number = f"{base.number}^{exponent.number}" if base.number and exponent.number else ""
        return Part(base.words + self._words.power(exponent.number or exponent.words), number)

    def _indexed(self, base: Part, letter: str) -> Part:
        """Return a letter with its index; behind an element's sign a number above 1 counts atoms."""
        index = self._exponent()
        counts = letter in _ELEMENTS and index.number.isdigit() and index.number not in ("0", "1")
        return Part(self._words.phrase("atoms" if counts else "index", base.words, index.words))

    def _with_degrees(self, base: Part) -> Part:
        """Return degrees in written form: the rules for temperatures and angles know what follows them."""
        scale = ""
        if self._peek() in TEXT_COMMANDS or self._peek().lstrip("\\") in TEXT_COMMANDS:
            start = self._at
            self._next()
            scale = self._raw_argument()
            if scale not in ("C", "F"):
                self._at, scale = start, ""
        elif self._peek() in ("C", "F"):
            scale = self._next()
        return Part(f"{base.number or base.words}°{scale}")

    def _with_unit(self, part: Part) -> Part:
        """Return a number with the unit behind it in written form, for the rules of units."""
        sign, start = self._peek(), self._at
        if sign in ("°", "%", "\\%"):
            self._next()
            return self._with_degrees(part) if sign == "°" else Part(f"{part.number}%")
        if sign.lstrip("\\") in TEXT_COMMANDS and sign.startswith("\\"):
            self._next()
            unit = self._raw_argument()
            if unit.split("/")[0] in self._words.units:
                power = self._next() + self._next() if self._peek() == "^" and self._peek(1).isdigit() else ""
                return Part(f"{part.number} {unit}{power}")
            self._at = start
        return part

    def _applied(self, function: Part) -> Part:
        self._next()
        argument = self._parenthesis("(")
        inside = argument.words if argument.is_compound else argument.words[1:-1]
        if not inside:
            return function
        return self._postfixes(Part(self._words.phrase("applied", function.words, inside)), "")

    def _function(self, name: str) -> Part:
        words = self._words.functions.get(name, name)
        power, base = "", ""
        while self._peek() in ("^", "_"):
            if self._next() == "^":
                exponent = self._exponent()
                power = self._words.power(exponent.number or exponent.words)
            else:
                base = self._exponent().words
        if base:
            words = self._words.phrase("log" if name == "log" else "below", words, base)
        part = Part(words + power.removeprefix("的"))
        return self._applied(part) if self._peek() == "(" and not base else part

    def _big(self, token: str) -> Part:
        """Read a sum, product, integral or limit with its bounds."""
        bounds = {"_": "", "^": ""}
        self._arrow = "approaches" if token == "lim" else "→"
        while self._peek() in bounds:
            mark = self._next()
            bounds[mark] = self._exponent().words
        self._arrow = "→"
        if token == "lim" and not bounds["_"]:
            bounds["_"] = self._plain_limit()
        name = _BIG[token]
        if bounds["_"] and bounds["^"]:
            return Part(self._words.phrase(f"{name} from to", bounds["_"], bounds["^"]))
        return Part(self._words.phrase(f"{name} over" if bounds["_"] else name, bounds["_"]))

    def _plain_limit(self) -> str:
        """Read what a variable approaches where it stands behind the sign: lim(x→0), lim x→∞."""
        opens = int(self._peek() == "(")
        if self._peek(opens + 1) != "→":
            return ""
        self._at += opens
        letter = self._atom(self._next()).words
        self._next()
        value = self._argument(whole_number=True).words
        if value in self._words.signs:
            value = self._words.signs[value].strip()
        self._at += opens
        return self._words.join([letter, self._words.signs["approaches"], value])

    def _environment(self) -> Part:
        """Read a matrix, cases or aligned equations, row by row."""
        kind, rows = self._raw_argument(), [[""]]
        while self._peek() and self._peek() != "\\end":
            rows[-1][-1] = self._words.join([part for part in (rows[-1][-1], self._expression().words) if part])
            match self._peek():
                case "&":
                    self._at += 1
                    rows[-1].append("")
                case "\\\\":
                    self._at += 1
                    rows.append([""])
                case "\\end" | "":
                    pass
                case _:
                    self._at += 1
        self._next()
        self._raw_argument()
        return Part(self._rows(kind, [row for row in rows if any(row)]))

    def _rows(self, kind: str, rows: list[list[str]]) -> str:
        comma = self._words.phrases[","]
        if "matrix" in kind or kind == "array":
            lines = [
                self._words.phrase("row", self._words.number(str(number)), self._listed(row, comma))
                for number, row in enumerate(rows, 1)
            ]
            return self._words.join([self._words.phrases["matrix"], *lines])
        return self._listed([self._listed(row, comma if "case" in kind else "") for row in rows], comma)

    def _listed(self, parts: list[str], comma: str) -> str:
        """Return the parts that are not empty in one row, with `comma` between them."""
        first, *others = [part for part in parts if part] or [""]
        return self._words.join([first, *(word for part in others for word in (comma, part) if word)])
