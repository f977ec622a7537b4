"""Runs of letters and numbers that name a thing: i5-12400, Qwen2.5-7B, RTX 4090 Ti, 歼-20, RS-485, 802.11ac.

A hyphen inside is a joint, never "to" or "minus".
"""

import re
from dataclasses import dataclass

from mirrorchat.text.normalization.chinese_words import UNITS as CHINESE_UNITS
from mirrorchat.text.normalization.english_words import CURRENCIES
from mirrorchat.text.normalization.english_words import UNITS as ENGLISH_UNITS
from mirrorchat.text.normalization.patterns import any_of, before, behind
from mirrorchat.text.normalization.runs import RunKind

_PIECE = re.compile(r"[A-Z]{2,12}(?=v\d)|[A-Za-z]{1,40}|\d{1,40}(?:\.\d{1,40}){0,9}")
_NOT_INSIDE = r"(?<![A-Za-z0-9_.@&$€£¥])(?<![A-Za-z0-9]-)"
_NOT_BEHIND = r"(?![A-Za-z0-9_@&]|-[A-Za-z0-9]|\.[A-Za-z0-9])"
_ALTERNATIVES = r"(?:/\d{3,5}(?![\d/]))?"  # RTX4060/4070
_JOINT = r"(?:-|(?<=\d)\.(?=\d)|(?<=H)\.(?=26\d))"

# Makers and families whose models are numbers of three to five digits, apart from the name.
_FAMILIES = (
    "RTX", "GTX", "GT", "RX", "MX", "Radeon", "GeForce", "Ryzen", "Core", "Xeon", "EPYC", "Threadripper", "Snapdragon",
    "Dimensity", "Exynos", "Kirin", "Arc", "Quadro", "Nokia", "ThinkPad", "HTTP", "RFC", "ISO", "i3", "i5", "i7", "i9",
    "R5", "R7", "R9", "Ultra",
)  # fmt: skip
_HAN_FAMILIES = "骁龙|天玑|麒麟|锐龙|酷睿|诺基亚|霄龙|至强|宝马|标致|雪铁龙"
_TIER = r"(?:Ultra ?)?i?[3579][ -]"
_COUNTS = r"(?! ?(?:元|块|美元|万|亿|个|台|张|套|款|人|%|W(?![A-Za-z])|dollars|euros|units|people|million|billion))"
_ISOTOPES = "氢|氦|碳|氮|氧|磷|硫|钾|钴|锶|锝|碘|氙|铯|铅|钋|氡|镭|钍|铀|钚|镅"
_HYPHENED = f"{_ISOTOPES}|歼|轰|空警|翼龙|运|直|强|东风|神舟|嫦娥|天宫|长征|巨浪|苏|米格|图|安|红旗|鹰击|α|β|ω|Ω"
_AIRCRAFT = "波音|空客|Boeing |Airbus "
_STANDARDS = "GB/T |GB/T|GB |ISO |IEC |DIN |EN "

# Before a number with a hyphen, these keep their own rules: time zones (UTC-5), decades and years (mid-80s, pre-1900).
_NO_NAME = re.compile(r"(?:UTC|GMT)-\d.{0,60}|[A-Z]?[a-z]{1,12}-(?:(?:1[5-9]|20)\d\ds?|[2-9]0s)(?:-.{1,60})?")
_CURRENCIES = frozenset({*CURRENCIES, "RMB"})
_UNITS = frozenset({*CHINESE_UNITS, *ENGLISH_UNITS})


@dataclass(frozen=True)
class Code:
    """A name with numbers: its parts between hyphens and spaces, each of letters and numbers in turn."""

    parts: tuple[tuple[str, ...], ...]


def _code(match: re.Match[str]) -> Code | None:
    written = match[0]
    letters = re.match("[A-Za-z]{1,40}", written)
    rest = written[letters.end() :] if letters else ""
    is_amount = letters is not None and letters[0] in _CURRENCIES and rest.isdigit()
    is_area = letters is not None and letters[0] in _UNITS and rest in ("2", "3") and before(match, 2)[:1].isdigit()
    is_difference = re.fullmatch(r"[a-hj-z]-\d{1,12}", written) is not None
    if is_amount or is_area or is_difference or _NO_NAME.fullmatch(written):
        return None
    return _split(written)


def _split(written: str) -> Code:
    return Code(tuple(tuple(_PIECE.findall(part)) for part in re.split("[- /·•]", written) if part))


