"""English text normalization, rule by rule. Callers use `normalize.py`."""

import re

from mirrorchat.text.normalization.acronyms import spell_acronyms
from mirrorchat.text.normalization.algebra import greek_rule
from mirrorchat.text.normalization.english_abbreviations import ABBREVIATION_RULES
from mirrorchat.text.normalization.english_calendar import (
    CALENDAR_RULES,
    DECADE_RULES,
    EARLY_CALENDAR_RULES,
    YEAR_RULES,
)
from mirrorchat.text.normalization.english_codes import ADDRESS_RULES, CODE_RULES
from mirrorchat.text.normalization.english_formulas import GREEK
from mirrorchat.text.normalization.english_known_numbers import KNOWN_NUMBER_RULES
from mirrorchat.text.normalization.english_numbers import (
    cardinal,
    digits,
    fraction_words,
    number_words,
    ordinal,
    power_words,
)
from mirrorchat.text.normalization.english_quantities import EARLY_QUANTITY_RULES, QUANTITY_RULES
from mirrorchat.text.normalization.english_runs import RUN_RULES
from mirrorchat.text.normalization.english_words import COUNTED, MAGNITUDES, RATES, SIGNS, UNITS
from mirrorchat.text.normalization.patterns import (
    FRACTION,
    NUMBER,
    SIGN,
    START,
    TO,
    Rule,
    after,
    any_of,
    apply_rules,
    is_code,
    rule,
)


def normalize_english(text: str) -> str:
    """Return the spoken form of `text`, whose characters `normalize.py` has made plain."""
    return spell_acronyms(apply_rules(text, _RULES)).strip(" ")


def _spoken_fraction(match: re.Match[str]) -> str:
    above, below = int(match["above"]), int(match["below"])
    unit = UNITS[match["unit"]][1 if match["whole"] or above > below else 0] if match["unit"] else ""
    sign = "minus " if match["sign"] else ""
    return f"{sign}{fraction_words(above, below, match['whole'] or '')} {unit}".rstrip()


def _spoken_rest(match: re.Match[str]) -> str:
    """Return a bare number in words, a code digit by digit."""
    return digits(match[0]) if is_code(match[0]) else number_words(match[0])


_COUNTED_OR_PEOPLE = re.compile(rf"{COUNTED.pattern}| [A-Z][a-z]{{1,20}}s\b")


def _spoken_magnitude(match: re.Match[str]) -> str:
    """Return `1.5M` as one point five million if it counts the word that follows."""
    following = re.sub(rf"^{TO}{NUMBER} ?{match[2]}", "", after(match, 40))
    is_counting = len(match[2]) == 2 or "." in match[1] or after(match, 1) == "+" or _COUNTED_OR_PEOPLE.match(following)
    return f"{number_words(match[1])} {MAGNITUDES[match[2]]}" if is_counting else match[0]


def _spoken_dimensions(match: re.Match[str]) -> str:
    return " by ".join(number_words(part) for part in re.split(r" ?[x×] ?", match[0]))


