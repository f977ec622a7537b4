"""How much there is to say in a text: XTTS garbles one or two words alone."""

import re

_SHORT_UNITS = 5  # a Latin word counts 2, a Chinese character 1
_CLAUSE_UNITS = 12  # a Latin word counts 3, a Chinese character 2: four words, six characters
_ITEM_UNITS = 6  # on the same scale: two words, three characters

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile(r"[^\W\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+(?:['’.,][^\W\u3400-\u9fff]+)*")


def is_short(text: str) -> bool:
    """Return whether `text` had better be spoken with a neighbour: one or two words."""
    return len(HAN.findall(text)) + 2 * len(_LATIN_WORD.findall(text)) < _SHORT_UNITS


def is_list_item(text: str) -> bool:
    """Return whether `text`, between two commas, is rather an item of a list than a clause: two words at most."""
    return 2 * len(HAN.findall(text)) + 3 * len(_LATIN_WORD.findall(text)) <= _ITEM_UNITS


def is_whole_clause(text: str) -> bool:
    """Return whether `text`, a part of a sentence, is long enough to be spoken well by itself."""
    return 2 * len(HAN.findall(text)) + 3 * len(_LATIN_WORD.findall(text)) >= _CLAUSE_UNITS


def count_latin_words(text: str) -> int:
    """Return how many words in letters other than Chinese ones `text` has."""
    return len(_LATIN_WORD.findall(text))
