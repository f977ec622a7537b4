"""Cut text into pieces that can be spoken: a token stream into sentences, a long text into limited pieces.

A stream is read character by character, so the sentences never depend on how it was cut into deltas. Writing numbers
and signs out as words is `spoken/form.py`'s part.
"""

import re

from mirrorchat.engines import Language
from mirrorchat.text.sentences.boundaries import SentenceBoundaries
from mirrorchat.text.sentences.code_fences import CodeFences
from mirrorchat.text.sentences.markup import strip_markup
from mirrorchat.text.sentences.speech_length import is_short

# By default; below the 250 and 82 characters that XTTS takes at once, numbers being longer when they are written out.
SENTENCE_LIMIT_CHARS = {Language.ENGLISH: 200, Language.CHINESE: 70}

_JOINS_TIGHTLY = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef“”‘’…—]")


class SentenceSplitter:
    """Cuts a stream of text into speakable sentences as early as is safe.

    The first piece may be a clause (`clause_first`), so that the caller hears an answer begin before its first sentence
    is complete.
    Markup, emoji and code blocks are left out; a sentence of one or two words goes with the next one; one longer than
    `limit_chars` (by default as the language's voices take it) is cut at a clause, else between words. Not
    thread-safe: one cutter per stream.
    """

    def __init__(self, language: Language, *, limit_chars: int | None = None, clause_first: bool = True) -> None:
        self.language = language
        self._limit_chars = SENTENCE_LIMIT_CHARS[language] if limit_chars is None else limit_chars
        self._boundaries = SentenceBoundaries(
            self._limit_chars, is_short=lambda text: is_short(strip_markup(text)), clause_first=clause_first
        )
        self._fences = CodeFences()

    def feed(self, delta: str) -> list[str]:
        """Return the sentences that `delta` completes, in order."""
        raw = [sentence for character in delta for sentence in self._step(character)]
        return self._speakable(raw)

    def flush(self) -> list[str]:
        """Return what is left at the end of the stream; the cutter is then as new."""
        rest = self._fences.flush()
        raw = [sentence for character in rest for sentence in self._boundaries.push(character)]
        return self._speakable(raw + self._boundaries.flush())

    def _step(self, character: str) -> list[str]:
        return [sentence for kept in self._fences.push(character) for sentence in self._boundaries.push(kept)]

    def _speakable(self, raw: list[str]) -> list[str]:
        clean = [strip_markup(sentence) for sentence in raw]
        return [piece for sentence in clean for piece in self._within_limit(sentence) if _is_speakable(piece)]

    def _within_limit(self, sentence: str) -> list[str]:
        """Return `sentence` cut again where commas in place of line ends made it too long."""
        too_long = len(sentence) > self._limit_chars
        return split_text(sentence, self.language, self._limit_chars) if too_long else [sentence]


def split_text(text: str, language: Language, limit_chars: int) -> list[str]:
    """Return `text` in pieces of at most `limit_chars` characters, every character but white space kept in order.

    It is cut at sentences, then clauses, then words, and only a word longer than the limit inside. A piece of one or
    two words goes with a neighbour where both fit. Both languages' rules apply to every text, since replies mix them;
    `language` is for rules to come.

    Raises ValueError for a limit below 1.
    """
    if limit_chars < 1:
        raise ValueError(f"a piece needs at least 1 character, not {limit_chars}")
    boundaries = SentenceBoundaries(limit_chars, is_short=lambda text: False, clause_first=False)
    pieces = [piece for character in text for piece in boundaries.push(character)] + boundaries.flush()
    return _merge_short(pieces, limit_chars)


def _merge_short(pieces: list[str], limit_chars: int) -> list[str]:
    """Return `pieces` with each short one joined to the next, else to the one before, where both fit."""

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


def _is_speakable(text: str) -> bool:
    return any(character.isalnum() for character in text)
