"""One form of each character: Unicode's many digits, letters (𝗕, Ⓑ, Ｂ, ʙ), signs and units become plain ones."""

import functools
import re
import unicodedata

_CHARACTERS = {
    "−": "-", "‐": "-", "‑": "-", "﹣": "-", "№": "No.", "™": "", "®": "", "©": "", "℠": "", "℗": "",
    "µ": "μ", "∶": ":", "／": "/", "％": "%", "＋": "+", "－": "-", "＝": "=", "＆": "&", "＠": "@", "＃": "#",
    "＄": "$", "￥": "¥", "～": "~", "＜": "<", "＞": ">", "＊": "*", "￡": "£", "º": "°", "˚": "°", "￠": "¢",
    "｜": "|", "＾": "^", "＿": "_", "｛": "{", "｝": "}", "＇": "'", "＂": '"', "‼": "!!", "⁇": "??", "⁉": "!?",
    "⁈": "?!", "⩽": "≤", "⩾": "≥", "≦": "≤", "≧": "≥", "⋅": "·", "∙": "·", "⟶": "→", "➔": "→", "➜": "→", "➝": "→",
    "⟹": "⇒", "∣": "|", "≌": "≅", "〜": "~", "∼": "~", "⁓": "~", "〰": "~", "‒": "–", "―": "—", "➖": "-",
    "［": "[", "］": "]", "⁄": "/", "\ufffd": "",
}  # fmt: skip
_WIDE_MARK_INSIDE = re.compile(r"(?<=\d)：(?=\d)|(?<=[A-Za-z\d])．(?=[A-Za-z\d])")
_NARROW = {"：": ":", "．": "."}
_ROOTS = {"³√": "∛", "⁴√": "∜"}
_COMPARISONS = {">=": "≥", "<=": "≤", "!=": "≠", "==": "="}
_COMPARISON = re.compile(r"(?<![<>=!-])(?:[<>=]=(?![<>=])|(?<= )!=(?= )|!=(?=[A-Za-z]))")  # n!=120 is a factorial
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵃᵇᶜᵈᵉᶠᵍʰʲᵏˡᵐᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᶿᵠᵡᶦ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ"
_RAISED = re.compile(f"([^{_SUPERSCRIPTS}]?)([^{_SUPERSCRIPTS}]?)([{_SUPERSCRIPTS}]{{1,200}})(?=(\\d?))")
_ISOTOPE = re.compile("(?<![A-Za-z0-9)⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻])([⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3})([A-Z][a-z]?)(?![a-z])")
_LOWERED = re.compile(f"([A-Za-zα-ωΑ-Ω∑∏∫]{{0,10}})([{_SUBSCRIPTS}]{{1,200}})(?=(\\d?))")
# An element's sign before an index makes the index a number of atoms. 0 and 1 count none: H₀ is a name with an index.
_ELEMENT_BEFORE = re.compile(r"(?:[HCNOFSPKBI]|[A-Z][a-z])$")
_MARKS = (
    r"\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef"
)
_PILE_OF_MARKS = re.compile(f"[{_MARKS}]{{3,1000}}")  # no language has three on a letter
_LOOSE_MARKS = re.compile(f"[{_MARKS}]{{1,1000}}")
_UNIT_POWER = re.compile(r"(?<=m)([23])$")  # ㎡
_PARENTHESIS = re.compile(r"\(([^()])\)")  # ⒜
# Letters of Cyrillic and Greek that look like Latin ones, and stand for them inside a Latin word.
_ALIKE = str.maketrans("АВЕЅІЈКМНОРСТУХаеорсухіѕјΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABESIJKMHOPCTYXaeopcyxisjABEZHIKMNOPTYXo")
_MIXED_WORD = re.compile(rf"[A-Za-z{''.join(map(chr, _ALIKE))}]{{3,60}}")
_LETTER_NAME = re.compile(
    r"(?:NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER|LATIN LETTER SMALL CAPITAL(?P<small>)) ([A-Z])"
)


