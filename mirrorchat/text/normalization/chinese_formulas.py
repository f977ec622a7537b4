"""Mandarin text normalization: what is said for mathematical notation."""

import re

from mirrorchat.text.normalization.chinese_numbers import cardinal, number_words, power_words
from mirrorchat.text.normalization.chinese_words import SIGNS, UNITS
from mirrorchat.text.normalization.formula_words import FormulaWords
from mirrorchat.text.sentences.speech_length import HAN

GREEK = {
    "α": "阿尔法", "β": "贝塔", "γ": "伽马", "δ": "德尔塔", "ε": "艾普西龙", "ϵ": "艾普西龙", "ζ": "泽塔", "η": "伊塔",
    "θ": "西塔", "ι": "约塔", "κ": "卡帕", "λ": "兰姆达", "μ": "缪", "ν": "纽", "ξ": "克西", "ο": "奥密克戎",
    "π": "派", "ρ": "柔", "σ": "西格玛", "ς": "西格玛", "τ": "陶", "υ": "宇普西龙", "φ": "斐", "χ": "希",
    "ψ": "普西", "ω": "欧米伽", "Γ": "伽马", "Δ": "德尔塔", "Θ": "西塔", "Λ": "兰姆达", "Ξ": "克西", "Π": "派",
    "Σ": "西格玛", "Φ": "斐", "Ψ": "普西", "Ω": "欧米伽", "ħ": "h 拔",
}  # fmt: skip
_PHRASES = {
    "negative": "负", "minus": "减", ",": "，", "given": "给定", "such that": "满足",
    "set": "集合{0}", "fraction": "{1}分之{0}", "choose": "{0}选{1}", "index": "{0} {1}",
    "choices C": "C {0}取{1}", "choices A": "A {0}取{1}",
    "mixed": "{0}又{1}", "atoms": "{0} {1}", "plus or minus": "加减",
    "root": "根号{0}", "cube root": "三次根号{0}", "nth root": "{1}次根号{0}",
    "absolute": "{0}的绝对值", "applied": "{0} {1}", "prime": "{0}一撇",
    "double prime": "{0}两撇", "factorial": "{0}的阶乘", "star": "{0}星",
    "transposed": "{0}的转置", "vec": "向量{0}", "bar": "{0}拔", "hat": "{0}帽", "tilde": "{0}波浪",
    "dot": "{0}点", "ddot": "{0}两点", "log": "{0} {1}，", "below": "{0} {1} ",
    "sum": "求和", "sum over": "对{0}求和", "sum from to": "{0}到{1}求和",
    "product": "求积", "product over": "对{0}求积", "product from to": "{0}到{1}求积",
    "integral": "积分", "integral over": "在{0}上积分", "integral from to": "从{0}到{1}积分",
    "limit": "极限", "limit over": "当{0}时的极限", "limit from to": "从{0}到{1}的极限",
    "matrix": "矩阵，", "row": "第{0}行{1}，",
}  # fmt: skip
_SPACE_IN_HAN = re.compile(rf"(?<=[{HAN}]) (?=[{HAN}])")
_LATIN_END = re.compile(r"[A-Za-z0-9]$")
_LATIN_START = re.compile(r"[A-Za-z0-9]")


def _power(exponent: str) -> str:
    return power_words(exponent) if re.fullmatch(r"-?\d{1,15}", exponent) else f"的{exponent}次方"


def _join(words: list[str]) -> str:
    """Return `words` in one row, with a space only between letters."""
    row = ""
    for word in words:
        row += " " if _LATIN_END.search(row[-1:]) and _LATIN_START.match(word) else ""
        row += word
    return _SPACE_IN_HAN.sub("", row)


FORMULA_WORDS = FormulaWords(
    phrases=_PHRASES,
    signs={**SIGNS, "·": "乘", "…": "点点点", "approaches": "趋于"},
    letters=GREEK,
    functions={},
    units=UNITS,
    number=number_words,
    power=_power,
    fraction=lambda above, below: f"{cardinal(below)}分之{cardinal(above)}",
    join=_join,
)
