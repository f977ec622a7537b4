"""Error rates of recognized text: words wrong in English (WER), characters wrong in Chinese (CER).

What is compared is spoken form without case and punctuation. Errors are those of the cheapest alignment (Levenshtein's,
each substitution, deletion and insertion costs 1), over the units of what was really said; the rate can exceed 1.
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

NORMALISATION = (
    "numbers, dates, money and signs read out as MirrorChat speaks them; Unicode NFKC; lower case; no punctuation;"
    " an apostrophe inside a word is of the word. A unit is a Han character, or a run of other letters and digits"
)
RATE_NAMES = {Language.ENGLISH: "WER", Language.CHINESE: "CER"}
RESAMPLES = 1000
FEWEST_RESAMPLED = 5  # fewer texts tell nothing about how texts differ

_LETTER = rf"(?:(?![{HAN}])[^\W_])"
_UNIT = re.compile(rf"[{HAN}]|{_LETTER}+(?:'{_LETTER}+)*")


def units(text: str, language: Language) -> tuple[str, ...]:
    """Return what of `text` is compared: its words, its Chinese characters."""
    # A corpus in capitals (LibriSpeech) is not made of acronyms.
    spoken = normalize_text(text.lower() if text.isupper() else text, language)
    plain = unicodedata.normalize("NFKC", spoken).casefold().replace("’", "'")
    return tuple(_UNIT.findall(plain))


@dataclass(frozen=True)
class Edits:
    """What turns `said` units into the ones that were heard: how many substituted, deleted and inserted."""

    substituted: int = 0
    deleted: int = 0
    inserted: int = 0
    said: int = 0

    @property
    def errors(self) -> int:
        return self.substituted + self.deleted + self.inserted

    @property
    def rate(self) -> float | None:
        """Return the errors for each unit said; None where nothing was."""
        return self.errors / self.said if self.said else None

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(
            self.substituted + other.substituted,
            self.deleted + other.deleted,
            self.inserted + other.inserted,
            self.said + other.said,
        )


def edits(said: Sequence[str], heard: Sequence[str]) -> Edits:
    """Return the fewest edits from `said` to `heard`; among equally few, those with the most substitutions."""
    cost = _costs(said, heard)
    row, column = len(said), len(heard)
    counts = {"substituted": 0, "deleted": 0, "inserted": 0}
    while row or column:
        here = cost[row, column]
        differs = bool(row and column) and said[row - 1] != heard[column - 1]
        if row and column and cost[row - 1, column - 1] + differs == here:
            counts["substituted"] += differs
            row, column = row - 1, column - 1
        elif row and cost[row - 1, column] + 1 == here:
            counts["deleted"] += 1
            row -= 1
        else:
            counts["inserted"] += 1
            column -= 1
    return Edits(**counts, said=len(said))


def _costs(said: Sequence[str], heard: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the fewest edits from each beginning of `said` to each of `heard`, shape (said + 1, heard + 1)."""
    number: dict[str, int] = {}
    wanted, found = (np.array([number.setdefault(unit, len(number)) for unit in text]) for text in (said, heard))
    columns = np.arange(len(heard) + 1, dtype=np.int32)
    cost = np.empty((len(said) + 1, len(heard) + 1), np.int32)
    cost[0] = columns
    for row, unit in enumerate(wanted, 1):
        above = cost[row - 1]
        here = above + 1
        here[1:] = np.minimum(here[1:], above[:-1] + (found != unit))
        cost[row] = np.minimum.accumulate(here - columns) + columns  # an insertion costs 1 a column
    return cost


def interval(parts: Sequence[Edits]) -> tuple[float, float] | None:
    """Return between which rates 95 % lie when the texts of `parts` are drawn anew (bootstrap percentiles, seed 0).

    None for fewer than FEWEST_RESAMPLED texts. How sure a rate is: two that lie in each other's interval may well be
    one. Two settings over the same clips are compared better clip by clip.
    """
    if len(parts) < FEWEST_RESAMPLED:
        return None
    errors, said = (np.array(values) for values in zip(*((part.errors, part.said) for part in parts), strict=True))
    drawn = np.random.default_rng(0).integers(len(parts), size=(RESAMPLES, len(parts)))
    rates = errors[drawn].sum(axis=1) / np.maximum(1, said[drawn].sum(axis=1))
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
