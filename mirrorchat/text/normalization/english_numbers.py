"""English number words: cardinals, ordinals, years, digits."""

import re

from num2words import num2words

from mirrorchat.text.normalization.patterns import is_read_as_digits, number_parts

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def cardinal(number: int) -> str:
    """Return `number` (at least 0, at most 15 digits) in words, without commas."""
    return str(num2words(number)).replace(",", "")


def ordinal(number: int) -> str:
    """Return the ordinal of `number` (at least 0, at most 15 digits) in words."""
    return str(num2words(number, to="ordinal")).replace(",", "")


def year(number: int) -> str:
    """Return the year `number` (1000 to 2999) in words: `twenty twenty-five`, `nineteen oh five`."""
    return str(num2words(number, to="year")).replace("oh-", "oh ")


def digits(text: str) -> str:
    """Return the digits in `text`, one by one."""
    return " ".join(_DIGITS[int(digit)] for digit in text if digit.isdigit())


def number_words(written: str) -> str:
    """Return `-1,234.50` in words: `minus one thousand two hundred and thirty-four point five zero`."""
    sign = "minus " if written.startswith("-") else ""
    whole, decimals = number_parts(written)
    words = digits(whole) if is_read_as_digits(whole) else cardinal(int(whole))
    return sign + words + (f" point {digits(decimals)}" if decimals else "")


def code_words(written: str) -> str:
    """Return the digits of a name, a room or a flight as people say them.

    Up to five digits are said in pairs: `forty ninety`, `three oh five`, `twelve four hundred`.
    """
    if written.startswith("0") or len(written) > 5:
        return digits(written)
    if len(written) < 3 or written.endswith("000"):
        return cardinal(int(written))
    if len(written) == 5:
        return f"{cardinal(int(written[:2]))} {code_words(written[2:])}"
    high, low = cardinal(int(written[:-2])), int(written[-2:])
    if not low:
        return f"{high} hundred"
    return f"{high} {'oh ' if low < 10 else ''}{cardinal(low)}"


def fraction_words(above: int, below: int, whole: str = "") -> str:
    """Return a fraction of two numbers: one half, three quarters, five over three; with `whole` two and a half."""
    if not 0 < above < below:
        plain = f"{cardinal(above)} over {cardinal(below)}"
        return f"{number_words(whole)} {plain}" if whole else plain
    part = {2: "half", 4: "quarter"}.get(below, ordinal(below))
    if whole and above == 1:
        return f"{number_words(whole)} and {'an' if part.startswith('e') else 'a'} {part}"
    words = f"{cardinal(above)} {part}{'s' if above > 1 else ''}"
    return f"{number_words(whole)} and {words}" if whole else words


def power_words(exponent: str) -> str:
    """Return what follows a number with the exponent `exponent` (digits, maybe with a minus)."""
    return {"2": " squared", "3": " cubed"}.get(exponent, f" to the power of {number_words(exponent)}")


def quantity(match: re.Match[str]) -> tuple[str, bool]:
    """Return a match of `QUANTITY` in words, and whether its unit is singular."""
    if match["b"]:
        return f"{number_words(match['a'])} to {number_words(match['b'])}", False
    return number_words(match["a"]), match["a"].lstrip("-") == "1"
