"""English text normalization: runs of several signs that mean one thing, spoken whole."""

from mirrorchat.text.normalization.algebra import algebra_rules
from mirrorchat.text.normalization.angles import ANGLE, PRIME, PRIMES, Angle, Prime, Primes
from mirrorchat.text.normalization.chemistry import ChemistryWords, chemistry_rules
from mirrorchat.text.normalization.codes import CODE, FAMILY_CODE, HEXADECIMAL, IDENTIFIER, IEEE_CODE, NAMED_CODE, Code
from mirrorchat.text.normalization.english_formulas import FORMULA_WORDS
from mirrorchat.text.normalization.english_money import MONEY_RULES
from mirrorchat.text.normalization.english_numbers import code_words, digits, number_words
from mirrorchat.text.normalization.english_quantities import CALCULATION_RULES
from mirrorchat.text.normalization.patterns import ABOUT, Rule, rule
from mirrorchat.text.normalization.ranges import RANGE_RULES
from mirrorchat.text.normalization.telephone import TELEPHONE, Telephone
from mirrorchat.text.normalization.versions import IP_ADDRESS, VERSION, IpAddress, Version
from mirrorchat.text.normalization.written_numbers import NUMBER_CHAIN, WRITTEN_NUMBER_RULES, NumberChain

_CHEMISTRY = ChemistryWords(
    number=number_words,
    signs={
        "+": "plus",
        "-": "minus",
        "=": "equals",
        "→": "yields",
        "⇌": "is in equilibrium with",
        "↑": "gas",
        "↓": "precipitate",
    },
    charges={"+": "plus", "-": "minus"},
    join=" ".join,
)
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


def _plural(number: str) -> str:
    """Return a number in words in the plural: sixteens, sixties, sixes."""
    if number.endswith("y"):
        return f"{number[:-1]}ies"
    return f"{number}es" if number.endswith("x") else f"{number}s"


def _spoken_prime(prime: Prime) -> str:
    one, many = ("inch", "inches") if prime.is_double else ("foot", "feet")
    return f"{number_words(prime.number)} {one if prime.number == '1' or prime.modifies_noun else many}"


def _spoken_ip_address(address: IpAddress) -> str:
    words = " dot ".join(digits(number) for number in address.numbers)
    words += f", port {code_words(address.port)}" if address.port else ""
    return words + (f" slash {code_words(address.prefix_bits)}" if address.prefix_bits else "")


def _spoken_version(version: Version) -> str:
    is_named = version.word.lower() == "version"
    name = version.word if is_named else "version" if version.word or version.letter else ""
    numbers = " point ".join(_spoken_piece(number) for number in version.numbers)
    count = _spoken_piece(version.count) if version.count else ""
    return " ".join(filter(None, (name, numbers, version.stage, count)))


def _spoken_code(code: Code) -> str:
    pieces = [_spoken_piece(piece) for part in code.parts for piece in part]
    last = code.parts[-1]
    if last[-1] == "s" and (len(code.parts) > 1 or len("".join(last)) > 3):  # F-16s and PS5s, but K8s
        pieces[-2:] = [_plural(pieces[-2])]
    return " ".join(pieces)


def _spoken_piece(piece: str) -> str:
    """Return letters as they are, numbers in words: `2.5`, `12400`, `802.11`."""
    if not piece[0].isdigit():
        return piece
    first, *others = piece.split(".")
    if len(others) == 1 and len(first) < 3:
        return number_words(piece)
    return " point ".join(code_words(number) for number in (first, *others))


def _spoken_chain(chain: NumberChain) -> str:
    if chain.is_code:
        return ", ".join(digits(number) for number in chain.numbers)
    return "-".join(number_words(number) for number in chain.numbers)


RUN_RULES: tuple[Rule, ...] = (
    # A telephone number holds no range.
    TELEPHONE.spoken(_spoken_telephone),
    HEXADECIMAL.spoken(_spoken_code),
    IDENTIFIER.spoken(_spoken_code),
    *WRITTEN_NUMBER_RULES,
    NUMBER_CHAIN.spoken(_spoken_chain),
    NAMED_CODE.spoken(_spoken_code),
    *RANGE_RULES,
    rule(ABOUT, "about "),
    *MONEY_RULES,
    IP_ADDRESS.spoken(_spoken_ip_address),
    VERSION.spoken(_spoken_version),
    *CALCULATION_RULES,
    *chemistry_rules(_CHEMISTRY),
    *algebra_rules(FORMULA_WORDS),
    rule(r"(?<![A-Za-z'’.])([a-z]) th(?![A-Za-z])", r"\1th"),  # $n$th
    FAMILY_CODE.spoken(_spoken_code),
    IEEE_CODE.spoken(_spoken_code),
    ANGLE.spoken(_spoken_angle),
    PRIMES.spoken(_spoken_primes),
    PRIME.spoken(_spoken_prime),
    CODE.spoken(_spoken_code),
)  # fmt: skip
