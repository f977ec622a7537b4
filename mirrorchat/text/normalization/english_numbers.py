"""English number words: cardinals, ordinals, years, digits."""

import re

from num2words import num2words

LONGEST_CARDINAL = 15  # digits; a longer number is said digit by digit
SHORTEST_CODE = 8  # digits; a bare number this long is a code or a telephone number, unless it is round
ROUND_DIGITS = 4  # before the zeros: 12500000 is round, 13800138000 is a telephone number
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def cardinal(number: int) -> str:
    """Return `number` (at least 0, at most 15 digits) in words, without commas."""
    return str(num2words(number)).replace(",", "")


def ordinal(number: int) -> str:
    """Return the ordinal of `number` (at least 0, at most 15 digits) in words."""
    return str(num2words(number, to="ordinal")).replace(",", "")


def year(number: int) -> str:
    """Return `number` (1000 to 2999) as a year is said: `twenty twenty-five`, `nineteen oh five`."""
    return str(num2words(number, to="year")).replace("oh-", "oh ")


def digits(text: str) -> str:
    """Return the digits in `text`, one by one."""
    return " ".join(_DIGITS[int(digit)] for digit in text if digit.isdigit())


def number_words(written: str) -> str:
    """Return `-1,234.50` in words: `minus one thousand two hundred and thirty-four point five zero`."""
    sign = "minus " if written.startswith("-") else ""
    whole, _, decimals = written.lstrip("-").replace(",", "").partition(".")
    as_code = len(whole) > LONGEST_CARDINAL or (len(whole) > 1 and whole.startswith("0"))
    words = digits(whole) if as_code else cardinal(int(whole))
    return sign + words + (f" point {digits(decimals)}" if decimals else "")


def in_pairs(written: str) -> str:
    """Return a three- or four-digit number as rooms and flights are said: `three oh five`, `seven forty-seven`."""
    high, low = int(written[:-2]), int(written[-2:])
    if not low or not high or written.startswith("0"):
        return number_words(written)
    return f"{cardinal(high)} {'oh ' if low < 10 else ''}{cardinal(low)}"


def quantity(match: re.Match[str]) -> tuple[str, bool]:
    """Return a `QUANTITY` in words, and whether what follows it is one thing."""
    upper = match["b"] or match["c"]
    if upper:
        return f"{number_words(match['a'])} to {number_words(upper)}", False
    return number_words(match["a"]), match["a"].lstrip("-") == "1"
