"""English text normalization: codes behind a word that announces them, and addresses, which are spelled out."""

import re

from mirrorchat.text.normalization.acronyms import FILE_ENDINGS
from mirrorchat.text.normalization.english_numbers import digits, in_pairs
from mirrorchat.text.normalization.english_words import COUNTED
from mirrorchat.text.normalization.patterns import Rule, any_of, rule

_ADDRESS_SIGNS = {".": "dot", "@": "at", "/": "slash", "-": "dash", "_": "underscore", ":": "colon",
                  "?": "question mark", "=": "equals", "&": "and", "#": "hash"}  # fmt: skip


def _spoken_code(match: re.Match[str]) -> str:
    """Return a code after its cue, character by character: `PIN 0420`, `ISBN 978-0`, `serial number AB-12`."""
    if COUNTED.match(match.string, match.end()):
        return match[0]
    words = re.sub(r"\d+", lambda run: f"{digits(run[0])}, ", match["code"].replace("-", " "))
    words = re.sub(r"[A-Z]+", lambda run: f" {' '.join(run[0])} ", words)
    return match["cue"] + re.sub(r" +", " ", words).replace(" ,", ",").strip(" ,")


def _spoken_room(match: re.Match[str]) -> str:
    return match[0] if COUNTED.match(match.string, match.end()) else match["cue"] + in_pairs(match["number"])


def _spoken_address(match: re.Match[str]) -> str:
    """Return an e-mail or web address as a speaker dictates it."""
    address = re.sub(r"^https?://", "", match[0]).rstrip("/")
    address = re.sub(r"^www(?=\.)", "W W W", address)
    address = "".join(f" {_ADDRESS_SIGNS[sign]} " if sign in _ADDRESS_SIGNS else sign for sign in address)
    return re.sub(r"\d{1,4000}", lambda run: f" {digits(run[0])} ", address)


_WEB = r"(?:https?://[\w.~:/?#@!$&*+=%-]{0,500}[\w/]|(?<![\w@.])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,24}"
_WEB += r"|(?<![\w@./])(?:[A-Za-z][\w-]{0,62}\.){1,5}(?:com|org|net|edu|gov|io|cn|uk|de|ai|dev|app|co)\b"
_WEB += r"(?:/[\w./-]{0,200}\w)?)"
_CODE_CUES = (
    r"(?:[Zz][Ii][Pp]|[Aa]rea|[Pp]ost(?:al)?|[Ss]ecurity|[Vv]erification|[Aa]ccess|[Dd]oor) code"
    r"|PINs?|[Pp]ass(?:code|word)|[Ee]xtension|ISBN|(?:[Ss]erial|[Oo]rder|[Aa]ccount|[Tt]racking|[Pp]hone|[Mm]odel|[Cc]ase|[Cc]onfirmation)"
    r" number"
)
_NUMBERED = (
    r"\b(?:[Rr]oom|[Ss]uite|[Aa]partment|[Ff]light|[Hh]ighway|[Ii]nterstate|[Rr]oute|[Bb]us|Xbox)"
)

ADDRESS_RULES: tuple[Rule, ...] = (
    rule(_WEB, _spoken_address),
    rule(rf"(?<![\w.@/])(?P<name>[A-Za-z][\w-]{{0,60}})\.(?P<ending>{any_of(FILE_ENDINGS)})(?!\w|\.\w)",
         lambda match: f"{match['name'].replace('_', ' ')} dot {FILE_ENDINGS[match['ending']]}"),
)  # fmt: skip

CODE_RULES: tuple[Rule, ...] = (
    rule(r"\b[Ee]xt\. ?(?=\d)", "extension "),
    rule(rf"(?P<cue>\b(?:{_CODE_CUES})(?: is|:)? )(?P<code>(?:[A-Z]{{1,4}}-?)?\d[\d-]{{1,30}})(?![\w%]|[.,]\d)",
         _spoken_code),
    rule(rf"(?P<cue>{_NUMBERED} )(?P<number>\d{{3,4}})(?![\w%-]|[.,]\d)", _spoken_room),
)  # fmt: skip
