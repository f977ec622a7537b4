"""Formulas in LaTeX: a stage of the stream that replaces each by its words, before any other looks at its signs."""

import re
from collections.abc import Callable

from mirrorchat.engines import Language
from mirrorchat.text.normalization.characters import with_plain_characters
from mirrorchat.text.normalization.chinese_formulas import FORMULA_WORDS as CHINESE_WORDS
from mirrorchat.text.normalization.english_formulas import FORMULA_WORDS as ENGLISH_WORDS
from mirrorchat.text.normalization.formula_parser import LONGEST_CHARS, formula_in_words
from mirrorchat.text.normalization.latex import FUNCTIONS
from mirrorchat.text.sentences.speech_length import HAN

_WORDS = {Language.ENGLISH: ENGLISH_WORDS, Language.CHINESE: CHINESE_WORDS}
_ENVIRONMENTS = r"equation|align|aligned|gather|cases|array|eqnarray|multline|[pbvB]?matrix"
_BEGIN = re.compile(rf"\\begin\{{(?P<name>(?:{_ENVIRONMENTS})\*?)\}}")
_OPENERS = {"$$": "$$", "\\(": "\\)", "\\[": "\\]", "\\\\(": "\\\\)", "\\\\[": "\\\\]"}
# What may become an opener: the stream holds it back until the next character decides.
_MAY_OPEN = re.compile(r"\$|\\{1,2}|\\b(?:e(?:g(?:i(?:n(?:\{[a-zA-Z]{0,10}\*?)?)?)?)?)?")
_LONGEST_INLINE_CHARS = 300
# Between two signs of dollars these say that it is money, or a shell's variable: prose, the end of a sentence.
_PROSE = re.compile(
    rf"[{HAN}¥€£₹₩]|[.!?。！？] [^\s=<>+×÷*/-]|\n"
    rf"|(?<![A-Za-z])(?!(?:{'|'.join(FUNCTIONS)}) )[a-z]{{3,30}} "
)
# "$5-$10", "$2, A$9": the second sign opens another amount
_IS_WRITTEN_ON = re.compile(
    r"(?:[-+*/=&<>,:–—(~、，；;`]|\b(?:and|or|to)|(?:^|[^A-Za-z])(?:US|HK|AU|CA|NZ|NT|SG))$"
    r"|^\d.{0,40}(?:[,，;；、(]|\b(?:and|or|to)) ?[ACRS]$"
)
_MATHS_SIGN = re.compile(r"[\\^_=+<>|]")
_WORD = re.compile(r"[A-Za-z]{3}")
# Numbers alone stay in written form: the rules of numbers know the unit behind them ($10^{24}$ kg).
_NUMBERS = re.compile(r"[\d.,\s×^%°+=÷±≈-]{0,200}\d[\d.,\s×^%°+=÷±≈-]{0,200}")
_PLAIN = (
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),
    (re.compile(r"\\approx(?![A-Za-z])"), "≈"),
    (re.compile(r"\\pm(?![A-Za-z])"), "±"),
    (re.compile(r"\\div(?![A-Za-z])"), "÷"),
    (re.compile(r"\^\{?\\circ\}?"), "°"),
    (re.compile(r"\\(?=%)|\\[,;! ]"), ""),
    (re.compile(r"\^\{(-?\d{1,15})\}"), r"^\1"),
)
_LAYOUT = re.compile(r"[\\{}$^_&]")


