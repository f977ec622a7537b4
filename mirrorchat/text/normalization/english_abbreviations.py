"""English text normalization: abbreviations, initials, Roman numerals, and signs that stand for a word."""

import re

from mirrorchat.text.normalization.acronyms import FILE_ENDINGS
from mirrorchat.text.normalization.english_numbers import cardinal, ordinal
from mirrorchat.text.normalization.english_words import ABBREVIATIONS, STATES
from mirrorchat.text.normalization.patterns import ROMAN, TO, Rule, after, any_of, roman_value, rule


def _spoken_abbreviation(match: re.Match[str]) -> str:
    """Return an abbreviation in full. Its full stop stays if it also ends the sentence."""
    ends = match["word"] == "etc" and re.match(r"\s*$| +[A-Z]", after(match, 9))
    return ABBREVIATIONS[match["word"]] + ("." if ends else "")


def _spoken_initials(match: re.Match[str]) -> str:
    return " ".join(match[0].replace(".", "")) + ("" if after(match, 9).strip() else ".")


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

ABBREVIATION_RULES: tuple[Rule, ...] = (
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
)  # fmt: skip
