"""The tokens of mathematical notation, plain or LaTeX: each sign in one form, layout left out."""

import re

from mirrorchat.text.normalization.latex import FUNCTIONS, IGNORED, SIGN_COMMANDS

_TOKEN = re.compile(
    r"\\[A-Za-z]{1,30}|\\.|\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,15})?"
    rf"|(?:lim|{'|'.join(FUNCTIONS)})(?=[A-Za-z]?(?![A-Za-z]))|\s{{1,99}}|."
)


def tokens_of(notation: str) -> list[str]:
    """Return the tokens of `notation`; white space between them is a token, too."""
    tokens = map(_canonical, _TOKEN.findall(notation))
    return [token for token in tokens if token and not (token[0] == "\\" and token[1:] in IGNORED)]


def _canonical(token: str) -> str:
    """Return the sign that a command stands for, nothing for a thin space, else the token."""
    if token.startswith("\\"):
        name = token[1:]
        if name in SIGN_COMMANDS:
            return SIGN_COMMANDS[name]
        if name in (",", ";", "!", ":", " ", "/"):
            return " "
        if name in ("|", "%", "_", "#", "$", "&"):
            return {"|": "|", "%": "%"}.get(name, "")
    return {"*": "×", "~": " ", "＜": "<", "＞": ">", "−": "-"}.get(token, token)
