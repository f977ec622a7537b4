"""How much there is to say in a text, and in which language: its Chinese characters and its words in other scripts."""

import re

from mirrorchat.engines import Language

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""The Chinese characters, as the ranges of a character class."""
_HAN_CHARACTER = re.compile(f"[{HAN}]")
_WORD = re.compile(rf"[^\W{HAN}]+(?:['’.,][^\W\u3400-\u9fff]+)*")

# Two scales. In the first a word counts 2 and a Chinese character 1, in the second 3 and 2.
_SHORT_UNITS = 5  # of the first scale: XTTS garbles one or two words alone
_CLAUSE_UNITS = 12  # of the second: four words, six characters
_ITEM_UNITS = 6  # of the second: two words, three characters


def starts_with_han(text: str) -> bool:
    """Return whether the first character of `text`, which may be empty, is a Chinese one."""
    return _HAN_CHARACTER.match(text) is not None


def count_words(text: str) -> int:
    """Return the number of words in `text` that are not in Chinese characters."""
    return len(_WORD.findall(text))


def count_han(text: str) -> int:
    """Return the number of Chinese characters in `text`."""
    return len(_HAN_CHARACTER.findall(text))


def language_of(text: str) -> Language:
    """Return the language of `text`: Chinese if it has at least as many Chinese characters as other words."""
    han = count_han(text)
    return Language.CHINESE if han and han >= count_words(text) else Language.ENGLISH


def is_short(text: str) -> bool:
    """Return whether `text` has one or two words, and should be spoken together with a neighbour."""
    return count_han(text) + 2 * count_words(text) < _SHORT_UNITS


def is_list_item(text: str) -> bool:
    """Return whether `text`, between two commas, is an item of a list and not a clause: two words at most."""
    return _clause_units(text) <= _ITEM_UNITS


def is_whole_clause(text: str) -> bool:
    """Return whether `text`, a part of a sentence, is long enough to be synthesized well by itself."""
    return _clause_units(text) >= _CLAUSE_UNITS


def _clause_units(text: str) -> int:
    return 2 * count_han(text) + 3 * count_words(text)
