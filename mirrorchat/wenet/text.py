"""The text of WeNet's tokens, as a person writes it, and the times of its words.

WeNet's vocabularies follow SentencePiece (Kudo and Richardson, arXiv 1808.06226): `▁` begins a word. A Chinese
character is a token of its own.
"""

import re
from collections.abc import Sequence

from mirrorchat.engines import Language, SpokenToken, TimedWord

SPECIAL = re.compile(r"<[^<>]*>")  # `<blank>`, `<unk>`, `<sos/eos>`, `<|en|>`, which are no text
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W\d_{_CJK}]"
_BETWEEN_SCRIPTS = re.compile(rf"(?<=[{_CJK}])(?={_LETTER})|(?<={_LETTER})(?=[{_CJK}])")
_WITHIN_CJK = re.compile(rf"(?<=[{_CJK}]) +(?=[\d{_CJK}])|(?<=\d) +(?=[{_CJK}])")
_LONE_I = re.compile(r"(?<![\w'])i(?![\w-])")
_OPEN_WORD = re.compile(rf"[^\s{_CJK}]+\Z")
_WIDE = re.compile(rf"[{_CJK}]")
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")


def written(tokens: Sequence[str], language: Language) -> str:
    """Return the text of `tokens`, as a person writes it.

    English is in lower case, with a capital at the start and for "I". Chinese has no spaces, except around words in
    Latin letters, which keep their case.

    Example: `written(["▁how", "▁are", "▁you"], Language.ENGLISH)` is "How are you".
    """
    return _tidy(_joined(tokens), language)


def settled(tokens: Sequence[str], language: Language) -> str:
    """Return `written(tokens)` without a last word or number that further tokens could make longer.

    A Chinese character is a whole word. `written` of these tokens and any later ones begins with the returned text.
    """
    return _tidy(_OPEN_WORD.sub("", _joined(tokens)), language)


def timed_words(text: str, tokens: Sequence[SpokenToken]) -> tuple[TimedWord, ...]:
    """Return the words of `text`, which `tokens` spell, with their times in seconds.

    The words are spelled by the tokens where `text` has another number of words.
    """
    groups = _tokens_by_word(tokens)
    words = _WORD.findall(text)
    if len(words) != len(groups):
        words = ["".join(token.text for token in group).replace("▁", "") for group in groups]
    pairs = zip(words, groups, strict=True)
    return tuple(TimedWord(word, group[0].start_s, group[-1].end_s) for word, group in pairs)


def _tokens_by_word(tokens: Sequence[SpokenToken]) -> list[list[SpokenToken]]:
    """Return the tokens of each word: `▁` or a special token ends a word, a Chinese character is a whole one."""
    groups: list[list[SpokenToken]] = []
    is_open = False
    for token in tokens:
        if SPECIAL.fullmatch(token.text) or token.text == "▁":
            is_open = False
            continue
        is_wide = bool(_WIDE.search(token.text))
        if is_open and not is_wide and not token.text.startswith("▁"):
            groups[-1].append(token)
        else:
            groups.append([token])
        is_open = not is_wide
    return groups


def _joined(tokens: Sequence[str]) -> str:
    return "".join(" " if SPECIAL.fullmatch(token) else token.replace("▁", " ") for token in tokens)


def _tidy(text: str, language: Language) -> str:
    text = _WITHIN_CJK.sub("", _BETWEEN_SCRIPTS.sub(" ", " ".join(text.split())))
    text = " ".join(text.split())
    if language is Language.ENGLISH:
        text = _LONE_I.sub("I", text.lower())
        text = text[:1].upper() + text[1:]
    return text
