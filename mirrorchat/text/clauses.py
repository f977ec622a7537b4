"""Clauses of limited length: a sentence is cut where a reader would pause, so that slow speech can begin early.

The best place is after a mark, then before a word that begins a phrase, then between any two words. Chinese is written
without spaces, so the caller divides it into words. A word, a number and its measure word stay whole.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from mirrorchat.text.sentences.first_clause import CLOSERS
from mirrorchat.text.sentences.speech_length import HAN, starts_with_han

Words = Callable[[str], list[str]]
"""Divides text, which consists of Chinese characters only, into words."""

_RUN = re.compile(rf"[{HAN}]{{1,500}}|\s{{1,500}}|[^\s{HAN}]{{1,500}}")
_MARKS = frozenset("，、；：。！？…—,;:.!?")
_OPENERS = frozenset("“‘（《「『【([{")
_NUMERALS = frozenset("零〇一二三四五六七八九十百千万亿两几点第")
# These belong to the word before them: particles, and nouns of place or time.
_FOLLOWERS = frozenset("的了着过吗呢吧啊呀们得地里上下中后前时")
_PHRASE_STARTS = frozenset(
    word
    for line in (
        "在 从 向 对 给 把 被 让 跟 和 与 用 以 按 比 为 为了 因为 因此 由于 如果 虽然 但 但是 不过",
        "而 而且 所以 然后 或 或者 并 并且 就 都 也 还 再 才 会 能 可 可以 可能 应该",
        "需要 必须 要 是 有 没有 通过 根据 关于",
        "and but or because so which that when while where if as than with to for in on at by from of is are was",
    )
    for word in line.split()
)
_SEEN_CHARS = 16  # before a place
_SHORTEST_REST = 3  # letters or characters: a word alone sounds odd


_ANYWHERE, _PHRASE, _MARK = range(3)  # how good a place is
_EARLIEST = {_ANYWHERE: 0.4, _PHRASE: 0.4, _MARK: 0.25}  # of the limit: a place nearer to the start is passed over


def spoken_length(text: str) -> int:
    """Return the number of letters, digits and Chinese characters in `text`."""
    return sum(map(str.isalnum, text))


def cut_clause(text: str, limit: int, words: Words) -> tuple[str, str]:
    """Return the first clause of `text`, with at most `limit` letters, digits and Chinese characters, and the rest.

    `words` divides Chinese text. The rest is empty for a text within the limit, and for one without a place to cut; a
    clause is longer than the limit where no earlier place keeps words and numbers whole.
    """
    if spoken_length(text) <= limit:
        return text, ""
    places = list(_places(text, words))
    fitting = [place for place in places if place[2] <= limit]
    late_enough = [place for place in fitting if place[2] >= limit * _EARLIEST[place[0]]]
    if not places:
        return text, ""
    end = max(late_enough)[1] if late_enough else (fitting[-1] if fitting else places[0])[1]
    return text[:end].strip(), text[end:].strip()


def _places(text: str, words: Words) -> Iterator[tuple[int, int, int]]:
    """Yield the places between words: how good each is, its position, and the spoken length before it."""
    position, length, whole = 0, 0, spoken_length(text)
    for unit, following in pairwise(_units(text, words)):
        position += len(unit)
        length += spoken_length(unit)
        before = text[max(0, position - _SEEN_CHARS) : position].rstrip()
        if length and whole - length >= _SHORTEST_REST and _is_between_words(before, following):
            yield _rank(before, following), position, length


def _units(text: str, words: Words) -> list[str]:
    """Return the Chinese words and the runs of other characters, each with the white space behind it."""
    units: list[str] = []
    for run in _RUN.findall(text):
        if run.isspace() and units:
            units[-1] += run
        else:
            units += words(run) if starts_with_han(run) else [run]
    return units


def _is_between_words(before: str, following: str) -> bool:
    left, right = before[-1:], following[:1]
    if left in _OPENERS or not (right.isalnum() or right in _OPENERS) or following.strip() in _FOLLOWERS:
        return False
    is_number = left.isdigit() or left in _NUMERALS
    return not is_number or right in _OPENERS


def _rank(before: str, following: str) -> int:
    if before.rstrip(CLOSERS)[-1:] in _MARKS:
        return _MARK
    return _PHRASE if following.strip() in _PHRASE_STARTS else _ANYWHERE
