"""The splitter: a stream of text becomes sentences for the synthesizer, a long text becomes pieces of limited length.

A stream is read character by character, so the sentences do not depend on its deltas. `normalization/` turns numbers
and signs into words afterwards.
"""

import re

from mirrorchat.engines import Language
from mirrorchat.text.formulas import Formulas
from mirrorchat.text.normalization.characters import with_plain_characters
from mirrorchat.text.normalization.scripts import has_readable
from mirrorchat.text.sentences.boundaries import SentenceBoundaries
from mirrorchat.text.sentences.code_fences import CodeFences
from mirrorchat.text.sentences.entities import Entities
from mirrorchat.text.sentences.markup import strip_markup
from mirrorchat.text.sentences.speech_length import is_short
from mirrorchat.text.sentences.tables import Tables

# Defaults. XTTS takes 250 and 82 characters at once, and normalization makes numbers longer.
SENTENCE_LIMIT_CHARS = {Language.ENGLISH: 200, Language.CHINESE: 70}

_JOINS_TIGHTLY = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef“”‘’…—]")


class SentenceSplitter:
    """Splits a stream of text into sentences for the synthesizer, each as early as possible.

        splitter = SentenceSplitter(Language.ENGLISH)
        for delta in chat:
            for sentence in splitter.feed(delta): ...
        for sentence in splitter.flush(): ...

    With `clause_first` the first piece may be a clause, so that speech begins before the first sentence is complete.
    Formulas in LaTeX become words, HTML entities characters. Markup, emoji and code blocks are removed. A sentence of
    one or two words is joined to the next one. A sentence longer than `limit_chars` (default: SENTENCE_LIMIT_CHARS) is
    split at a clause, else between words. Not thread-safe: each stream needs a splitter of its own.
    """

    def __init__(self, language: Language, *, limit_chars: int | None = None, clause_first: bool = True) -> None:
        self.language = language
        self._limit_chars = SENTENCE_LIMIT_CHARS[language] if limit_chars is None else limit_chars
        self._boundaries = SentenceBoundaries(
            self._limit_chars, is_short=lambda text: is_short(strip_markup(text)), clause_first=clause_first
        )
        # What text passes on its way to the boundaries; each may hold back a few characters.
        self._stages = (Entities(), CodeFences(), Formulas(language), Tables())

    def feed(self, delta: str) -> list[str]:
        """Return the sentences that `delta` completes, in order."""
        for stage in self._stages:
            delta = stage.push(delta)
        return self._speakable(self._boundaries.push(delta))

    def flush(self) -> list[str]:
        """End the stream: return the remaining sentences. The splitter can then take a new stream."""
        rest = ""
        for stage in self._stages:
            rest = stage.push(rest) + stage.flush()
        return self._speakable(self._boundaries.push(rest) + self._boundaries.flush())

    def _speakable(self, raw: list[str]) -> list[str]:
        clean = [strip_markup(sentence) for sentence in raw]
        return [
            piece
            for sentence in clean
            for piece in self._within_limit(sentence)
            if has_readable(with_plain_characters(piece))
        ]

    def _within_limit(self, sentence: str) -> list[str]:
        """Split `sentence` again if the commas that replaced its line ends made it too long."""
        too_long = len(sentence) > self._limit_chars
        return split_text(sentence, self.language, self._limit_chars) if too_long else [sentence]


def split_text(text: str, language: Language, limit_chars: int) -> list[str]:
    """Split `text` into pieces of at most `limit_chars` characters, without losing a character other than white space.

    Pieces end at sentences, else at clauses, else at words; only a word longer than the limit is split. A piece of one
    or two words is joined to a neighbour if both fit. The rules of both languages apply to every text, because answers
    mix them; `language` is reserved for rules to come.

    Raises ValueError for a limit below 1.
    """
    if limit_chars < 1:
        raise ValueError(f"a piece needs at least 1 character, not {limit_chars}")
    boundaries = SentenceBoundaries(limit_chars, is_short=lambda text: False, clause_first=False)
    return _merge_short(boundaries.push(text) + boundaries.flush(), limit_chars)


def _merge_short(pieces: list[str], limit_chars: int) -> list[str]:
    """Join each short piece to the next one, else to the previous one, if both fit."""

    def fits(left: str, right: str, short: str) -> bool:
        return is_short(short) and len(_join(left, right)) <= limit_chars

    for joins_next in (True, False):
        merged: list[str] = []
        for piece in pieces:
            if merged and fits(merged[-1], piece, short=merged[-1] if joins_next else piece):
                merged[-1] = _join(merged[-1], piece)
            else:
                merged.append(piece)
        pieces = merged
    return pieces


def _join(left: str, right: str) -> str:
    tight = _JOINS_TIGHTLY.match(left[-1]) and _JOINS_TIGHTLY.match(right[0])
    return left + ("" if tight else " ") + right
