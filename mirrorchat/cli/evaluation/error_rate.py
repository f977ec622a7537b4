"""Error rates of recognized text: the word error rate (WER) in English, the character error rate (CER) in Chinese.

Texts are compared in spoken form without case and punctuation. The errors are the fewest substitutions, deletions and
insertions that turn the reference into the hypothesis (Levenshtein distance), divided by the tokens of the reference.
The rate can exceed 1.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.sentences.speech_length import HAN

NORMALIZATION = (
    "numbers, dates, money and signs in spoken form; Unicode NFKC; lower case; no punctuation except an apostrophe"
    " inside a word. A token is a Han character, or a run of other letters and digits"
)
RATE_NAMES = {Language.ENGLISH: "WER", Language.CHINESE: "CER"}
RESAMPLES = 1000
FEWEST_RESAMPLED = 5  # fewer texts give no estimate of their variation

_LETTER = rf"(?:(?![{HAN}])[^\W_])"
_TOKEN = re.compile(rf"[{HAN}]|{_LETTER}+(?:'{_LETTER}+)*")


def tokens(text: str, language: Language) -> tuple[str, ...]:
    """Return the tokens of `text` for the comparison: words, and Chinese characters."""
    # The words of a corpus in capitals (LibriSpeech) are not acronyms.
    spoken = normalize_text(text.lower() if text.isupper() else text, language)
    plain = unicodedata.normalize("NFKC", spoken).casefold().replace("’", "'")
    return tuple(_TOKEN.findall(plain))


@dataclass(frozen=True)
class Edits:
    """The numbers of edits that turn a reference into a hypothesis, and of the tokens of the reference."""

    substituted: int = 0
    deleted: int = 0
    inserted: int = 0
    reference: int = 0

    @property
    def errors(self) -> int:
        return self.substituted + self.deleted + self.inserted

    @property
    def rate(self) -> float | None:
        """Return the errors per token of the reference, or None for an empty reference."""
        return self.errors / self.reference if self.reference else None

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
            self.reference + other.reference,
        )


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """Return the fewest edits from `reference` to `hypothesis`. Equal numbers prefer substitutions."""
    cost = _costs(reference, hypothesis)
    row, column = len(reference), len(hypothesis)
    counts = {"substituted": 0, "deleted": 0, "inserted": 0}
    while row or column:
        here = cost[row, column]
        differs = bool(row and column) and reference[row - 1] != hypothesis[column - 1]
        if row and column and cost[row - 1, column - 1] + differs == here:
            counts["substituted"] += differs
            row, column = row - 1, column - 1
        elif row and cost[row - 1, column] + 1 == here:
            counts["deleted"] += 1
            row -= 1
        else:
            counts["inserted"] += 1
            column -= 1
    return Edits(**counts, reference=len(reference))


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the fewest edits between all prefixes, shape (reference + 1, hypothesis + 1)."""
    ids: dict[str, int] = {}
    rows, columns = (np.array([ids.setdefault(token, len(ids)) for token in text]) for text in (reference, hypothesis))
    insertions = np.arange(len(hypothesis) + 1, dtype=np.int32)
    cost = np.empty((len(reference) + 1, len(hypothesis) + 1), np.int32)
    cost[0] = insertions
    for row, token in enumerate(rows, 1):
        above = cost[row - 1]
        here = above + 1
        here[1:] = np.minimum(here[1:], above[:-1] + (columns != token))
        cost[row] = np.minimum.accumulate(here - insertions) + insertions  # an insertion costs 1 per column
    return cost


def interval(parts: Sequence[Edits]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the rate over the texts of `parts` (bootstrap percentiles, seed 0).

    It is None for fewer than FEWEST_RESAMPLED texts. Two rates within each other's interval do not differ reliably. To
    compare two settings with the same clips, compare clip by clip.
    """
    if len(parts) < FEWEST_RESAMPLED:
        return None
    errors = np.array([part.errors for part in parts])
    lengths = np.array([part.reference for part in parts])
    resampled = np.random.default_rng(0).integers(len(parts), size=(RESAMPLES, len(parts)))
    rates = errors[resampled].sum(axis=1) / np.maximum(1, lengths[resampled].sum(axis=1))
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
