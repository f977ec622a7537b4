"""English text normalization: what is said for mathematical notation."""

import re

from mirrorchat.text.normalization.english_numbers import fraction_words, number_words, power_words
from mirrorchat.text.normalization.english_words import SIGNS, UNITS
from mirrorchat.text.normalization.formula_words import FormulaWords

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "ο": "omicron",
    "π": "pi", "ρ": "rho", "σ": "sigma", "ς": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi",
    "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega", "ħ": "h bar",
}  # fmt: skip
_PHRASES = {
    "negative": "minus", "minus": "minus", ",": ",", "given": "given", "such that": "such that",
    "set": "the set of {0}", "fraction": "{0} over {1}", "choose": "{0} choose {1}", "index": "{0} sub {1}",
    "choices C": "{0} choose {1}", "choices A": "A {0} {1}",
    "mixed": "{0} and {1}", "atoms": "{0} {1}", "plus or minus": "plus or minus",
    "root": "the square root of {0}", "cube root": "the cube root of {0}", "nth root": "the root of order {1} of {0}",
    "absolute": "the absolute value of {0}", "applied": "{0} of {1}", "prime": "{0} prime",
    "double prime": "{0} double prime", "factorial": "{0} factorial", "star": "{0} star",
    "transposed": "{0} transpose", "vec": "vector {0}", "bar": "{0} bar", "hat": "{0} hat", "tilde": "{0} tilde",
    "dot": "{0} dot", "ddot": "{0} double dot", "log": "{0} base {1} of", "below": "{0} sub {1}",
    "sum": "the sum of", "sum over": "the sum over {0} of", "sum from to": "the sum from {0} to {1} of",
    "product": "the product of", "product over": "the product over {0} of",
    "product from to": "the product from {0} to {1} of", "integral": "the integral of",
    "integral over": "the integral over {0} of", "integral from to": "the integral from {0} to {1} of",
    "limit": "the limit of", "limit over": "the limit as {0} of", "limit from to": "the limit from {0} to {1} of",
    "matrix": "the matrix,", "row": "row {0}: {1},",
}  # fmt: skip
_FUNCTIONS = {"sin": "sine", "cos": "cosine", "tan": "tangent", "cot": "cotangent", "sec": "secant", "csc": "cosecant",
              "ln": "L N", "lg": "L G", "arcsin": "arc sine", "arccos": "arc cosine", "arctan": "arc tangent",
              "gcd": "G C D", "lcm": "L C M"}  # fmt: skip


def _power(exponent: str) -> str:
    return power_words(exponent) if re.fullmatch(r"-?\d{1,15}", exponent) else f" to the power of {exponent}"


def _join(words: list[str]) -> str:
    return re.sub(r" (?=[,)])|(?<=\() ", "", " ".join(words))


FORMULA_WORDS = FormulaWords(
    phrases=_PHRASES,
    signs={**SIGNS, "·": "times", "…": "dot dot dot", "approaches": "approaches"},
    letters=GREEK,
    functions=_FUNCTIONS,
    units=UNITS,
    number=number_words,
    power=_power,
    fraction=fraction_words,
    join=_join,
)
