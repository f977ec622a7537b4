"""Text normalization: generated numbers with signs and units, anywhere in a sentence, lose no digit and no sign."""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE

# Each sign, and the words of which one must be heard.
SIGN_WORDS: dict[Language, dict[str, tuple[str, ...]]] = {
    ENGLISH: {
        "-": ("minus",), "+": ("plus",), "±": ("plus or minus",), "range": (" to ",), "%": ("percent",),
        "‰": ("per thousand",), "°": ("degree",), "°C": ("Celsius",), "°F": ("Fahrenheit",), "$": ("dollar", "cent"),
        "€": ("euro", "cent"), "£": ("pound", "pen"), "¥": ("yuan",), "₹": ("rupee",), "₩": ("won",),
        "₿": ("bitcoin",), "USD": ("U S dollar",), "元": ("yuan", "元"), "万": ("万", "thousand"), "km": ("kilometer",),
        "kg": ("kilogram",), "km/h": (" per hour",), "m²": ("square meter",), "=": ("equal",), "×": ("times",),
        "÷": ("divided by",), "≥": ("greater than or equal",), "≤": ("less than or equal",), "<": ("less than",),
        "~": ("about",), "≈": ("about",), "≠": ("not equal",), "√": ("root",), "power": ("power", "squared", "cubed"),
        "/": ("half", "third", "quarter", "th"), "#": ("number",), "&": (" and ",),
    },
    CHINESE: {
        "-": ("负", "零下", "减"), "+": ("加", "正"), "±": ("正负", "加减"), "range": ("到",), "%": ("百分",),
        "‰": ("千分",), "°": ("度",), "°C": ("摄氏",), "°F": ("华氏",), "$": ("美元",), "€": ("欧元",), "£": ("英镑",),
        "¥": ("元",), "₹": ("卢比",), "₩": ("韩元",), "₿": ("比特币",), "USD": ("美元",), "元": ("元",), "万": ("万",),
        "km": ("公里",), "kg": ("公斤",), "km/h": ("每小时",), "m²": ("平方米",), "=": ("等于",), "×": ("乘",),
        "÷": ("除以",), "≥": ("大于等于",), "≤": ("小于等于",), "<": ("小于",), "~": ("约",), "≈": ("约等于",),
        "≠": ("不等于",), "√": ("根号",), "power": ("方",), "/": ("分之",), "#": ("号",), "&": ("和",),
    },
}  # fmt: skip
NAMES = {"−": "-", "－": "-", "＋": "+"}
SIGNS = ["", "-", "−", "－", "+", "＋", "±"]
UNITS = ["", "%", "‰", "°", "°C", "°F", "km", "kg", "km/h", "元", "万"]
CURRENCIES = ["$", "€", "£", "¥", "₹", "₩", "₿"]
MAGNITUDES = ["", "", "k", "M", "B", " million", "bn", "万", "亿"]
DASHES = ["-", "–", "—", "~", "～"]


@dataclass(frozen=True)
class Run:
    """A written run, and the signs in it that must be heard."""

    written: str
    signs: frozenset[str]


def run(written: str, *signs: str) -> Run:
    return Run(written, frozenset(NAMES.get(sign, sign) for sign in signs if sign))


numbers = st.one_of(
    st.integers(0, 130).map(str),
    st.integers(0, 10**17).map(str),
    st.integers(1000, 10**13).map("{:,}".format),
    st.decimals(0, 10**6, places=2).map(str),
    st.decimals(0, 20, places=1).map(str),
    st.from_regex(r"0[0-9]{1,3}|[0-9]{1,30}|[0-9]{1,3}\.[0-9]{1,20}", fullmatch=True),
)
small_numbers = st.integers(1, 99)


@st.composite
def signed_quantities(draw: st.DrawFn) -> Run:
    sign, unit = draw(st.sampled_from(SIGNS)), draw(st.sampled_from(UNITS))
    space = draw(st.sampled_from(["", " "])) if unit else ""
    return run(f"{sign}{draw(numbers)}{space}{unit}", sign, unit)


@st.composite
def amounts_of_money(draw: st.DrawFn) -> Run:
    outer, inner = draw(st.sampled_from(["", "-", "+", "−"])), draw(st.sampled_from(["", "-", "+", "－"]))
    currency, number = draw(st.sampled_from(CURRENCIES)), draw(numbers)
    if draw(st.booleans()):
        return run(f"{outer}{number}{currency}", outer, currency)
    about = draw(st.sampled_from(["", "~", "≈", "≥", "<"])) if not outer else ""
    return run(
        f"{about}{outer}{currency}{inner}{number}{draw(st.sampled_from(MAGNITUDES))}", about, outer, inner, currency
    )


@st.composite
def ranges(draw: st.DrawFn) -> Run:
    low = draw(small_numbers)
    high = low + draw(small_numbers)
    unit, dash = draw(st.sampled_from(UNITS)), draw(st.sampled_from(DASHES))
    lower_unit = unit if unit in ("万", "元") else draw(st.sampled_from([unit, ""]))
    if draw(st.booleans()):
        return run(f"{low}{lower_unit}{dash}{high}{unit}", "range", unit)
    currency, minus = draw(st.sampled_from(CURRENCIES)), draw(st.sampled_from(["", "-"]))
    ends = draw(st.sampled_from([(f"{minus}{currency}", currency), (currency, ""), (f"{minus}", "")]))
    signs = ("-" if ends[0].startswith("-") else "", currency if currency in ends[0] else "")
    return run(f"{ends[0]}{low}{dash}{ends[1]}{high}", "range", *signs)


