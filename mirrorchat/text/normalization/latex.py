"""The commands of LaTeX that stand for signs, names and layout."""

FUNCTIONS = ("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc", "log",
             "ln", "lg", "exp", "max", "min", "sup", "inf", "det", "gcd", "lcm", "deg", "dim", "mod")  # fmt: skip
_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "vartheta": "θ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "φ", "varphi": "φ", "chi": "χ",
    "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π",
    "Sigma": "Σ", "Upsilon": "Υ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω",
}  # fmt: skip
SIGN_COMMANDS = {
    **_GREEK,
    "times": "×", "cdot": "·", "ast": "×", "star": "×", "div": "÷", "pm": "±", "mp": "∓", "le": "≤", "leq": "≤",
    "leqslant": "≤", "ge": "≥", "geq": "≥", "geqslant": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "simeq": "≈",
    "equiv": "≡", "cong": "≅", "sim": "∼", "propto": "∝", "ll": "≪", "gg": "≫", "lt": "<", "gt": ">",
    "infty": "∞", "partial": "∂", "nabla": "∇", "to": "→", "rightarrow": "→", "longrightarrow": "→", "mapsto": "→",
    "leftarrow": "←", "leftrightarrow": "↔", "Rightarrow": "⇒", "implies": "⇒", "Longrightarrow": "⇒",
    "Leftrightarrow": "⇔", "iff": "⇔", "in": "∈", "notin": "∉", "subset": "⊂", "subseteq": "⊆", "cup": "∪",
    "cap": "∩", "emptyset": "∅", "varnothing": "∅", "forall": "∀", "exists": "∃", "land": "∧", "wedge": "∧",
    "lor": "∨", "vee": "∨", "neg": "¬", "lnot": "¬", "therefore": "∴", "because": "∵", "angle": "∠",
    "triangle": "△", "perp": "⊥", "parallel": "∥", "mid": "|", "lvert": "|", "rvert": "|", "vert": "|",
    "ldots": "…", "cdots": "…", "dots": "…", "vdots": "…", "ddots": "…", "circ": "∘", "degree": "°", "prime": "′",
    "sum": "∑", "prod": "∏", "int": "∫", "iint": "∬", "oint": "∮", "lim": "lim", "hbar": "ħ", "ell": "l",
    "oplus": "⊕", "uparrow": "↑", "downarrow": "↓", "setminus": "∖", "langle": "(", "rangle": ")", "lfloor": "(",
    "rfloor": ")", "lceil": "(", "rceil": ")", "top": "⊤", "colon": ":", "pmod": "mod", "bmod": "mod",
}  # fmt: skip
"""Commands and the sign that each stands for; the parser knows the sign."""
TEXT_COMMANDS = frozenset({"text", "textbf", "textit", "textrm", "mbox", "operatorname", "mathrm", "rm", "ce"})
"""Commands whose argument is words, or a unit."""
ACCENTS = frozenset({"vec", "overrightarrow", "bar", "overline", "hat", "widehat", "tilde", "dot", "ddot"})
IGNORED = frozenset({
    "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "textstyle",
    "limits", "nolimits", "quad", "qquad", "mathbf", "mathbb", "mathcal", "mathit", "mathsf", "boldsymbol", "bm",
    "boxed", "nonumber", "notag", "hline", "phantom", "hspace", "vspace", "underbrace", "overbrace", "underline",
    "displaylimits", "scriptstyle", "small", "large",
})  # fmt: skip
"""Commands that say nothing: sizes, typefaces, spaces. Their argument, if any, is read as usual."""
