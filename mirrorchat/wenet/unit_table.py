"""A recognizer's list of units: hot words spelled in them, and what was heard with its times."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mirrorchat.audio.pieces import Piece
from mirrorchat.engines import SpokenToken
from mirrorchat.wenet.ctc.context import MAX_PHRASE_UNITS, ContextGraph
from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.text import SPECIAL

UNIT_REACH_S = 0.1  # how far a unit's sound reaches from its frame, where no neighbour is nearer: WeNet's runtime's gap


@dataclass(frozen=True)
class Found:
    """What was read in a piece of a recording that begins at `start_s` and lasts for `duration_s`."""

    start_s: float
    duration_s: float
    reading: Hypothesis


def found_in(pieces: Sequence[Piece], readings: Sequence[Hypothesis]) -> list[Found]:
    """Return the readings of a recording's pieces with their places in it."""
    pairs = zip(pieces, readings, strict=True)
    return [Found(piece.start_s, piece.audio.duration_s, reading) for piece, reading in pairs]


class UnitTable:
    """The `units` of a model by their numbers; one of its encoder's frames lasts `frame_s` seconds. Immutable."""

    def __init__(self, units: Sequence[str], frame_s: float) -> None:
        self.units = units
        self._frame_s = frame_s
        self._numbers = {unit: number for number, unit in enumerate(units)}
        self._longest = max(map(len, units))
        self._begins_words = any(unit.startswith("▁") for unit in units)
        self._is_upper = any(unit.isupper() for unit in units if not SPECIAL.fullmatch(unit))

    def context(self, hotwords: Sequence[str]) -> ContextGraph | None:
        """Return the automaton of those hot words that can be spelled; None where there are none."""
        spelled = [self._spell(word) for word in hotwords]
        phrases = [units for units in spelled if units and len(units) <= MAX_PHRASE_UNITS]
        return ContextGraph(phrases) if phrases else None

    def names(self, found: Sequence[Found]) -> list[str]:
        """Return the units of a recording's pieces, one after the other."""
        return [self.units[unit] for each in found for unit in each.reading.units]

    def spoken(self, found: Sequence[Found]) -> tuple[SpokenToken, ...]:
        """Return the units of a recording's pieces with their times in the whole of it."""
        return tuple(unit for each in found for unit in self._spoken(each))

    def _spoken(self, found: Found) -> Iterator[SpokenToken]:
        reading = found.reading
        times = [(frame + 0.5) * self._frame_s for frame in reading.frames]
        edges = [0.0, *((one + other) / 2 for one, other in pairwise(times)), found.duration_s]
        for number, unit in enumerate(reading.units):
            start_s = found.start_s + max(edges[number], times[number] - UNIT_REACH_S)
            end_s = found.start_s + min(edges[number + 1], times[number] + UNIT_REACH_S)
            yield SpokenToken(self.units[unit], start_s, end_s, reading.confidences[number])

    def _spell(self, word: str) -> tuple[int, ...]:
        """Return a hot word in the longest units that fit, from its start; nothing where one is missing."""
        text = word.strip()
        if self._begins_words:
            text = "".join(f"▁{part}" for part in (text.upper() if self._is_upper else text.lower()).split())
        units: list[int] = []
        while text:
            longest = min(self._longest, len(text))
            size = next((n for n in range(longest, 0, -1) if text[:n] in self._numbers), 0)
            if not size:
                return ()
            units.append(self._numbers[text[:size]])
            text = text[size:]
        return tuple(units)


def mean_confidence(spoken: Sequence[SpokenToken]) -> float | None:
    """Return the geometric mean of the units' confidences, as Hypothesis.confidence has it; None without units."""
    logs = [math.log(max(unit.confidence, 1e-30)) for unit in spoken]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None
