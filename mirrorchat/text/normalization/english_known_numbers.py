"""English text normalization: numbers that are names, which have words of their own: 911, 24/7, 80/20, Error 404."""

import re

from mirrorchat.text.normalization.english_numbers import cardinal, code_words, digits
from mirrorchat.text.normalization.english_words import COUNTED, STATES, UNITS
from mirrorchat.text.normalization.patterns import Rule, any_of, rule

_ENDS = rf"(?![\w%°$€£¥-]|[.,:]\d|/(?!\d{{3}})|{COUNTED.pattern})"
_STARTS = r"(?<![\w$€£¥/-])(?<!\d[.,])"
_ANY = r"(?:1-)?\d{3,12}(?:[- ]\d{3,4}){0,3}"
_AND = r"(?: \([^()\n]{1,20}\))?(?:, (?:or |and )?| or | and |/)"
_SEVERAL = rf"(?P<numbers>{_ANY}{_ENDS}(?:{_AND}{_ANY}{_ENDS}){{0,5}})"
_DIALLING = (
    r"\b(?:[Cc]all|[Dd]ial|[Tt]ext|[Pp]hone|[Rr]ing|[Cc]ontact)(?:s|ed|ing)?(?: or (?:call|text|dial))?"
    r"(?: us)?(?: on| at)?"
)
_RATED = (
    r"\b(?:[Rr]ated?|[Rr]ating(?: of)?|[Rr]ate (?:it|this|them|her|him)|[Ss]cored?|[Ss]core of|[Gg][ia]ve it|[Gg]ot)"
    r"(?: an?)?"
)
_PARTS = r"\b(?:[Pp]age|[Ss]lide|[Ss]tep|[Qq]uestion|[Pp]art|[Rr]ound|[Ll]evel|[Ll]esson)"
_OF_EYES = r"(?: in (?:the|my|his|her|your) (?:left|right)| vision| eyesight| or better)"
_STREETS = "St|Street|Ave|Avenue|Rd|Road|Blvd|Boulevard|Dr|Drive|Ln|Lane|Way|Ct|Court|Pl|Place|Sq|Square|Pkwy|Parkway"
_SERVICES = "call|caller|operator|dispatcher|emergency|center|service|line|hotline|helpline|lifeline"


def _spoken_list(match: re.Match[str]) -> str:
    words = re.sub(r"(?<=\d)[-/ ](?=\d)", ", ", match["numbers"])
    return re.sub(r"\d{1,12}", lambda number: digits(number[0]), words)


def _spoken_shares(match: re.Match[str]) -> str:
    """Return two shares that are equal or make a whole without a sign between them: 50/50, 80/20."""
    first, second = int(match[1]), int(match[2])
    is_name = first == second or first + second == 100
    return f"{cardinal(first)} {cardinal(second)}" if is_name else match[0]


def _spoken_duration(numbers: list[int]) -> str:
    """Return the time that something took: in 2:00:35."""
    units = zip(numbers, ("hour", "minute", "second"), strict=True)
    return " ".join(f"{cardinal(number)} {unit}{'s' * (number != 1)}" for number, unit in units if number)


_BOOKS = (
    "Genesis|Exodus|Leviticus|Deuteronomy|Joshua|Judges|Ruth|Samuel|Kings|Chronicles|Job|Psalms?|Proverbs|Ecclesiastes"
    "|Isaiah|Jeremiah|Ezekiel|Daniel|Micah|Matthew|Mark|Luke|John|Acts|Romans|Corinthians|Galatians|Ephesians"
    "|Philippians|Colossians|Thessalonians|Timothy|Titus|Hebrews|James|Peter|Jude|Revelation|Quran|Surah"
)


def _spoken_verse(match: re.Match[str]) -> str:
    """Return `1 Corinthians 13:4–8` as First Corinthians thirteen, four to eight."""
    volume = {"1": "First ", "2": "Second ", "3": "Third "}.get(match["volume"] or "", "")
    verse = cardinal(int(match["verse"]))
    verse = f", {verse} to {cardinal(int(match['last']))}" if match["last"] else f" {verse}"
    return f"{volume}{match['book']} {cardinal(int(match['chapter']))}{verse}"


