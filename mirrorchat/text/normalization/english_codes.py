"""English text normalization: codes behind a word that announces them, and addresses, which are spelled out."""

import re

from mirrorchat.text.normalization.addresses import AddressWords, address_rules
from mirrorchat.text.normalization.english_numbers import code_words, digits, number_words
from mirrorchat.text.normalization.english_words import COUNTED
from mirrorchat.text.normalization.patterns import Rule, rule

_ADDRESS_SIGNS = {".": " dot ", "@": " at ", "/": " slash ", "\\": " backslash ", "-": " dash ", "_": " underscore ",
                  ":": " colon ", "#": " hash ", "+": " plus ", "~": " tilde "}  # fmt: skip


def _spoken_code(match: re.Match[str]) -> str:
    """Return a code after its cue, character by character: `PIN 0420`, `ISBN 978-0`, `serial number AB-12`."""
    if COUNTED.match(match.string, match.end()):
        return match[0]
    words = re.sub(r"\d+", lambda run: f"{digits(run[0])}, ", match["code"].replace("-", " "))
    words = re.sub(r"[A-Z]+", lambda run: f" {' '.join(run[0])} ", words)
    return match["cue"] + re.sub(r" +", " ", words).replace(" ,", ",").strip(" ,")


def _spoken_room(match: re.Match[str]) -> str:
    return match[0] if COUNTED.match(match.string, match.end()) else match["cue"] + code_words(match["number"])


_CODE_CUES = (
    r"(?:[Zz][Ii][Pp]|[Aa]rea|[Pp]ost(?:al)?|[Ss]ecurity|[Vv]erification|[Aa]ccess|[Dd]oor) code"
    r"|ZIP|PINs?|[Pp]ass(?:code|word)|[Ee]xtension|ISBN|(?:[Ss]erial|[Oo]rder|[Aa]ccount|[Tt]racking|[Pp]hone|[Mm]odel|[Cc]ase|[Cc]onfirmation)"
    r" number"
)
_NUMBERED = r"\b(?:[Rr]oom|[Ss]uite|[Aa]partment|[Ff]light|[Hh]ighway|[Ii]nterstate|[Rr]oute|[Bb]us|Xbox|P ?O Box)"

ADDRESS_RULES = address_rules(
    AddressWords(_ADDRESS_SIGNS, lambda run: f" {digits(run)} ", number_words, port=" port {0}", file=" dot ")
)

CODE_RULES: tuple[Rule, ...] = (
    rule(r"\b[Ee]xt\. ?(?=\d)", "extension "),
    rule(rf"(?P<cue>\b(?:{_CODE_CUES})(?: is|:)? )(?P<code>(?:[A-Z]{{1,4}}-?)?\d[\d-]{{1,30}})(?![\w%]|[.,]\d)",
         _spoken_code),
    rule(rf"(?P<cue>{_NUMBERED} )(?P<number>\d{{3,4}})(?![\w%-]|[.,]\d)", _spoken_room),
)  # fmt: skip
