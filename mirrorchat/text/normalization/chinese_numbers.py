"""Mandarin number words: cardinals, digits, and when 2 is 两."""

import re

from mirrorchat.text.normalization.chinese_words import COUNTED
from mirrorchat.text.normalization.patterns import is_read_as_digits, number_parts

DIGITS = "零一二三四五六七八九"
PHONE_DIGITS = "零幺二三四五六七八九"  # in telephone numbers 1 is yao, which is not mistaken for 7

_PHONE_GROUPS = re.compile(r"(86)?(1[3-9]\d)(\d{4})(\d{4})|([48]00)(\d{3})(\d{4})")


def cardinal(number: int) -> str:
    """Return `number` (0 to 10^16 - 1) in words: 一万零二十, 两千二百, 十二."""
    if number == 0:
        return "零"
    words = _group(number)
    return "十" + words[2:] if words.startswith("一十") else words


def _group(number: int) -> str:
    """Return a number above 0 in words. Zeros between two groups or places become one 零."""
    for size, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        high, low = divmod(number, size)
        if not high:
            continue
        is_pair = high == 2 and size >= 1000
        head = ("两" if is_pair else _group(high)) + name
        if not low:
            return head
        gap = "零" if low < size // 10 else ""
        rest = _group(low)
        return head + gap + ("二" + rest[1:] if size == 10**4 and rest.startswith("两千") else rest)
    return DIGITS[number]


def digits(text: str, names: str = DIGITS) -> str:
    """Return the digits in `text`, one by one, by their `names`."""
    return "".join(names[int(digit)] for digit in text if digit.isdigit())


def phone_words(number: str) -> str:
    """Return a telephone number digit by digit; a mobile number and a hotline (400, 800) have pauses."""
    groups = _PHONE_GROUPS.fullmatch(number)
    return "，".join(digits(group, PHONE_DIGITS) for group in (filter(None, groups.groups()) if groups else (number,)))


def number_words(written: str, following: str = "") -> str:
    """Return `-1,234.5` in words: 负一千二百三十四点五. The text that follows decides between 两 and 二."""
    sign = "负" if written.startswith("-") else ""
    whole, decimals = number_parts(written)
    if whole == "2" and not decimals and COUNTED.match(following):
        return sign + "两"
    words = digits(whole) if is_read_as_digits(whole) else cardinal(int(whole))
    return sign + words + (f"点{digits(decimals)}" if decimals else "")


def code_words(written: str) -> str:
    """Return the digits of a name as people say them: two as a number, more one by one."""
    return digits(written) if len(written) > 2 or written.startswith("0") else cardinal(int(written))


def power_words(exponent: str) -> str:
    """Return what follows a number with the exponent `exponent` (digits, maybe with a minus)."""
    return {"2": "的平方", "3": "的立方"}.get(exponent, f"的{number_words(exponent)}次方")


def quantity(match: re.Match[str], following: str) -> str:
    """Return a match of `QUANTITY` in words; the text `following` decides between 两 and 二."""
    first = number_words(match["a"], following)
    return f"{first}到{number_words(match['b'], following)}" if match["b"] else first
