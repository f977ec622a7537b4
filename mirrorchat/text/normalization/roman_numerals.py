"""Roman numerals, where it is sure that they are numerals; both languages ask this."""

import re

ROMAN = r"(?=[IVXL])(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
"""Matches 1 to 89: further than kings, chapters and world wars go."""

_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}


def roman_value(numeral: str) -> int:
    """Return what `numeral`, which `ROMAN` matches, stands for."""
    values = [_VALUES[letter] for letter in re.sub("[^IVXL]", "", numeral)]
    return sum(
        -value if value < following else value for value, following in zip(values, [*values[1:], 0], strict=True)
    )
