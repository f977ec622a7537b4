"""English text normalization, rule by rule. Callers use `normalize.py`."""

import re

from mirrorchat.text.normalization.acronyms import FILE_ENDINGS, spell_acronyms
from mirrorchat.text.normalization.algebra import greek_rule
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
from mirrorchat.text.normalization.english_words import ABBREVIATIONS, COUNTED, MAGNITUDES, RATES, SIGNS, STATES, UNITS
from mirrorchat.text.normalization.patterns import (
    FRACTION,
    NUMBER,
    ROMAN,
    SIGN,
    START,
    TO,
    Rule,
    after,
    any_of,
    apply_rules,
    is_code,
    roman_value,
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


def _spoken_abbreviation(match: re.Match[str]) -> str:
    """Return an abbreviation in full. Its full stop stays if it also ends the sentence."""
    ends = match["word"] == "etc" and re.match(r"\s*$| +[A-Z]", after(match, 9))
    return ABBREVIATIONS[match["word"]] + ("." if ends else "")


def _spoken_initials(match: re.Match[str]) -> str:
    return " ".join(match[0].replace(".", "")) + ("" if after(match, 9).strip() else ".")


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


_RULERS = (
    r"\b(?:Henry|Elizabeth|Louis|George|Charles|Edward|William|Philip|Felipe|James|Richard|Napoleon|Catherine|Nicholas"
    r"|Alexander|Frederick|Francis|Ivan|Otto|Leopold|Pius|Benedict|Gregory|Innocent|Clement|Leo|Paul|John|Urban|Mary"
    r"|Ramses|Ramesses|Thutmose|Gustav|Christian|Harald|Haakon|Murad|Mehmed)"
)
_STREETS = {"Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Pkwy": "Parkway"}
_SENTENCE_STARTS = (
    "Turn|Then|Take|Go|Continue|Head|Walk|Cross|Make|Look|It|The|This|There|He|She|They|You|Your|We|I|At|In|On|From"
)
# Without a ZIP code these may also be words or other abbreviations: Yes, OK. John Doe, MD.
_AMBIGUOUS_STATES = frozenset(
    ("AL", "AR", "CO", "CT", "DE", "HI", "ID", "IN", "LA", "MA", "MD", "ME", "MS", "OH", "OK", "OR", "PA", "VA")
)
_NUMBERED_PARTS = r"\b(?:World War|Title|[Cc]hapter|[Pp]art|Act|[Vv]olume|Book|Article|Super Bowl|Final Fantasy)"
_MENUS = "Settings|File|Edit|View|Tools|Options|Menu|Preferences|Help|Insert|Format|System|General|Privacy|Account"
_GRADED = r"\b(?:[Tt]ype|[Pp]hase|[Ss]tage|[Cc]lass|[Ll]evel|[Tt]ier|Section|Appendix|Figure|Table|Rocky|Grade)"

_RULES: tuple[Rule, ...] = (
    # Addresses and abbreviations come first: no other rule may take their full stops and signs.
    *ADDRESS_RULES,
    *EARLY_QUANTITY_RULES,
    rule(r"(?<=[a-z]) [>›] (?=[A-Z][^>›\n]{1,40} [>›] [A-Z])|(?<=[a-z]) › (?=[A-Z])", ", "),
    rule(rf"\b({_MENUS}) > (?=[A-Z])", r"\1, "),
    rule(r"&&", "&"),
    rule(r"(?<=[\w)]) % (?=\d|\(|[a-z](?![a-z]))", " mod "),  # a % b
    rule(r"(?<=\d,)-(?=\d)", " -"),  # (1,-2)
    rule(r"(?<![A-Za-z])([XYZ]) ?[~∼] ?(?=[NBUPE]\()", r"\1 follows "),
    rule(r"(?<=[A-Za-z]) ?-= ?(?=[\w(])", " minus equals "),
    rule(r"(?<=[A-Za-z])--(?![\w-])", " minus minus"),
    rule("(?<=[A-G])♭", " flat"),
    rule("(?<=[A-G])♯", " sharp"),
    rule(r"(?<!\w)([fF])/(?=\d{1,2}(?:\.\d)?(?![\d/]))", r"\1 "),
    rule(r"(?<![\w.)])\.(?=\d)", "0."),
    rule(rf"(?<=[a-z\d] )St\. (?=(?:{_SENTENCE_STARTS})\b)", "Street. "),
    rule(r"(?<![\w.])St\. (?=[A-Z])", "Saint "),
    rule(rf"(?<=[a-z], )({any_of(STATES.keys() - _AMBIGUOUS_STATES)})(?=[.,;:)]| [a-z]|$)",
         lambda match: STATES[match[1]]),
    rule(r"(?<![\w.])St\.(?!\w)", "Street"),
    rule(r"(?<=(?:st|nd|rd|th) )St(?=[ ,;)]|$)", "Street"),
    rule(r"(?<=[a-z] )(Ave|Blvd|Rd|Pkwy)(?=[ ,;)]|$)(?! Maria)", lambda match: _STREETS[match[1]]),
    rule(r"(?<![\w.])ca?\. ?(?=\d{3})", "circa "),
    rule(r"\bWW(?=(?:II?|[12])\b)", "World War "),
    rule(r"(?<![\w.])Ch\. ?(?=\d)", "Chapter "),
    rule(r"(?<![\w.])Sec\. ?(?=\d)", "Section "),
    rule(r"(?<![\w.])(?:No|Nr|no)\. ?(?=\d)", "number "),
    rule(r"(?<![\w.])Nos\. ?(?=\d)", "numbers "),
    rule(r"(?<!\w)\((\d{1,3})\) ?[-–] ?\((\d{1,3})\)", rf"\1{TO}\2"),  # Eqs. (1)–(3)
    rule(r"(?<![\w.])pp\. ?(?=\d)", "pages "),
    rule(r"(?<![\w.])p\. ?(?=\d)", "page "),
    rule(r"(?<=[a-z])\.(?=\d)", " "),  # Lv.5
    rule(r"(?<![\w.])Ph\.D\b\.?", "P H D"),
    rule(r"(?<=[a-z]) v\. (?=[A-Z])", " versus "),
    rule(r"(?<![\w.])(?<!\d )[Mm]in\. ?(?=[$€£]?\d)", "minimum "),
    rule(rf"(?<![\w.])(?P<word>{any_of(ABBREVIATIONS)})\.(?!\w)", _spoken_abbreviation),
    rule(r"(?<![\w.])(?!(?<=\d )[AP]\.M\.)(?:[A-Z]\.){2,8}(?!\w)", _spoken_initials),
    rule(r"(?<![\w.])(?:[A-Z]\. ){2,4}(?=[A-Z][a-z])", lambda match: match[0].replace(".", "")),
    rule(r"(?<![A-Za-z&])([A-Z]{1,3})&([A-Z]{1,3})(?![A-Za-z&])",
         lambda match: f"{' '.join(match[1])} and {' '.join(match[2])}"),
    rule(rf"({_RULERS} )(?!I\b)({ROMAN})(?![\w.'’])", lambda match: f"{match[1]}the {ordinal(roman_value(match[2]))}"),
    rule(rf"(\bWorld War |{_NUMBERED_PARTS} (?!I\b)|{_GRADED} (?=[IVX]{{2}}))({ROMAN})(?![\w'’])",
         lambda match: match[1] + cardinal(roman_value(match[2]))),
    rule(r"(?<![\w-])([A-F])-(?= |[,.;!?)]|$)", r"\1 minus"),  # a grade
    rule(r"(?<= )--(?=[a-z][a-z-]{1,30})", "dash dash "),
    rule(r"(?<=[A-Za-z]{2} )-(?=[A-Za-z]{1,3}(?![A-Za-z-]))(?![a-z] [-+=*/])", "dash "),
    rule(r"§ ?§", "sections "),
    rule(r"(?<!\w)w/o(?!\w)", "without"),
    rule(r"(?<!\w)w/(?:v|(w))(?!\w)", lambda match: f"weight per {'weight' if match[1] else 'volume'}"),
    rule(r"(?<!\w)w/ ?(?=\w)", "with "),
    rule(r"(?<![\w.])vs(?= )", "versus"),
    rule(r"(?<![\w.])Ft\. (?=[A-Z])", "Fort "),
    rule(r"(?<![\w.])Pt\. (?=[A-Z])", "Point "),
    rule(r"(?<![\w.])pop\. (?=\d)", "population "),
    rule(rf"\(([DRI])-({any_of(STATES)})\)", lambda match: f"({match[1]}, {STATES[match[2]]})"),
    rule(r"(?<![\w.])b\. ?(?=\d{4}(?!\d))|(?<=\()b\. (?=[A-Z])", "born "),
    rule(rf"(?<![\w./)])\.({any_of(FILE_ENDINGS)})(?![\w/])", lambda match: f"dot {FILE_ENDINGS[match[1]]}"),
    rule(r"(?<![\w.])d\. ?(?=\d{4}(?!\d))", "died "),
    rule(r"(?<=#)(\d{1,3})[-–]#?(?=\d)", rf"\1{TO}"),
    rule(r"(?<=\d/)(\d{1,3})(?:th|rd|nd)s?\b", r"\1"),
    rule(r"(?<!\w)([A-G])#(?=(?:m|maj|min|dim|sus|aug)?\d{0,2}(?!\w))", r"\1 sharp "),
    rule(r"(?<!\w)[Nn]/[Aa](?!\w)", "not applicable"),
    rule(r"(?i)\b(he/she|she/he|him/her|his/hers?|yes/no|true/false|men/women|male/female|his/her)\b",
         lambda match: match[0].replace("/", " or ")),
    rule(r"(?<!\w)\$(?=[A-Za-z_]{2})", "dollar "),  # $PATH
    rule(r"(?<=[A-Z]{2} )\*(?= )", "star"),  # SELECT *
    rule(r"\b(Article|Part|Chapter|Section|Book|Act|Volume) I(?=[,.;:)]|$)", r"\1 one"),
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
