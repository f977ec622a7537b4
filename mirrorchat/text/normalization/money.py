"""Runs of money: `-$9M`, `$-5`, `US$1,234.56`, `¥10-20`, `€3m`, `5 USD`, `$20/hr`."""

import re
from dataclasses import dataclass

from mirrorchat.text.normalization.patterns import NUMBER, TO, any_of, modifies_noun
from mirrorchat.text.normalization.runs import RunKind
from mirrorchat.text.sentences.speech_length import HAN

# The keys of the currencies in the word lists of both languages. A bare dollar has no country.
_SYMBOLS = {
    "$": "$", "€": "EUR", "£": "GBP", "¥": "CNY", "₹": "INR", "₩": "KRW", "₽": "RUB", "฿": "THB", "₫": "VND",
    "₺": "TRY", "₴": "UAH", "₪": "ILS", "₱": "PHP", "₦": "NGN", "₿": "BTC", "US$": "USD", "HK$": "HKD", "A$": "AUD",
    "AU$": "AUD", "C$": "CAD", "CA$": "CAD", "NZ$": "NZD", "NT$": "TWD", "S$": "SGD", "SG$": "SGD", "R$": "BRL",
    "JP¥": "JPY", "CN¥": "CNY",
    "US $": "USD", "USD$": "USD", "AUD$": "AUD", "CAD$": "CAD", "HKD$": "HKD", "SGD$": "SGD", "Rs": "INR", "Rs.": "INR",
}  # fmt: skip
_CODES = (
    "USD", "EUR", "GBP", "CNY", "RMB", "JPY", "HKD", "AUD", "CAD", "NZD", "TWD", "SGD", "BRL", "CHF", "INR", "KRW",
    "RUB", "THB", "VND", "TRY", "UAH", "ILS", "PHP", "NGN", "BTC",
)  # fmt: skip
_CODE_CURRENCIES = {code: "CNY" if code == "RMB" else code for code in _CODES}
_SUFFIXES = {sign: _SYMBOLS[sign] for sign in "$€£¥₹₩₽฿₫₺₴₪₱₦₿"} | {"円": "JPY", "元": "CNY"} | _CODE_CURRENCIES

LATIN_MAGNITUDES = {
    "hundred": 2, "thousand": 3, "k": 3, "K": 3, "lakh": 5, "million": 6, "mn": 6, "m": 6, "M": 6, "crore": 7,
    "billion": 9, "bn": 9, "b": 9, "B": 9, "trillion": 12, "tn": 12, "T": 12,
}  # fmt: skip
"""The power of ten of each magnitude in Latin letters."""
HAN_MAGNITUDES = {
    "百": 2, "千": 3, "万": 4, "十万": 5, "百万": 6, "千万": 7, "亿": 8, "十亿": 9, "百亿": 10, "千亿": 11, "万亿": 12,
}  # fmt: skip
"""The power of ten of each magnitude in Chinese characters."""

_SIGN = r"(?P<sign>(?<![A-Za-z0-9)\]%°+-])[-+])?"
_PREFIX = rf"(?:{any_of([*_SYMBOLS, *_CODES])})"
_ANY_MAGNITUDE = rf"(?:{any_of(LATIN_MAGNITUDES)}(?![A-Za-z])|{any_of(HAN_MAGNITUDES)})"
_MAGNITUDE = rf"(?:(?: |-(?=(?:m|b|tr)illion\b))?(?P<magnitude>{_ANY_MAGNITUDE}))?"
_NOT_AN_UPPER = rf"(?! ?(?:[$€£¥₹₩₽฿₫₿%°:.-]|{any_of(_CODES)}))"
_UPPER = rf"(?: ?(?P<lower_magnitude>{_ANY_MAGNITUDE}))?{TO}(?P<b>{NUMBER}){_NOT_AN_UPPER}"
_AMOUNT = rf"(?P<a>{NUMBER}|\.\d{{1,15}}(?!\d))(?:{_UPPER})?"
_PER = rf"(?P<per>(?:/(?:[A-Za-z]{{1,12}}(?![A-Za-z^])|(?![{HAN}]{{1,6}}[\d¥])[{HAN}]{{1,4}})){{0,2}})"


@dataclass(frozen=True)
class Money:
    """An amount, or a range from `number` to `upper`, of the currency `currency` (an ISO code, or `$`)."""

    signs: str
    number: str
    upper: str
    lower_magnitude: str
    magnitude: str
    currency: str
    per: tuple[str, ...]
    modifies_noun: bool
    """Whether an English noun follows that the amount modifies: `a $5 bill`."""


def _money(match: re.Match[str]) -> Money | None:
    groups = match.groupdict()
    written = groups.get("code") or groups["currency"]
    currency = _SYMBOLS.get(written) or _SUFFIXES[written]
    return Money(
        (groups["sign"] or "") + (groups.get("inner") or ""),
        match["a"] if match["a"][0] != "." else f"0{match['a']}",
        match["b"] or "",
        match["lower_magnitude"] or "",
        match["magnitude"] or "",
        currency,
        tuple(filter(None, match["per"].split("/"))),
        modifies_noun(match),
    )


MONEY_BEHIND_SIGN = RunKind(
    re.compile(rf"{_SIGN}(?<![A-Za-z])(?P<currency>{_PREFIX}) ?(?P<inner>[-+])? ?{_AMOUNT}{_MAGNITUDE}"
               rf"(?:元|美元| ?(?P<code>{any_of(_CODES)})(?![A-Za-z0-9]))?{_PER}"),
    _money,
)  # fmt: skip
"""The currency stands before the amount."""
MONEY_BEFORE_SIGN = RunKind(
    re.compile(rf"{_SIGN}(?<![A-Za-z0-9])(?<!\d[.,]){_AMOUNT}{_MAGNITUDE} ?(?P<currency>{any_of(_SUFFIXES)})"
               rf"(?![A-Za-z0-9]){_PER}"),
    _money,
)  # fmt: skip
"""The amount stands before the currency."""


def multiplied(written: str, power: int) -> str:
    """Return the digits of `written` times ten to the power of `power`: `2.5` and 6 are `2500000`."""
    whole, _, decimals = written.replace(",", "").partition(".")
    moved = decimals[:power].ljust(power, "0")
    rest = decimals[power:].rstrip("0")
    digits = (whole + moved).lstrip("0") or "0"
    return f"{digits}.{rest}" if rest else digits
