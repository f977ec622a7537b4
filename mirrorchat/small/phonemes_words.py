"""Words in Chinese text. Kokoro's training had a space between words, and without them it is hard to understand.

The division is the likeliest one by the frequencies of words, as in jieba (MIT), whose dictionary of 349,000 words is
read as data. jieba itself is not imported: it keeps its dictionary in a shared temporary folder, where anybody could
replace it.
"""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

from mirrorchat.errors import ConfigurationError

_LONGEST_WORD = 8  # characters; the dictionary's few longer ones are titles and proverbs
_LARGEST_FILE_BYTES = 20_000_000  # it has 5 MB


class MandarinWords:
    """Divides Chinese text into words. Thread-safe. Raises ConfigurationError when jieba's dictionary is missing."""

    def __init__(self) -> None:
        self._log_probabilities = _read_dictionary()
        self._unknown = min(self._log_probabilities.values(), default=0.0)

    def split(self, text: str) -> list[str]:
        """Return the words of `text`, which consists of Chinese characters only."""
        ends = self._best_ends(text)
        words, start = [], 0
        while start < len(text):
            words.append(text[start : ends[start]])
            start = ends[start]
        return words

    def _best_ends(self, text: str) -> list[int]:
        """Return for each character where a word that begins with it ends in the likeliest division of the rest."""
        scores, ends = [0.0] * (len(text) + 1), [0] * len(text)
        for start in reversed(range(len(text))):
            stops = range(start + 1, min(start + _LONGEST_WORD, len(text)) + 1)
            scored = [(self._score(text[start:stop]) + scores[stop], stop) for stop in stops]
            scores[start], ends[start] = max(scored)
        return ends

    def _score(self, word: str) -> float:
        """Return the logarithm of the word's probability; a character alone may be unknown, a longer word not."""
        return self._log_probabilities.get(word, self._unknown if len(word) == 1 else -math.inf)


def _read_dictionary() -> Mapping[str, float]:
    spec = importlib.util.find_spec("jieba")  # does not import the package
    file = Path(spec.origin).with_name("dict.txt") if spec and spec.origin else None
    if file is None or not file.is_file() or file.stat().st_size > _LARGEST_FILE_BYTES:
        raise ConfigurationError("jieba's dictionary is missing: run scripts/environment small")
    counts = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        word, count, *_ = line.split(" ")
        if len(word) <= _LONGEST_WORD and count.isdecimal() and int(count):
            counts[word] = int(count)
    log_total = math.log(sum(counts.values()) or 1)
    return {word: math.log(count) - log_total for word, count in counts.items()}
