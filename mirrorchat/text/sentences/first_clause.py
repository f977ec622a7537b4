"""The end of the first clause of streamed text: speech can begin before the first sentence is complete."""

import re
from collections.abc import Callable

from mirrorchat.text.sentences.speech_length import is_list_item, is_short, is_whole_clause, starts_with_han

CLOSERS = ')]}）】」』》”’"`*_~'  # closing marks stay with the clause or sentence before them
_MARK = re.compile(rf"(?:[,;:，、：；—…]|(?<!\.)\.{{3,9}}| –)[{re.escape(CLOSERS)}]{{0,4}}$")
_WEAK = frozenset(",，、")  # these also separate the items of a list
_NUMBER_BEFORE = re.compile(r"(?:\d ?[,:，：]|\d ?[^\d\s,，。]{0,8} ?[—–]{1,2})$")  # the dash of a range: 3岁—6岁
_PLACE_BEFORE = re.compile(r"\b(?:in|at|from|of|to|near|for) (?:[A-Z][\w.]{1,20} ?){1,3},$")  # Paris, France
_BELONGS_TO_CLAUSE = re.compile(r"\s*(?:etc|Jr|Sr|Inc|Ltd|Co|LLC|Esq|Ph\.?D|M\.?D)\b")
_UNFINISHED_MARKUP = re.compile(r"(?:<[^<>]{0,200}|\]\([^()]{0,1000})$")  # a tag, a link's address
_OPENED_QUOTE = re.compile(r"(?<![\w.,!?])'(?=\w)")
_CLOSED_QUOTE = re.compile(r"(?<=[\w.,!?])'(?!\w)")


class FirstClause:
    """Finds the end of the first clause of a stream.

    A clause has at least four words (six Chinese characters), and more than two words must follow it. A list of single
    words is not split. `is_short` tells whether raw text (with its markup) is short.
    """

    def __init__(self, is_short: Callable[[str], bool]) -> None:
        self._is_short = is_short
        self._mark = 0  # position after a mark, which the next character confirms; 0: none
        self._part = 0  # position after the last mark that ends a part of the sentence
        self._end = 0  # position after a whole clause; it is returned once enough text follows; 0: none

    def push(self, text: str, inside: bool) -> int:
        """Read the last character of `text`. Return the end of the clause, 0 while it is unknown.

        `inside` tells whether a quote or a bracket is open.
        """
        apart = text[-1].isspace()
        if self._mark and not apart:
            self._decide(text)
        if not inside and _MARK.search(text[-16:]):
            self._mark = len(text)
        if self._end and text[-1].isalnum() and self._follows_well(text[self._end :]):
            return self._end
        return 0

    def _decide(self, text: str) -> None:
        """Decide by the character after the mark whether the mark ends a clause."""
        mark, self._mark = self._mark, 0
        if len(text) - 1 == mark and _MARK.search(text[-16:]):
            return  # the mark continues: "……", "——", a closing quote
        head, following = text[:mark].rstrip(CLOSERS), text[-1]
        if not _ends_part(head, following, apart=len(text) - 1 > mark):
            return
        start = max(self._part, text.rfind("\n", 0, mark) + 1)
        part = text[start:mark]
        is_label = head[-1] in ":：" and start > 0 and not is_whole_clause(part)  # "Name: Ann, Age: 30"
        is_item = is_label or (head[-1] in _WEAK and is_list_item(part))
        self._part = mark
        if is_item and text[: self._end].rstrip(CLOSERS)[-1:] in _WEAK:
            self._end = 0
        elif not self._end and not is_item and is_whole_clause(text[:mark]) and _is_complete(text[:mark]):
            self._end = mark

    def _follows_well(self, rest: str) -> bool:
        if is_short(rest) or self._is_short(_UNFINISHED_MARKUP.sub("", rest)):
            return False
        if _BELONGS_TO_CLAUSE.match(rest):
            self._end = 0
        return self._end > 0


def _ends_part(head: str, following: str, *, apart: bool) -> bool:
    """Return whether the mark at the end of `head` separates words, unlike those in 1,000, 3:30, a.m. or an address."""
    if _NUMBER_BEFORE.search(head[-16:]) and (following.isdigit() or following in "-$€£¥"):
        return False
    if following in "=+×÷≈<>≤≥":  # 1 + 2 + ... + n
        return False
    if following.isupper() and _PLACE_BEFORE.search(head[-80:]):
        return False
    if head[-1] in ",;:.–" and not apart:
        return head[-1] != "–" and (starts_with_han(following) or starts_with_han(head.rstrip(",;:.")[-1:]))
    return True


def _is_complete(clause: str) -> bool:
    """Return whether `clause` ends neither inside single quotation marks nor inside a row of a table."""
    opened = [match.start() for match in _OPENED_QUOTE.finditer(clause)]
    if opened and not _CLOSED_QUOTE.search(clause, opened[-1] + 1):
        return False
    return not clause[clause.rfind("\n") + 1 :].lstrip().startswith("|")
