"""CTC prefix beam search in plain Python: the slow reference of native/prefix_beam.cpp, and its stand-in.

The method is Hannun et al.'s (arXiv 1408.2873), with WeNet's pruning (arXiv 2203.15455): in each frame the `beam` best
units extend the `beam` best prefixes. The compiled search does the same operations on the same doubles in the same
order, so both give the same bits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mirrorchat.wenet.ctc.context import BLANK, ROOT, ContextGraph

FloatArray = npt.NDArray[np.float32]


class Reading(NamedTuple):
    """A live prefix as the searches give it: its units, its score, each unit's frame and its log probability there."""

    units: tuple[int, ...]
    score: float
    frames: tuple[int, ...]
    peaks: tuple[float, ...]


class _Spoken(NamedTuple):
    """When the last unit of a path was spoken, and, linked, those before it."""

    before: "_Spoken | None"
    frame: int
    peak: float  # the largest log probability of the unit while it is held


@dataclass(slots=True)
class _Paths:
    """The paths to a prefix that end alike, in a blank or in its last unit."""

    total: float = -math.inf  # log probability of all of them
    best: float = -math.inf  # of the likeliest
    spoken: _Spoken | None = None  # by the likeliest
    met: bool = False

    def add(self, total: float, best: float, before: _Spoken | None, frame: int, score: float) -> None:
        """Add paths that a unit was just appended to."""
        self.total = log_add(self.total, total)
        if self.best < best or not self.met:
            self.best, self.spoken, self.met = best, _Spoken(before, frame, score), True

    def hold(self, paths: "_Paths", frame: int, score: float) -> None:
        """Add `paths` whose last unit was just held for one frame more.

        As in WeNet, the frames of paths that the unit was appended to just now stay, though these be the likelier.
        """
        best = paths.best + score
        self.total = log_add(self.total, paths.total + score)
        if self.best == -math.inf and paths.spoken is not None:
            self.spoken = _Spoken(paths.spoken.before, frame, max(paths.spoken.peak, score))
        self.best, self.met = max(self.best, best), True


@dataclass(slots=True)
class _Prefix:
    """A prefix in a frame: where it hangs in the tree, its paths, and its hot words."""

    parent: int
    last: int  # its last unit, -1 for the empty prefix
    state: int  # of the context graph
    bonus: float
    blank: _Paths
    unit: _Paths
    number: int = -1  # in the tree, once it has survived a frame
    total: float = 0.0  # log probability of all paths; hot words apart

    def likeliest(self) -> _Paths:
        return self.blank if self.blank.best > self.unit.best else self.unit


class _Tree:
    """Every prefix that has survived a frame: a number for each, so that none is copied or compared whole."""

    def __init__(self) -> None:
        self._parents = [-1]
        self._units = [-1]
        self._numbers: dict[tuple[int, int], int] = {}

    def number(self, parent: int, unit: int) -> int:
        """Return the number of the prefix `parent` followed by `unit`."""
        number = self._numbers.setdefault((parent, unit), len(self._units))
        if number == len(self._units):
            self._parents.append(parent)
            self._units.append(unit)
        return number

    def spell(self, number: int) -> tuple[int, ...]:
        """Return the units of a prefix, first to last."""
        units = []
        while number > 0:
            units.append(self._units[number])
            number = self._parents[number]
        return tuple(reversed(units))


