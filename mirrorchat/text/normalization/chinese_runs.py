"""Mandarin text normalization: runs of several signs that mean one thing, spoken whole."""

import re

from mirrorchat.text.normalization.algebra import algebra_rules
from mirrorchat.text.normalization.angles import ANGLE, PRIME, PRIMES, Angle, Prime, Primes
from mirrorchat.text.normalization.chemistry import ChemistryWords, chemistry_rules
from mirrorchat.text.normalization.chinese_formulas import FORMULA_WORDS
from mirrorchat.text.normalization.chinese_money import MONEY_RULES
from mirrorchat.text.normalization.chinese_numbers import DIGITS, code_words, digits, number_words, phone_words
from mirrorchat.text.normalization.chinese_quantities import CALCULATION_RULES
from mirrorchat.text.normalization.codes import CODE, FAMILY_CODE, HEXADECIMAL, IDENTIFIER, IEEE_CODE, NAMED_CODE, Code
from mirrorchat.text.normalization.patterns import ABOUT, Rule, rule
from mirrorchat.text.normalization.ranges import RANGE_RULES
from mirrorchat.text.normalization.telephone import TELEPHONE, Telephone
from mirrorchat.text.normalization.versions import IP_ADDRESS, VERSION, IpAddress, Version
from mirrorchat.text.normalization.written_numbers import NUMBER_CHAIN, WRITTEN_NUMBER_RULES, NumberChain
from mirrorchat.text.sentences.speech_length import HAN

_CHEMISTRY = ChemistryWords(
    number=number_words,
    signs={"+": "加", "-": "减", "=": "等于", "→": "生成", "⇌": "可逆生成", "↑": "气体", "↓": "沉淀"},
    charges={"+": "正", "-": "负"},
    join=FORMULA_WORDS.join,
)
_NUMBER_ENDS = f"{DIGITS}十百千万亿"
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


def _spoken_prime(prime: Prime) -> str:
    unit = "英寸" if prime.is_double else "分"
    return number_words(prime.number, unit) + unit


def _spoken_ip_address(address: IpAddress) -> str:
    words = "点".join(digits(number) for number in address.numbers)
    words += f"，端口{code_words(address.port)}" if address.port else ""
    return words + (f"斜杠{code_words(address.prefix_bits)}" if address.prefix_bits else "")


def _spoken_version(version: Version) -> str:
    name = f"{version.word} " if version.word else " V " if version.letter else ""
    numbers = version.numbers
    is_decimal = len(numbers) == 2 and numbers[1] != "x" and not name
    words = _spoken_piece(".".join(numbers)) if is_decimal else "点".join(_spoken_piece(number) for number in numbers)
    stage = f" {version.stage} " if version.stage else ""
    return name + words + stage + (_spoken_piece(version.count) if version.count else "")


def _spoken_code(code: Code) -> str:
    """Return a name; a pause parts two numbers that a hyphen joins."""
    words = ""
    for part in code.parts:
        pieces = [_spoken_piece(piece) for piece in part]
        is_after_number = words[-1:] in tuple(_NUMBER_ENDS) and part[0][0].isdigit()
        words += ("，" if is_after_number else " ") + " ".join(pieces)
    return re.sub(rf"(?<=[{HAN}]) (?=[{HAN}])", "", words.strip(" "))


def _spoken_piece(piece: str) -> str:
    """Return letters as they are, numbers in words: `2.5`, `12400`, `802.11`."""
    if not piece[0].isdigit():
        return piece
    first, *others = piece.split(".")
    if len(others) == 1:
        return f"{code_words(first)}点{digits(others[0])}"
    return "点".join(code_words(number) for number in (first, *others))


def _spoken_chain(chain: NumberChain) -> str:
    numbers = [digits(number) if chain.is_code else number_words(number) for number in chain.numbers]
    return ("" if max(map(len, chain.numbers)) == 1 else "，").join(numbers)


RUN_RULES: tuple[Rule, ...] = (
    # A telephone number holds no range.
    TELEPHONE.spoken(_spoken_telephone),
    HEXADECIMAL.spoken(_spoken_code),
    IDENTIFIER.spoken(_spoken_code),
    *WRITTEN_NUMBER_RULES,
    NUMBER_CHAIN.spoken(_spoken_chain),
    NAMED_CODE.spoken(_spoken_code),
    *RANGE_RULES,
    rule(ABOUT, "约"),
    *MONEY_RULES,
    IP_ADDRESS.spoken(_spoken_ip_address),
    VERSION.spoken(_spoken_version),
    *CALCULATION_RULES,
    *chemistry_rules(_CHEMISTRY),
    *algebra_rules(FORMULA_WORDS),
    FAMILY_CODE.spoken(_spoken_code),
    IEEE_CODE.spoken(_spoken_code),
    ANGLE.spoken(_spoken_angle),
    PRIMES.spoken(_spoken_primes),
    PRIME.spoken(_spoken_prime),
    CODE.spoken(_spoken_code),
)  # fmt: skip
