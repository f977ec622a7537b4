"""The splitter for XTTS: pieces within the limits of the model, and not so short that it adds sounds of its own.

No text is lost.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from mirrorchat.engines import Language
from mirrorchat.text.splitter import split_text

# Beyond these lengths XTTS speeds up or breaks off (`VoiceBpeTokenizer.char_limits` of coqui-tts).
CHARACTER_LIMITS = {Language.ENGLISH: 250, Language.CHINESE: 82}
# XTTS garbles a piece with fewer words (characters in Chinese), or adds invented speech to it.
FEWEST_WORDS = {Language.ENGLISH: 3, Language.CHINESE: 4}

_HAN = r"\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+(?:['’][^\W{_HAN}]+)*")


@dataclass(frozen=True)
class TextSplitter:
    """Splits text for one language into pieces of less than `token_limit` tokens.

    `count_tokens` returns the number of tokens that the model's tokenizer makes of a text.
    """

    language: Language
    count_tokens: Callable[[str], int]
    token_limit: int

    def split(self, text: str) -> list[str]:
        """Return the pieces of `text` (spoken form) in order; none if it has no word."""
        if not _WORD.search(text):
            return []
        pieces = split_text(text.strip(), self.language, CHARACTER_LIMITS[self.language])
        return self._merge_short([part for piece in pieces for part in self._within_limits(piece)])

    def _fits(self, piece: str) -> bool:
        limit = CHARACTER_LIMITS[read_as(piece, self.language)]
        return len(piece) <= limit and self.count_tokens(piece) < self.token_limit

    def _within_limits(self, piece: str) -> list[str]:
        """Return the parts of `piece`, which is halved until every part fits."""
        if len(piece) <= 1 or self._fits(piece):
            return [piece]
        half = math.ceil(len(piece) / 2)
        return [smaller for part in split_text(piece, self.language, half) for smaller in self._within_limits(part)]

    def _merge_short(self, pieces: list[str]) -> list[str]:
        merged: list[str] = []
        for piece in pieces:
            if merged and (self._is_short(piece) or self._is_short(merged[-1])):
                merged[-1:] = self._merge(merged[-1], piece)
            else:
                merged.append(piece)
        return merged

    def _merge(self, first: str, second: str) -> list[str]:
        """Return both as one piece, or split more evenly if one piece would be too long."""
        joined = first + ("" if self.language is Language.CHINESE else " ") + second
        if self._fits(joined):
            return [joined]
        parts = split_text(joined, self.language, math.ceil(len(joined) * 0.6))
        even = len(parts) == 2 and all(self._fits(part) and not self._is_short(part) for part in parts)
        return parts if even else [first, second]

    def _is_short(self, piece: str) -> bool:
        return len(_WORD.findall(piece)) < FEWEST_WORDS[self.language]


def read_as(piece: str, language: Language) -> Language:
    """Return the language in which XTTS reads `piece`: Chinese characters would be unknown tokens in English."""
    return Language.CHINESE if re.search(f"[{_HAN}]", piece) else language
