"""Where a text's first clause ends, so that speech can begin before the first sentence is complete."""

import re
from collections.abc import Callable

from mirrorchat.text.sentences.speech_length import HAN, is_list_item, is_short, is_whole_clause

_CLOSERS = ')]}）】」』》”’"`*_~'  # what stays with the clause that it closes
_MARK = re.compile(rf"(?:[,;:，、：；—…]|(?<!\.)\.{{3,9}}| –)[{re.escape(_CLOSERS)}]{{0,4}}$")
_WEAK = frozenset(",，、")  # between the items of a list, too
_NUMBER_BEFORE = re.compile(r"\d ?[,:，：—–]$")
_PLACE_BEFORE = re.compile(r"\b(?:in|at|from|of|to|near|for) (?:[A-Z][\w.]{1,20} ?){1,3},$")  # Paris, France
_BELONGS_TO_CLAUSE = re.compile(r"\s*(?:etc|Jr|Sr|Inc|Ltd|Co|LLC|Esq|Ph\.?D|M\.?D)\b")
_UNFINISHED_MARKUP = re.compile(r"(?:<[^<>]{0,200}|\]\([^()]{0,1000})$")  # a tag, a link's address
_OPENED_QUOTE = re.compile(r"(?<![\w.,!?])'(?=\w)")
_CLOSED_QUOTE = re.compile(r"(?<=[\w.,!?])'(?!\w)")


class FirstClause:
    """Finds where the first clause of a text ends, character by character.

    A clause has at least four words (six Chinese characters), and more than two words must have begun after it. A
    list of single words is not cut inside. `is_short` says so of raw text.
    """

    def __init__(self, is_short: Callable[[str], bool]) -> None:
        self._is_short = is_short
        self._mark = 0  # after a mark that the next character decides on; 0: none
        self._part = 0  # after the last mark that ends a part of the sentence
        self._end = 0  # after a whole clause, once what follows it is long enough; 0: none

    def push(self, text: str, inside: bool) -> int:
        """Take the last character of `text`; return where the clause ends, 0 for not yet.

        `inside` is whether a quote or a bracket is open.
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
        """Find out, now that a character is known after the mark, whether the mark ends a clause."""
        mark, self._mark = self._mark, 0
        if len(text) - 1 == mark and _MARK.search(text[-16:]):
            return  # it goes on: "……", "——", a closing quote
        head, following = text[:mark].rstrip(_CLOSERS), text[-1]
        if not _ends_part(head, following, apart=len(text) - 1 > mark):
            return
        is_item = head[-1] in _WEAK and is_list_item(text[self._part : mark])
        self._part = mark
        if is_item and text[: self._end].rstrip(_CLOSERS)[-1:] in _WEAK:
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
    """Return whether the mark at the end of `head` stands between words: not in 1,000, 3:30, a.m. or an address."""
    if _NUMBER_BEFORE.search(head) and following.isdigit():
        return False
    if following.isupper() and _PLACE_BEFORE.search(head[-80:]):
        return False
    if head[-1] in ",;:.–" and not apart:
        return head[-1] != "–" and bool(HAN.match(following) or HAN.match(head.rstrip(",;:.")[-1:]))
    return True


def _is_complete(clause: str) -> bool:
    """Return whether no quote in single marks and no row of a table is cut."""
    opened = [match.start() for match in _OPENED_QUOTE.finditer(clause)]
    if opened and not _CLOSED_QUOTE.search(clause, opened[-1] + 1):
        return False
    return not clause[clause.rfind("\n") + 1 :].lstrip().startswith("|")
