"""What one language says for mathematical notation, and the parts that the parser composes of it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of a formula in words. `number` has the digits of a bare number; `is_compound` if signs join parts."""

    words: str
    number: str = ""
    is_compound: bool = False
    is_fraction: bool = False  # of two numbers


@dataclass(frozen=True)
class FormulaWords:
    """What one language says. `phrases` has a template for each construct, whose parts are `{0}` and `{1}`."""

    phrases: Mapping[str, str]
    signs: Mapping[str, str]
    letters: Mapping[str, str]
    functions: Mapping[str, str]
    units: Collection[str]
    number: Callable[[str], str]
    power: Callable[[str], str]  # what follows a base, given the exponent's words or digits
    fraction: Callable[[int, int], str]
    join: Callable[[list[str]], str]

    def phrase(self, construct: str, *parts: str) -> str:
        """Return the template of `construct` with its parts."""
        return self.phrases[construct].format(*parts)