CODE = RunKind(
    re.compile(
        rf"{_NOT_INSIDE}(?:(?=[A-Za-z.-]{{1,60}}\d)[A-Za-z]|\d{{1,4}}[A-Z]{{1,4}}(?=\d))[A-Za-z0-9]{{0,30}}"
        rf"(?:{_JOINT}[A-Za-z0-9]{{1,30}}){{0,8}}{_ALTERNATIVES}{_NOT_BEHIND}"
    ),
    _code,
)
"""Letters and then numbers, perhaps with hyphens: H100, GPT-4o, Llama-3.1-8B, 74HC595."""
FAMILY_CODE = RunKind(
    re.compile(
        rf"(?:(?<![A-Za-z]){any_of(_FAMILIES)} |{behind(_HAN_FAMILIES)})"
        rf"(?:{_TIER})?\d{{3,5}}(?:[A-Z][A-Za-z0-9]{{0,3}})?{_ALTERNATIVES}(?![A-Za-z0-9]|[.,-]\d){_COUNTS}"
    ),
    lambda match: _split(match[0]),
)
"""A number of a known family: RTX 4090, Ryzen 9 7950X, ISO 9001."""
_NAMED_NUMBERS = (
    rf"{behind(_HYPHENED)}-\d{{1,4}}[A-Z]{{0,3}}",  # 歼-20
    rf"{behind(_AIRCRAFT)}\d{{3}}(?:-\d{{1,4}})?[A-Z]{{0,3}}",  # Boeing 737-800
    rf"{behind(_STANDARDS)}\d{{3,5}}(?:\.\d{{1,2}})?-(?:19|20)\d\d",  # GB/T 7714-2015
    r"(?<![A-Za-z0-9])[A-Z][A-Za-z]{1,18} \d{1,2}(?:\.\d{1,2})?[ -]\d{1,4}B(?:-[A-Za-z]{1,12})?",  # Llama 3.1 405B
    r"(?<![A-Za-z0-9.,-])(?:0|5|10|15|20|25)W-?[1-6]0",  # 5W-30, a grade of oil
    r"(?<![A-Za-z0-9.,-])7[0-8]7-(?:[1-9]00|8|9|10)",  # 737-800, an aircraft
    r"(?<![A-Za-z0-9.,-])\d{4} ?(?:Ti|TI|XTX?|Super|SUPER)",  # 4090 Ti, a graphics card
    r"(?<=iPhone )\d{1,2}[a-z]{1,2}",
)
NAMED_CODE = RunKind(
    re.compile(rf"(?:{'|'.join(_NAMED_NUMBERS)})(?![A-Za-z0-9]|[.,]\d)"), lambda match: _split(match[0])
)
"""A number that a name or its form announces."""
HEXADECIMAL = RunKind(
    re.compile(
        r"(?<![A-Za-z0-9_.])(?:0[xX][0-9A-Fa-f]{1,16}|0[bo][01-7]{1,32}"
        r"|(?<=#)(?=[0-9]{0,7}[A-Fa-f])(?=[A-Fa-f]{0,7}[0-9])(?:[0-9A-Fa-f]{8}|[0-9A-Fa-f]{6}))(?![A-Za-z0-9_])"
    ),
    lambda match: Code((tuple(match[0]),)),
)
"""A hexadecimal number or colour, character by character: 0x1e6, #1e90ff."""
_HEX = "[0-9A-Fa-f]"
IDENTIFIER = RunKind(
    re.compile(
        rf"(?<![A-Za-z0-9_.:-])(?:{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}|{_HEX}{{2}}(?::{_HEX}{{2}}){{5}}|{_HEX}{{2}}(?:-{_HEX}{{2}}){{5}}"
        rf"|(?=[0-9:]{{0,38}}(?:::|[a-f])){_HEX}{{1,4}}(?::{_HEX}{{0,4}}){{2,7}}(?:/\d{{1,3}})?"
        rf"|(?={_HEX}{{0,60}}\d[a-f]{{1,60}}\d)[0-9a-f]{{7,64}})(?![A-Za-z0-9_:-]|\.[A-Za-z0-9])"
    ),
    lambda match: Code(tuple(tuple(part) for part in re.split("[:/-]{1,2}", match[0]) if part)),
)
"""An identifier of hexadecimal digits, character by character: a UUID, MAC and IPv6 addresses, a hash."""
IEEE_CODE = RunKind(
    re.compile(
        r"(?<![A-Za-z0-9.,])(?P<number>802\.\d{1,2})(?P<letters>[a-z]{1,2}(?:/[a-z]{1,2}){0,6})?(?![A-Za-z0-9])"
    ),
    lambda match: Code(((match["number"], *re.findall("[a-z]", match["letters"] or "")),)),
)
"""A standard of networks: 802.11ac."""
