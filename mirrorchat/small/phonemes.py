"""Text as phonemes, in the alphabet of Kokoro and hibari: Chinese characters as Mandarin, Latin words as English.

hibari-tts brings the English lexicon and rules, a copy of misaki's (Apache-2.0). The text is in spoken form already, so
hibari's own normalization is left out.
"""

import re
from collections.abc import Callable

from mirrorchat.small.phonemes_mandarin import mandarin_phonemes
from mirrorchat.small.phonemes_words import MandarinWords

_HAN = r"\u3400-\u9fff\uf900-\ufaff"
_RUNS = re.compile(rf"[{_HAN}]+|[^{_HAN}]+")
_IS_HAN = re.compile(rf"[{_HAN}]")
# The marks of the alphabet are ASCII, but for dashes, dots and quotes; a space follows them.
_MARKS = str.maketrans({
    "，": ", ", "、": ", ", "。": ". ", "．": ". ", "！": "! ", "？": "? ", "：": ": ", "；": "; ",
    "（": " (", "）": ") ",
    "《": " “", "》": "” ", "「": " “", "」": "” ", "『": " “", "』": "” ", "【": " “", "】": "” ",
    "[": " ", "]": " ",
})  # fmt: skip
_SPACE_BEFORE_MARK = re.compile(r" (?=[,.!?;:”)])")
_ENDS = (".!?,;:", " ", "")  # where phonemes are divided, the best first


def has_han(text: str) -> bool:
    """Return whether `text` has Chinese characters."""
    return _IS_HAN.search(text) is not None


class Phonemizer:
    """Knows the phonemes of both languages. `words` divides Chinese text; without it, a pause takes the place of that.

    `english` returns the phonemes of Latin words. Thread-safe, as far as `english` is.
    """

    def __init__(self, english: Callable[[str], str], words: MandarinWords | None) -> None:
        self._english = english
        self._words = words

    def phonemes(self, text: str) -> str:
        """Return the phonemes of `text` (spoken form), empty for text without any.

        Square brackets are taken away: hibari would read `[word](/phonemes/)` as an instruction.
        """
        runs = _RUNS.findall(text.translate(_MARKS))
        return _SPACE_BEFORE_MARK.sub("", " ".join("".join(map(self._run, runs)).split()))

    def _run(self, run: str) -> str:
        """Return the phonemes of a run that is either in Chinese characters or without any."""
        if has_han(run):
            return mandarin_phonemes(self._words.split(run)) if self._words else ", "
        return f" {self._english(run.strip())} " if any(map(str.isalnum, run)) else run


def divided(phonemes: str, limit: int) -> list[str]:
    """Return `phonemes` in parts of at most `limit` characters, divided at a mark, else between words."""
    parts = []
    while len(phonemes) > limit:
        end = next(end for marks in _ENDS if (end := _last(phonemes[:limit], marks)))
        parts.append(phonemes[:end])
        phonemes = phonemes[end:]
    return [part for part in (*parts, phonemes) if part.strip()]


def _last(text: str, marks: str) -> int:
    """Return where `text` ends after the last of `marks`; 0 without any; its length for no marks."""
    return max(text.rfind(mark) for mark in marks) + 1 if marks else len(text)
