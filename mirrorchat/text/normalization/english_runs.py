"""English text normalization: runs of several signs that mean one thing, spoken whole."""

from mirrorchat.text.normalization.angles import ANGLE, PRIMES, Angle, Primes
from mirrorchat.text.normalization.english_numbers import digits, number_words
from mirrorchat.text.normalization.patterns import Rule
from mirrorchat.text.normalization.ranges import RANGE_RULES
from mirrorchat.text.normalization.telephone import TELEPHONE, Telephone

_SIDES = {"N": " north", "S": " south", "E": " east", "W": " west", "": ""}


def _counted(number: str, unit: str) -> str:
    return f"{number_words(number)} {unit}{'' if number == '1' else 's'}"


def _spoken_telephone(telephone: Telephone) -> str:
    return ("plus " if telephone.has_plus else "") + ", ".join(digits(group) for group in telephone.groups)


def _spoken_angle(angle: Angle) -> str:
    words = _counted(angle.degrees, "degree")
    words += f" {_counted(angle.minutes, 'minute')}" if angle.minutes else ""
    return words + (f" {_counted(angle.seconds, 'second')}" if angle.seconds else "") + _SIDES[angle.side]


def _spoken_primes(primes: Primes) -> str:
    if primes.is_length:
        return f"{number_words(primes.first)} foot {number_words(primes.second)}"
    return f"{_counted(primes.first, 'minute')} {_counted(primes.second, 'second')}"


RUN_RULES: tuple[Rule, ...] = (
    # A telephone number holds no range.
    TELEPHONE.spoken(_spoken_telephone),
    *RANGE_RULES,
    ANGLE.spoken(_spoken_angle),
    PRIMES.spoken(_spoken_primes),
)  # fmt: skip
