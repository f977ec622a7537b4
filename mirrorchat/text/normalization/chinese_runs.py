"""Mandarin text normalization: runs of several signs that mean one thing, spoken whole."""

from mirrorchat.text.normalization.angles import ANGLE, PRIMES, Angle, Primes
from mirrorchat.text.normalization.chinese_numbers import number_words, phone_words
from mirrorchat.text.normalization.patterns import Rule
from mirrorchat.text.normalization.ranges import RANGE_RULES
from mirrorchat.text.normalization.telephone import TELEPHONE, Telephone

_SIDES = {"N": "北纬", "S": "南纬", "E": "东经", "W": "西经", "": ""}


def _spoken_telephone(telephone: Telephone) -> str:
    return ("加" if telephone.has_plus else "") + "，".join(phone_words(group) for group in telephone.groups)


def _spoken_angle(angle: Angle) -> str:
    words = f"{_SIDES[angle.side]}{number_words(angle.degrees)}度"
    words += f"{number_words(angle.minutes)}分" if angle.minutes else ""
    return words + (f"{number_words(angle.seconds)}秒" if angle.seconds else "")


def _spoken_primes(primes: Primes) -> str:
    first, second = ("英尺", "英寸") if primes.is_length else ("分", "秒")
    return f"{number_words(primes.first, first)}{first}{number_words(primes.second, second)}{second}"


RUN_RULES: tuple[Rule, ...] = (
    # A telephone number holds no range.
    TELEPHONE.spoken(_spoken_telephone),
    *RANGE_RULES,
    ANGLE.spoken(_spoken_angle),
    PRIMES.spoken(_spoken_primes),
)  # fmt: skip