class PlainSearch:
    """One search, frame by frame. `live` are the prefixes that it has kept, best first."""

    def __init__(self, beam: int, context: ContextGraph | None) -> None:
        start = _Paths(0.0, 0.0, None, True)
        self._beam, self._context = beam, context
        self._tree = _Tree()
        self._live = [_Prefix(-1, -1, ROOT, 0.0, start, _Paths(), number=0)]
        self._frame = 0

    def advance(self, log_probs: FloatArray) -> None:
        """Take the next frames (S, V). Raises ValueError, and takes none, where one holds NaN or infinity."""
        if not (log_probs < math.inf).all():
            raise ValueError("the log probabilities hold NaN or infinity")
        for units, scores in _best_units(log_probs, min(self._beam, log_probs.shape[1])):
            self._step(units, scores)
            self._frame += 1

    def readings(self) -> list[Reading]:
        """Return the live prefixes, best first, scored as if speech ended here."""
        readings = [
            Reading(self._tree.spell(prefix.number), self._final_score(prefix), *_trace(prefix.likeliest().spoken))
            for prefix in self._live
        ]
        return sorted(readings, key=lambda reading: -reading.score)

    def stable_prefix(self) -> tuple[int, ...]:
        """Return the units that all live prefixes begin with."""
        spelt = [self._tree.spell(prefix.number) for prefix in self._live]
        first, last = min(spelt), max(spelt)
        agreed = next((i for i, unit in enumerate(first) if unit != last[i]), len(first))
        return first[:agreed]

    def _step(self, units: Sequence[int], scores: Sequence[float]) -> None:
        """Replace the live prefixes by the best of those that one more frame leads to; of equals, the first met."""
        met: dict[tuple[int, int], _Prefix] = {}
        for unit, score in zip(units, scores, strict=True):
            for prefix in self._live:
                if unit == BLANK:
                    self._stay(met, prefix, score)
                else:
                    self._append(met, prefix, unit, score)
        for prefix in met.values():
            prefix.total = log_add(prefix.blank.total, prefix.unit.total)
        ranked = sorted(met.values(), key=lambda prefix: -(prefix.total + prefix.bonus))
        self._live = [self._keep(prefix) for prefix in ranked[: self._beam]]

    def _stay(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix, score: float) -> None:
        """Add the paths of `prefix` that a blank follows."""
        best = prefix.likeliest()
        blank = self._again(met, prefix).blank
        blank.total, blank.best, blank.spoken, blank.met = prefix.total + score, best.best + score, best.spoken, True

    def _append(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix, unit: int, score: float) -> None:
        """Add the paths of `prefix` that `unit` follows."""
        if unit == prefix.last:
            # The same unit again is the same letter held, unless a blank came between.
            self._again(met, prefix).unit.hold(prefix.unit, self._frame, score)
            total, paths = prefix.blank.total, prefix.blank
        else:
            total, paths = prefix.total, prefix.likeliest()
        child = self._longer(met, prefix, unit)
        child.unit.add(total + score, paths.best + score, paths.spoken, self._frame, score)

    def _again(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix) -> _Prefix:
        """Return what is met of `prefix` itself in this frame."""
        key = (prefix.parent, prefix.last)
        found = met.get(key)
        if found is None:
            found = met[key] = _Prefix(*key, prefix.state, prefix.bonus, _Paths(), _Paths())
        return found

    def _longer(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix, unit: int) -> _Prefix:
        """Return what is met of `prefix` followed by `unit` in this frame."""
        key = (prefix.number, unit)
        found = met.get(key)
        if found is None:
            bonus, state = (0.0, ROOT) if self._context is None else self._context.step(prefix.state, unit)
            found = met[key] = _Prefix(*key, state, prefix.bonus + bonus, _Paths(), _Paths())
        return found

    def _keep(self, prefix: _Prefix) -> _Prefix:
        """Return `prefix`, ready for the next frame."""
        prefix.number = 0 if prefix.last < 0 else self._tree.number(prefix.parent, prefix.last)
        # Paths that are impossible still need frames, for readings that are: as many as there are units.
        if not prefix.unit.met:
            prefix.unit.spoken = prefix.blank.spoken
        elif not prefix.blank.met:
            prefix.blank.spoken = prefix.unit.spoken
        return prefix

    def _final_score(self, prefix: _Prefix) -> float:
        unfinished = 0.0 if self._context is None else self._context.unfinished(prefix.state)
        return prefix.total + (prefix.bonus - unfinished)


def log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b)), also where both are log 0."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def _best_units(log_probs: FloatArray, count: int) -> Iterator[tuple[list[int], list[float]]]:
    """Yield each frame's `count` best units and their log probabilities, best first; of equals the lower unit."""
    worst = log_probs.shape[1] - count
    for frame in log_probs:
        enough = np.flatnonzero(frame >= np.partition(frame, worst)[worst])
        units = enough[np.argsort(-frame[enough], kind="stable")[:count]]
        yield units.tolist(), frame[units].tolist()


def _trace(spoken: _Spoken | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the frames of a path's units and their log probabilities, first to last."""
    frames, peaks = [], []
    while spoken is not None:
        frames.append(spoken.frame)
        peaks.append(spoken.peak)
        spoken = spoken.before
    return tuple(reversed(frames)), tuple(reversed(peaks))