@st.composite
def other_kinds(draw: st.DrawFn) -> Run:
    a, b = draw(small_numbers), draw(small_numbers)
    year, month, day = draw(st.integers(1900, 2099)), draw(st.integers(1, 12)), draw(st.integers(1, 28))
    kinds = [
        run(f"{a}.5e-{b}", "-", "power"), run(f"{a}×10⁻⁹", "-", "power", "×"), run(f"2^{b}", "power"),
        run(f"{year}-{month:02}-{day:02}"), run(f"{year}/{month}/{day}"), run(f"{month}:{day:02}"), run(f"{year}s"),
        run(f"i5-{a}400"), run(f"RTX {a}90"), run(f"v{a}.{b}.0"), run(f"GPT-{a}"), run(f"Qwen2.5-{b}B"),
        run(f"{a}x+{b}=5", "+", "="), run(f"{a} + {b} = 7", "+", "="), run(f"√{a}", "√"), run(f"{a}²", "power"),
        run(f"x²+{a}", "power", "+"), run("H₂O"), run(f"1/{month + 1}", "/"), run(f"{a}m²", "m²"), run(f"{a}+", "+"),
        run(f"≥{a}%", "≥", "%"), run(f"~{a}", "~"), run(f"≈{a}", "≈"), run(f"#{a}", "#"), run(f"5 < {a}", "<"),
        run(f"{a}:{b}"), run(f"{a}th"), run(f"138-0013-{a:04}"), run(f"{a}W+", "+"), run(f"{a}′{b}″"),
        run(f"{a}°{b}′N", "°"), run(f"Q{month // 4 + 1} {year}"), run(f"${a}/hr", "$"), run(f"USD {a}", "USD"),
        run(f"${a}-${a + b}", "$", "range"), run(f"({a}+{b})×2", "+", "×"), run(f"{a}*{b}", "×"), run(f"FY{year}"),
        run(f"{a}/{b}/{year}"), run(f"{a}h{b}m"), run(f"UTC-{month}", "-"), run(f"{a}/{b + 100}"),
    ]  # fmt: skip
    return draw(st.sampled_from(kinds))


BEFORE = {
    ENGLISH: ["", "It is ", "(", "about ", "He said: ", "from ", "1. ", "Yes, ", "“", "# ", "the "],
    CHINESE: ["", "大约是", "（", "价格：", "约", "从", "第一，", "“", "他说 ", "气温是", "得到"],
}
AFTER = {
    ENGLISH: ["", ".", ", then", ")", " today.", "?", "; x", " people", " and ", "”"],
    CHINESE: ["", "。", "，然后", "）", "左右。", "？", "的人", "、", "”", " 吧"],
}
MIXTURE = "0123456789%‰°$€£¥₿+±≥≤≈≠÷√-., :/()~ kx个年万²，。"


@st.composite
def sentences(draw: st.DrawFn, language: Language) -> Run:
    runs = draw(
        st.lists(st.one_of(signed_quantities(), amounts_of_money(), ranges(), other_kinds()), min_size=1, max_size=3)
    )
    before, after = st.sampled_from(BEFORE[language]), st.sampled_from(AFTER[language])
    pieces = [f"{draw(before)}{part.written}{draw(after)}" for part in runs]
    joint = " and " if language is ENGLISH else "，"
    return Run(joint.join(pieces), frozenset[str]().union(*(part.signs for part in runs)))


def lost(run_: Run, language: Language) -> list[str]:
    """Return the digits that are left in the spoken form, and the signs that are not heard in it."""
    spoken = normalize_text(run_.written, language)
    signs: Iterable[str] = sorted(run_.signs)
    silent = [sign for sign in signs if not any(word in spoken for word in SIGN_WORDS[language][sign])]
    return [character for character in spoken if character.isdigit()] + silent


@pytest.mark.parametrize("language", list(SIGN_WORDS))
@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_sentence_loses_no_digit_and_no_sign(language: Language, data: st.DataObject) -> None:
    assert lost(data.draw(sentences(language)), language) == []


@pytest.mark.parametrize("language", list(SIGN_WORDS))
@settings(max_examples=400, deadline=None, derandomize=True)
@given(written=st.text(MIXTURE, max_size=12))
def test_a_mixture_of_signs_loses_none_but_dashes(language: Language, written: str) -> None:
    assert lost(run(written, *(set(written) & SIGN_WORDS[language].keys() - set("-/~万"))), language) == []


@pytest.mark.parametrize("language", list(SIGN_WORDS))
@pytest.mark.parametrize("unit", ["$-9M", "-$5", "¥-3", "+$5", "-5%", "10W+", "1-2", "(", "-", "9" * 40, "1/2-", "2x+"])
def test_a_long_text_of_one_kind_is_spoken(language: Language, unit: str) -> None:
    for separator in ("", " ", ", "):
        assert lost(run(separator.join([unit] * 400)), language) == []