def _spoken_zip_code(match: re.Match[str]) -> str:
    state, *groups = match.groups()
    return f"{STATES[state]} {', '.join(digits(group) for group in groups if group)}"


KNOWN_NUMBER_RULES: tuple[Rule, ...] = (
    rule(rf"\b(?:(?P<volume>[123]) )?(?P<book>{_BOOKS}) (?P<chapter>\d{{1,3}}):(?P<verse>\d{{1,3}})"
         r"(?:[-–](?P<last>\d{1,3}))?(?![\w:]| ?[AaPp]\.?[Mm]\b)", _spoken_verse),
    rule(r"(?<![\w-])1-([89]\d\d)-(?=[A-Z]{2})", lambda match: f"one, {digits(match[1])}, "),
    rule(r"(?<![\w-])1-([89]00)(?= numbers?\b)", lambda match: f"one {code_words(match[1])}"),
    rule(r"(?<![\w])['’]?(\d{2})ers\b", lambda match: re.sub("e?$", "ers", cardinal(int(match[1])), count=1)),
    rule(r"(?<![\w.])([01])s (and|or) ([01])s\b",
         lambda match: f"{cardinal(int(match[1]))}s {match[2]} {cardinal(int(match[3]))}s"),
    rule(r"(?<=[Ff]light )([A-Z])([A-Z]) ?(\d{2,4})(?![\w-])",
         lambda match: f"{match[1]} {match[2]} {code_words(match[3])}"),
    rule(r"(?<![\w./,])(\d{1,3})/(?=\d{1,3}(?:,\d{3}){1,3}(?![\d/]))", r"\1 in "),
    rule(r"(?<![\w/])24(?:/| ?[x×] ?)7(?:/(365))?(?![\w/])",
         lambda match: "twenty-four seven" + (" three sixty-five" if match[1] else "")),
    rule(r"(?<![\w/])9/11(?![\w/])", "nine eleven"),
    rule(r"(?<![\w/])(\d)/\1(?= (?:bombing|attack)s?\b)", lambda match: " ".join([cardinal(int(match[1]))] * 2)),
    rule(rf"(?P<cue>{_RATED}) (?P<above>\d{{1,3}})/(?P<below>\d{{1,3}})(?![\w/]|[.,]\d)",
         lambda match: f"{match['cue']} {match['above']} out of {match['below']}"),
    rule(rf"(?P<cue>{_PARTS}) (?P<above>\d{{1,3}})/(?P<below>\d{{1,3}})(?![\w/]|[.,]\d)",
         lambda match: f"{match['cue']} {match['above']} of {match['below']}"),
    rule(r"(?<![\w/.,])(\d{1,3}|10)/(5|10|100)(?= stars?\b| points?\b)|(?<![\w/.,])(10)/(10)(?![\w/]|[.,]\d)"
         r"|(?<=\b[Aa] )([1-9])/(10)(?![\w/]|[.,]\d)",
         lambda match: " out of ".join(filter(None, match.groups()))),
    rule(r"(?<![\w/])([1-9]0)/([1-9]0)(?![\w/]|[.,]\d)", _spoken_shares),
    rule(r"(?<![\w/.,])([1-9]\d)/100(?![\w/]|[.,]\d)", r"\1 out of 100"),
    rule(rf"(?<![\w/.,])20/([1-9]\d\d?)(?={_OF_EYES})|(?<=[Vv]ision is )20/([1-9]\d\d?)(?![\w/]|[.,]\d)",
         lambda match: f"twenty {code_words(match[1] or match[2])}"),
    rule(r"(?<![\w/.,])(\d{1,2})/(2|4|8|16)(?= (?:time|meter|beat)\b)", r"\1 \2"),
    rule(r"\b([Ff]igure|[Ff]ig\.|[Tt]able|[Ee]xhibit|[Pp]roblem|[Ee]quation) (\d{1,2})-(\d{1,2})(?![\w-]|\.\d)",
         r"\1 \2 dash \3"),
    rule(r"(?<=ending in )(\d{3,4})(?![\w%-]|[.,]\d)", lambda match: digits(match[0])),
    rule(rf"(?<=[a-z], )({any_of(STATES)}) (\d{{5}})(?:-(\d{{4}}))?(?![\w-])", _spoken_zip_code),
    rule(rf"(?<![\w.,$-])([1-9]\d{{2,4}})(?P<letter>[A-Z]?)"
         rf"(?= (?:[NSEW]\.? )?(?:[A-Z][a-z]{{1,15}} |\d{{1,3}}(?:st|nd|rd|th) ){{1,3}}(?:{_STREETS})\b)",
         lambda match: f"{code_words(match[1])} {match['letter']}".rstrip()),
    rule(r"(?<=\d) ?y/o\b", " years old"),
    rule(r"\bYoY\b", "year over year"),
    rule(r"(?:(?<=\b[Ii]n )|(?<=\b[Aa] ))(\d{1,2}):([0-5]\d):([0-5]\d)(?![\d:])"
         r"|(?<=\b[Tt]ime of )(\d{1,2}):([0-5]\d):([0-5]\d)(?![\d:])",
         lambda match: _spoken_duration([int(number) for number in match.groups() if number])),
    rule(rf"(?P<cue>{_DIALLING} |\b[Tt]ext \"?[A-Z]{{2,12}}\"? to ){_SEVERAL}",
         lambda match: match["cue"] + _spoken_list(match)),
    rule(rf"{_STARTS}(?P<numbers>\d{{3,6}})(?= (?:{_SERVICES})s?\b)", _spoken_list),
    rule(r"(?:(?<=[Ee]rror )|(?<=HTTP )|(?<=[Ss]tatus )|(?<=[Cc]ode )|(?<=Porsche ))([1-9]\d\d)(?![\w%]|[.,]\d)",
         lambda match: code_words(match[1])),
    rule(rf"{_STARTS}(?P<numbers>911){_ENDS}(?! ?(?:{any_of(UNITS)})\b)", _spoken_list),
    rule(rf"{_STARTS}(?P<numbers>985(?:/| and )211|211(?:/| and )985)(?![\w/])", _spoken_list),
    rule(rf"{_STARTS}(?P<numbers>996|985|211)(?= (?:schedule|culture|work|system|universit|project))", _spoken_list),
    rule(rf"{_STARTS}([1-5]\d\d)(?= (?:[Ee]rror|[Rr]esponse|[Ss]tatus|[Nn]ot [Ff]ound)s?\b)",
         lambda match: code_words(match[1])),
    rule(rf"{_STARTS}([45]0[0-9])\(([a-z])\)(?:\((\d)\))?",
         lambda match: " ".join(filter(None, (code_words(match[1]), match[2], match[3])))),
    rule(r"(?<![\w:.,])(\d{1,3}):(\d{1,3})(?= (?:ratio|dilution|scale|mix|mixture|odds|solution|split|aspect)\b)"
         r"|(?<=\b[Rr]atio of )(\d{1,3}):(\d{1,3})(?![\d:])|(?<=\b[Rr]atio is )(\d{1,3}):(\d{1,3})(?![\d:])",
         lambda match: " to ".join(filter(None, match.groups()))),
    rule(r"(?:(?<=\b[Ii]n )|(?<=\b[Uu]nder )|(?<=\b[Ww]ithin ))(2[5-9]|[3-5]\d):([0-5]\d)(?![\d:])",
         lambda match: _spoken_duration([0, int(match[1]), int(match[2])])),
    rule(rf"(?P<course>\b[A-Z][a-z]{{2,20}} )101(?![\w%/-]|[.,]\d|{COUNTED.pattern})", r"\g<course>one oh one"),
)  # fmt: skip
