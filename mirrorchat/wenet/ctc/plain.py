"""CTC prefix beam search in plain Python: the slow reference for native/prefix_beam.cpp, and its replacement.

The method is that of Hannun et al. (arXiv 1408.2873) with the pruning of WeNet (arXiv 2203.15455): in each frame the
`beam` best tokens extend the `beam` best prefixes. The compiled search performs the same operations on the same doubles
in the same order, so both give the same bits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mirrorchat.wenet.ctc.context import BLANK, ROOT, ContextGraph

FloatArray = npt.NDArray[np.float32]


class ScoredPrefix(NamedTuple):
    """A live prefix of a search: its tokens, its score, and for each token its frame and its peak log probability."""

    tokens: tuple[int, ...]
    score: float
    frames: tuple[int, ...]
    peaks: tuple[float, ...]


class _Spoken(NamedTuple):
    """The frame in which the last token of a path is spoken, linked to the frames of the tokens before it."""

    before: "_Spoken | None"
    frame: int
    peak: float  # the largest log probability of the token while it is held


@dataclass(slots=True)
class _Paths:
    """All paths to a prefix that end in a blank, or all that end in its last token."""

    total: float = -math.inf  # log probability of all these paths
    best: float = -math.inf  # log probability of the likeliest path
    spoken: _Spoken | None = None  # the frames of the likeliest path
    met: bool = False

    def add(self, total: float, best: float, before: _Spoken | None, frame: int, score: float) -> None:
        """Add paths to which a token was just appended."""
        self.total = log_add(self.total, total)
        if self.best < best or not self.met:
            self.best, self.spoken, self.met = best, _Spoken(before, frame, score), True

    def hold(self, paths: "_Paths", frame: int, score: float) -> None:
        """Add `paths`, which held their last token for one more frame.

        As in WeNet, paths to which the token was appended in this frame keep their frames, even if the held paths are
        likelier.
        """
        best = paths.best + score
        self.total = log_add(self.total, paths.total + score)
        if self.best == -math.inf and paths.spoken is not None:
            self.spoken = _Spoken(paths.spoken.before, frame, max(paths.spoken.peak, score))
        self.best, self.met = max(self.best, best), True


@dataclass(slots=True)
class _Prefix:
    """A prefix in one frame: its place in the tree, its paths, and the state and bonus of its hot words."""

    parent: int
    last: int  # its last token, -1 for the empty prefix
    state: int  # of the context graph
    bonus: float
    blank: _Paths
    token: _Paths
    number: int = -1  # in the tree, once the prefix has survived a frame
    total: float = 0.0  # log probability of all paths, without the bonus

    def likeliest(self) -> _Paths:
        return self.blank if self.blank.best > self.token.best else self.token


class _Tree:
    """Every prefix that survived a frame, under a number, so that no prefix is copied or compared as a whole."""

    def __init__(self) -> None:
        self._parents = [-1]
        self._tokens = [-1]
        self._numbers: dict[tuple[int, int], int] = {}

    def number(self, parent: int, token: int) -> int:
        """Return the number of the prefix `parent` followed by `token`."""
        number = self._numbers.setdefault((parent, token), len(self._tokens))
        if number == len(self._tokens):
            self._parents.append(parent)
            self._tokens.append(token)
        return number

    def spell(self, number: int) -> tuple[int, ...]:
        """Return the tokens of a prefix, from the first to the last."""
        tokens = []
        while number > 0:
            tokens.append(self._tokens[number])
            number = self._parents[number]
        return tuple(reversed(tokens))


class PlainSearch:
    """One search, frame by frame. It keeps the `beam` best prefixes alive."""

    def __init__(self, beam: int, graph: ContextGraph | None) -> None:
        start = _Paths(0.0, 0.0, None, True)
        self._beam, self._graph = beam, graph
        self._tree = _Tree()
        self._live = [_Prefix(-1, -1, ROOT, 0.0, start, _Paths(), number=0)]
        self._frame = 0

    def advance(self, log_probs: FloatArray) -> None:
        """Search the next frames (S, V). Raises ValueError, before any change, for NaN or infinity."""
        if not (log_probs < math.inf).all():
            raise ValueError("the log probabilities hold NaN or infinity")
        for tokens, scores in _best_tokens(log_probs, min(self._beam, log_probs.shape[1])):
            self._step(tokens, scores)
            self._frame += 1

    def prefixes(self) -> list[ScoredPrefix]:
        """Return the live prefixes, best first, scored as if the speech ended here."""
        prefixes = [
            ScoredPrefix(self._tree.spell(prefix.number), self._final_score(prefix), *_trace(prefix.likeliest().spoken))
            for prefix in self._live
        ]
        return sorted(prefixes, key=lambda prefix: -prefix.score)

    def stable_prefix(self) -> tuple[int, ...]:
        """Return the tokens with which all live prefixes begin."""
        spelt = [self._tree.spell(prefix.number) for prefix in self._live]
        first, last = min(spelt), max(spelt)
        agreed = next((i for i, token in enumerate(first) if token != last[i]), len(first))
        return first[:agreed]

    def _step(self, tokens: Sequence[int], scores: Sequence[float]) -> None:
        """Replace the live prefixes by the best ones after one more frame. Of equal prefixes the first found stays."""
        met: dict[tuple[int, int], _Prefix] = {}
        for token, score in zip(tokens, scores, strict=True):
            for prefix in self._live:
                if token == BLANK:
                    self._stay(met, prefix, score)
                else:
                    self._append(met, prefix, token, score)
        for prefix in met.values():
            prefix.total = log_add(prefix.blank.total, prefix.token.total)
        ranked = sorted(met.values(), key=lambda prefix: -(prefix.total + prefix.bonus))
        self._live = [self._keep(prefix) for prefix in ranked[: self._beam]]

    def _stay(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix, score: float) -> None:
        """Add the paths of `prefix` that continue with a blank."""
        best = prefix.likeliest()
        blank = self._again(met, prefix).blank
        blank.total, blank.best, blank.spoken, blank.met = prefix.total + score, best.best + score, best.spoken, True

    def _append(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix, token: int, score: float) -> None:
        """Add the paths of `prefix` that continue with `token`."""
        if token == prefix.last:
            # A repeated token is the same letter, held for longer, unless a blank stands between.
            self._again(met, prefix).token.hold(prefix.token, self._frame, score)
            total, paths = prefix.blank.total, prefix.blank
        else:
            total, paths = prefix.total, prefix.likeliest()
        child = self._longer(met, prefix, token)
        child.token.add(total + score, paths.best + score, paths.spoken, self._frame, score)

    def _again(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix) -> _Prefix:
        """Return the entry of `prefix` itself in this frame."""
        key = (prefix.parent, prefix.last)
        found = met.get(key)
        if found is None:
            found = met[key] = _Prefix(*key, prefix.state, prefix.bonus, _Paths(), _Paths())
        return found

    def _longer(self, met: dict[tuple[int, int], _Prefix], prefix: _Prefix, token: int) -> _Prefix:
        """Return the entry of `prefix` followed by `token` in this frame."""
        key = (prefix.number, token)
        found = met.get(key)
        if found is None:
            bonus, state = (0.0, ROOT) if self._graph is None else self._graph.step(prefix.state, token)
            found = met[key] = _Prefix(*key, state, prefix.bonus + bonus, _Paths(), _Paths())
        return found

    def _keep(self, prefix: _Prefix) -> _Prefix:
        """Return `prefix`, ready for the next frame."""
        prefix.number = 0 if prefix.last < 0 else self._tree.number(prefix.parent, prefix.last)
        # Impossible paths need frames, too: a hypothesis that is impossible still has one frame for each token.
        if not prefix.token.met:
            prefix.token.spoken = prefix.blank.spoken
        elif not prefix.blank.met:
            prefix.blank.spoken = prefix.token.spoken
        return prefix

    def _final_score(self, prefix: _Prefix) -> float:
        unfinished = 0.0 if self._graph is None else self._graph.unfinished(prefix.state)
        return prefix.total + (prefix.bonus - unfinished)


def log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b)), also if both are log 0."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def _best_tokens(log_probs: FloatArray, count: int) -> Iterator[tuple[list[int], list[float]]]:
    """Yield the `count` best tokens of each frame and their log probabilities, best first; of equals the lower."""
    worst = log_probs.shape[1] - count
    for frame in log_probs:
        enough = np.flatnonzero(frame >= np.partition(frame, worst)[worst])
        tokens = enough[np.argsort(-frame[enough], kind="stable")[:count]]
        yield tokens.tolist(), frame[tokens].tolist()


def _trace(spoken: _Spoken | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the frames of a path's tokens and the peak log probabilities, from the first to the last token."""
    frames, peaks = [], []
    while spoken is not None:
        frames.append(spoken.frame)
        peaks.append(spoken.peak)
        spoken = spoken.before
    return tuple(reversed(frames)), tuple(reversed(peaks))