class Formulas:
    """Replaces the formulas in a stream of characters by their words, and passes all other text.

    `$x^2$`, `\\(x^2\\)`, `$$x^2$$`, `\\[x^2\\]` and LaTeX's environments are formulas; `$5 and $10` are amounts. A
    formula is held back until it is closed, prose and a formula that never closes only within bounds.
    """

    def __init__(self, language: Language) -> None:
        self._words = _WORDS[language]
        self._last = ""  # the last character that was passed on
        self._after_formula = False
        self._begin()

    def _begin(self) -> None:
        self._held = ""
        self._closer = ""  # of the open formula; empty outside
        self._step: Callable[[str], str] = self._outside

    def push(self, text: str) -> str:
        """Return what `text`, the next part of the stream, releases."""
        if not self._held and "$" not in text and "\\" not in text:
            return self._pass(text)
        return "".join(self._step(character) for character in text)

    def flush(self) -> str:
        """End the stream: return the text that is held back. An unfinished formula in brackets is spoken."""
        held, closer = self._held, self._closer
        self._begin()
        released = self._spoken(held, "") if closer not in ("", "$") else self._pass(held)
        self._last, self._after_formula = "", False
        return released

    def _outside(self, character: str) -> str:
        self._held += character
        if self._held == "\\$":
            self._begin()
            return self._pass("$")
        if self._opens():
            self._step = self._inside
            return ""
        if _MAY_OPEN.fullmatch(self._held) and not (character == "$" and self._last.isalnum() and self._last.isascii()):
            return ""
        if self._held[0] == "$" and len(self._held) == 2:
            return self._open_amount(character)
        held, self._held = self._held, ""
        if len(held) > 1 and _MAY_OPEN.fullmatch(held[-1]):
            self._held = held[-1]
            held = held[:-1]
        return self._pass(held)

    def _opens(self) -> bool:
        begin = _BEGIN.fullmatch(self._held)
        self._closer = f"\\end{{{begin['name']}}}" if begin else _OPENERS.get(self._held, "")
        return bool(self._closer)

    def _open_amount(self, character: str) -> str:
        """Begin what one sign of dollars opens: a formula or an amount, as its end will tell."""
        self._closer, self._held = "$", "$"
        self._step = self._inside
        return self._inside(character)

    def _inside(self, character: str) -> str:
        self._held += character
        if self._held.endswith(self._closer):
            return self._close()
        is_inline = self._closer == "$"
        is_prose = is_inline and "\\" not in self._held and _PROSE.search(self._held, max(1, len(self._held) - 32))
        if is_prose or character == "\n" == self._held[-2:-1] or self._is_too_long(is_inline):
            held = self._held
            self._begin()
            return self._pass(held)
        return ""

    def _is_too_long(self, is_inline: bool) -> bool:
        return len(self._held) > (_LONGEST_INLINE_CHARS if is_inline else LONGEST_CHARS)

    def _close(self) -> str:
        held, closer = self._held, self._closer
        self._begin()
        if closer != "$":
            return self._spoken(held, closer)
        content = held[1:-1]
        is_even = content[:1].isspace() == content[-1:].isspace()
        is_cell = content.endswith("|") and content.count("|") % 2 == 1  # |$5|$6|
        is_amount = "\\" not in content and _IS_WRITTEN_ON.search(content.strip()) is not None
        is_prose = content[:1].isdigit() and _WORD.search(content) and not _MATHS_SIGN.search(content)
        if content.strip() and is_even and not (is_cell or is_amount or is_prose):
            return self._spoken(held, closer)
        return self._pass(held[:-1]) + self._outside("$")  # the closing sign may open the next amount

    def _spoken(self, formula: str, closer: str) -> str:
        content = formula.removesuffix(closer)
        content = formula if _BEGIN.match(formula) else re.sub(r"^(?:\$\$?|\\{1,2}[(\[])", "", content)
        if _WORD.search(content) and not _MATHS_SIGN.search(content):
            return self._pass(f"({content})" if "(" in formula[:3] else content)
        passed = self._pass(self._words_of(_with_single_backslashes(content)))
        self._after_formula = True
        return passed

    def _words_of(self, content: str) -> str:
        content = plain = with_plain_characters(content).replace("{,}", ",")
        for pattern, replacement in _PLAIN:
            plain = pattern.sub(replacement, plain)
        if _NUMBERS.fullmatch(plain):
            return plain.strip()
        words = formula_in_words(content, self._words)
        return _LAYOUT.sub(" ", content) if words is None else words.rstrip(",， ")

    def _pass(self, text: str) -> str:
        """Return `text`, apart from a formula beside it."""
        if not text:
            return ""
        apart = self._after_formula and self._last.isalnum() and text[0].isalnum() and text[0].isascii()
        self._after_formula = False
        self._last = text[-1]
        return f" {text}" if apart else text


def _with_single_backslashes(content: str) -> str:
    """Return a formula whose backslashes were escaped once too often as it was meant; a matrix has them in pairs."""
    return content if "\\begin" in content else re.sub(r"\\\\(?=[A-Za-z])", r"\\", content)