_RULES: tuple[Rule, ...] = (
    # Addresses and abbreviations come first: no other rule may take their full stops and signs.
    *ADDRESS_RULES,
    *EARLY_QUANTITY_RULES,
    *ABBREVIATION_RULES,
    # Whole runs. A telephone number holds no range.
    *KNOWN_NUMBER_RULES,
    *EARLY_CALENDAR_RULES,
    *CODE_RULES,
    *RUN_RULES,
    rule(r"(?<=\))/(?=[\d(])", " divided by "),
    rule(r"(?<=[AaPp]\.[Mm]\.) ?[-–~] ?(?=\d)", " to "),
    *CALENDAR_RULES,
    rule(r"(?<![\w:.,])\d{1,9}(?:\.\d{1,3})?(?::\d{1,9}(?:\.\d{1,3})?){1,4}(?![\d:])",
         lambda match: " to ".join(number_words(part) for part in match[0].split(":"))),
    rule(rf"{FRACTION}(?: ?(?P<unit>{any_of(UNITS)})(?![A-Za-z\d])|(?![A-Za-z]))", _spoken_fraction),
    rule(r"(?<=[\d)%]) +- +(?=[\d(])", " minus "),
    *QUANTITY_RULES,
    *DECADE_RULES,
    # Ordinals, scores, fractions, dimensions.
    rule(rf"{START}(\d{{1,3}}(?:,\d{{3}}){{1,4}}|\d{{1,15}})(?:st|nd|rd|th)\b",
         lambda match: ordinal(int(match[1].replace(",", "")))),
    rule(r"(?<![\w.,-])(\d{1,3})-(to|for|by|on|in|of)-(\d{1,3})(?![\w-]|[.,]\d)",
         lambda match: f"{cardinal(int(match[1]))}-{match[2]}-{cardinal(int(match[3]))}"),
    rule(rf"{START}(\d{{1,3}}\.\d{{1,2}})/(\d{{1,3}})(?![\w/]|\.\d)",
         lambda match: f"{number_words(match[1])} out of {number_words(match[2])}"),
    rule(rf"{START}{NUMBER}(?:x{NUMBER}){{1,2}}(?![A-Za-z])", _spoken_dimensions),
    rule(rf"{START}({NUMBER})[xX](?!\w| ?[-+=*/^<>×÷])", lambda match: f"{number_words(match[1])} times"),
    # Arithmetic.
    rule(r"(?<=[\d)]) +- +(?=[\d(-])|(?<=\d)-(?=\()", " minus "),
    rule(r"(?<![A-Za-z0-9)])-(?=[π∞√])", "minus "),
    rule(r"(?<=[\d)]) ?[*] ?(?=[\d(])", " times "),
    rule(r"(?<=\d) / (?=[\d(])|(?<=\)) / (?=[\w(])", " divided by "),
    rule(r" - (?=\d[\d.,]{0,15}\))", " minus "),
    rule(r"(?:(?<== )|(?<=equals ))(\d[\d.,]{0,15}) - (?=[a-z])", r"\1 minus "),
    rule(r"(?<=[a-z\d]) x (?=\d{1,4} (?:days?|weeks?|months?)\b)", " for "),
    rule(r"(?<=[a-z\d]) x (?=\d)", " times "),
    rule(r"(?<=\w) / (?=\w)|(?<=[a-z]{3})/(?=\d)", ", "),
    rule(r"(?<=[a-z\d])/(?=(?:year|month|week|day|night|hour|minute|second|person|km|kg|lb)\b)", " per "),
    rule(rf"(?<=[a-z\d])/({any_of(RATES)})\b", lambda match: f" per {RATES[match[1]]}"),
    rule(r"\^(-?\d{1,15})(?!\d)", lambda match: power_words(match[1])),
    rule(r"[-=]{1,20}>", " to "),
    rule(r"(?<!\w)#(?=\d)", "number "),
    rule(r"(?<!\w)#(?=\w)", "hashtag "),
    rule(rf"{START}{SIGN[:-1]}(?={NUMBER})", lambda match: "minus " if match[0] else ""),
    rule(rf"{START}({NUMBER}) ?([kKMB]|bn|mn|tn)(?![A-Za-z])", _spoken_magnitude),
    # Numbers next to letters, years, and all other numbers.
    rule(r"(?<=[A-Za-z])-(?=\d)", " "),
    rule(r"(?<=[A-Za-z])(?=\d)", " "),
    rule(r"(?<=\d)-(?=[A-Z]|[a-z]\b)", " "),
    rule(r"(?<=\d)(?=[A-Za-z])", " "),
    *YEAR_RULES,
    rule(TO, " to "),
    rule(rf"{START}\d{{1,3}}(?:,\d{{3}}){{1,4}}(?:\.\d{{1,15}})?(?![\d,]\d)", lambda match: number_words(match[0])),
    rule(rf"{START}\d{{1,15}}\.\d{{1,15}}(?!\d)", lambda match: number_words(match[0])),
    rule(r"\d{1,100000}", _spoken_rest),
    rule(r"(?<=\w)\.(?=(?:zero|one|two|three|four|five|six|seven|eight|nine)\b)", " point "),
    # Signs.
    greek_rule(GREEK),
    rule(r" ?°(?P<celsius>C)?(?:(?<=C)|F)(?![A-Za-z])",
         lambda match: " degrees Celsius" if match["celsius"] else " degrees Fahrenheit"),
    rule("[" + re.escape("".join(SIGNS)) + "]", lambda match: SIGNS[match[0]]),
    rule(r"[#*^_`~/\\<>{}\[\]•·]", " "),
    rule(r"\b([Tt]he (?:integral|limit|sum|product)) the (?:integral|limit|sum|product)\b", r"\1"),
    rule(r" {2,}", " "),
    rule(r"(?<=[(\[]) | (?=[)\]])", ""),
    rule(r" +(?=[,.!?;:](?:\s|$))|(?<=\() +| +(?=\))", ""),
)  # fmt: skip