def with_plain_characters(text: str) -> str:
    """Return `text` with one form of each digit, letter, sign and unit: `４`, `④`, `𝟒` and `٤` become `4`.

    Raised characters become an exponent (`^-9`, `^{n+1}`), lowered ones an index (`x_1`, but `H2O`). Zero-width and
    directional characters, and marks that fit no letter, are left out. Of the characters that are digits in Unicode
    only `0` to `9` are left.
    """
    text = _COMPARISON.sub(lambda match: _COMPARISONS[match[0]], text)
    if text.isascii():
        return text
    for raised, root in _ROOTS.items():
        text = text.replace(raised, root)
    text = unicodedata.normalize("NFC", _ISOTOPE.sub(_as_isotope, _PILE_OF_MARKS.sub("", text)))
    text = _LOWERED.sub(_index, _RAISED.sub(_exponent, _LOOSE_MARKS.sub("", text)))
    text = _MIXED_WORD.sub(_in_one_script, text)
    text = _NOT_ASCII.sub(lambda match: _plain(match[0]), text)
    return _WIDE_MARK_INSIDE.sub(lambda match: _NARROW[match[0]], text)


def _in_one_script(match: re.Match[str]) -> str:
    word = match[0]
    return word.translate(_ALIKE) if re.search(r"[A-Za-z]", word) else word


def _as_isotope(match: re.Match[str]) -> str:
    """Return `¹⁴C` as `C-14`."""
    return f"{match[2]}-{_folded(match[1])}"


def _exponent(match: re.Match[str]) -> str:
    """Return raised characters as an exponent, raised words and the endings of ordinals (5ᵗʰ) as plain letters."""
    before, base, plain = match[1], match[2], _folded(match[3])
    has_one_letter = base.isalnum() and not before.isalpha()
    is_text = plain.isalpha() and len(plain) > 1 and not (has_one_letter and base.isalpha())
    return before + base + (plain if is_text else f"^{_grouped(plain, match[4])}")


def _index(match: re.Match[str]) -> str:
    name, plain = match[1], _folded(match[2])
    is_choice = name in ("C", "A") and match.string.startswith("^", match.end())  # C₅² is a number of choices
    if plain.isdigit() and plain not in ("0", "1") and _ELEMENT_BEFORE.search(name) and not is_choice:
        return name + plain
    return f"{name}_{_grouped(plain, match[3])}" if name else plain


def _folded(characters: str) -> str:
    return unicodedata.normalize("NFKC", characters).replace("−", "-")


def _grouped(plain: str, digit_after: str) -> str:
    """Return an exponent or index so that it stands apart from what follows."""
    return plain if not digit_after and re.fullmatch(r"-?\d{1,200}|[A-Za-z]", plain) else f"{{{plain}}}"


@functools.lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    decimal = unicodedata.decimal(character, None)
    if decimal is not None:
        return str(decimal)
    folded = unicodedata.normalize("NFKC", character)
    if "\u2160" <= character <= "\u217f":  # Ⅲ
        return str(int(unicodedata.numeric(character)))
    match unicodedata.category(character):
        case "No":
            return _plain_numeral(character, folded)
        case "Cf":
            return ""
        case "Zs" | "Zl" | "Zp":
            return " "
        case "So" | "Lu" | "Ll" | "Lt" | "Lm" | "Lo":
            return _plain_letter(character, folded)
    return character


def _plain_letter(character: str, folded: str) -> str:
    """Return a letter or a symbol made of letters in its usual shape: `𝗕`, `Ⓑ`, `🅱`, `ʙ`, `ﬁ`, `㎏`."""
    named = _LETTER_NAME.fullmatch(unicodedata.name(character, ""))
    if named is None:
        return _PARENTHESIS.sub(r"\1", _UNIT_POWER.sub(r"^\1", folded))
    return named[2] if named["small"] is None else named[2].lower()


def _plain_numeral(character: str, folded: str) -> str:
    """Return a numeral that is no decimal digit (`½`, `①`, `❷`) in ASCII."""
    if "⁄" in folded:
        return f" {folded.replace('⁄', '/')}"
    digit = unicodedata.digit(character, None)
    numeral = _PARENTHESIS.sub(r"\1", folded)
    if digit is None and len(numeral) == 1 and numeral.isalpha():  # ㊀
        return numeral
    return character if digit is None and not folded.isascii() else f" {folded if digit is None else digit} "
