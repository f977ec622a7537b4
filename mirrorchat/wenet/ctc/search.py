"""The CTC searches: they turn log probabilities of tokens, frame by frame, into hypotheses of the utterance.

The prefix beam search is that of WeNet (Zhang et al., arXiv 2203.15455), after Hannun et al. (arXiv 1408.2873), with
WeNet's hot words. It runs in C++ if the library was compiled, else in plain Python; both give the same bits.

Shapes: S encoder frames, V tokens of the vocabulary. Blank is token 0.
"""

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mirrorchat.hardware.native import search_library
from mirrorchat.wenet.ctc.context import BLANK, ContextGraph
from mirrorchat.wenet.ctc.native import NativeSearch
from mirrorchat.wenet.ctc.plain import FloatArray, PlainSearch

__all__ = ["BEAM", "MAX_BEAM", "MAX_FRAMES", "ContextGraph", "FloatArray", "Hypothesis", "PrefixBeamSearch",
           "greedy_search", "prefix_beam_search"]  # fmt: skip

BEAM = 10
MAX_BEAM = 128
MAX_FRAMES = 250_000  # 2.8 hours in frames of 40 ms; a search keeps at most some 80 bytes x beam of each


@dataclass(frozen=True)
class Hypothesis:
    """One hypothesis of an utterance: its `tokens`, and for each of them a frame and a confidence.

    `score` is the log probability of all CTC paths to the tokens, plus the bonus of the hot words. `frames` rise; each
    is the last encoder frame in which the likeliest path holds the token, as in WeNet's `times`. `confidences` are in
    [0, 1]; each is the highest CTC probability of the token while that path holds it. (WeNet reports no confidence for
    CTC: its `tokens_confidence` are probabilities of the attention decoders.)
    """

    tokens: tuple[int, ...]
    score: float
    frames: tuple[int, ...]
    confidences: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """Geometric mean of `confidences`, as WeNet averages over an utterance; 0 without tokens."""
        if not self.tokens or min(self.confidences) == 0.0:
            return 0.0
        return math.exp(math.fsum(map(math.log, self.confidences)) / len(self.tokens))


class PrefixBeamSearch:
    """A prefix beam search over log probabilities that come in chunks. Thread-safe.

    The hypotheses do not depend on where the chunks are cut. Raises ValueError for a `beam` outside 1 to MAX_BEAM.
    """

    def __init__(self, beam: int = BEAM, *, graph: ContextGraph | None = None) -> None:
        if not 1 <= beam <= MAX_BEAM:
            raise ValueError(f"a beam of {beam}; 1 to {MAX_BEAM} are possible")
        library = search_library()
        self._search: NativeSearch | PlainSearch = (
            PlainSearch(beam, graph) if library is None else NativeSearch(beam, graph, library)
        )
        self._frames = 0
        self._lock = threading.Lock()

    def advance(self, log_probs: FloatArray) -> None:
        """Search the next frames, whose log probabilities are (S, V) float32; S may be 0.

        Raises ValueError for another shape, for NaN or positive infinity (-inf is probability 0), and for more than
        MAX_FRAMES frames in all. The search is then unchanged.
        """
        log_probs = np.ascontiguousarray(log_probs, np.float32)
        if log_probs.ndim != 2 or log_probs.shape[1] == 0:
            raise ValueError(f"log probabilities of the shape {log_probs.shape} are not (frames, tokens)")
        with self._lock:
            if self._frames + len(log_probs) > MAX_FRAMES:
                raise ValueError(f"more than {MAX_FRAMES} frames in one search")
            self._search.advance(log_probs)
            self._frames += len(log_probs)

    def hypotheses(self) -> list[Hypothesis]:
        """Return the `beam` best hypotheses so far, best first, scored as if the speech ended here.

        Hypotheses of equal score keep the order in which they were found. The search can go on.
        """
        with self._lock:
            prefixes = self._search.prefixes()
        return [Hypothesis(tokens, score, frames, _confidences(peaks)) for tokens, score, frames, peaks in prefixes]

    def stable_prefix(self) -> tuple[int, ...]:
        """Return the common prefix of all live prefixes, with which every later hypothesis begins, too."""
        with self._lock:
            return self._search.stable_prefix()


def prefix_beam_search(
    log_probs: FloatArray, beam: int = BEAM, *, graph: ContextGraph | None = None
) -> list[Hypothesis]:
    """Return the `beam` best hypotheses for CTC log probabilities (S, V) float32, best first.

    In each frame the `beam` best tokens extend the `beam` best prefixes; of equal tokens the lower number counts as
    better. `graph` adds the bonuses of its phrases to the scores. Raises ValueError as PrefixBeamSearch does.

    Example: `prefix_beam_search(log_probs)[0].tokens` are the tokens of the best hypothesis.
    """
    search = PrefixBeamSearch(beam, graph=graph)
    search.advance(log_probs)
    return search.hypotheses()


def greedy_search(log_probs: FloatArray) -> Hypothesis:
    """Return the hypothesis of the best single path through CTC log probabilities (S, V) float32, with its score.

    Of equally probable tokens the path takes the one with the lower number. Raises ValueError for another shape, NaN or
    positive infinity.
    """
    if log_probs.ndim != 2 or log_probs.shape[1] == 0 or not (log_probs < math.inf).all():
        raise ValueError("log probabilities are (frames, tokens), and no NaN or infinity")
    path = log_probs.argmax(axis=1)
    scores = log_probs.max(axis=1).astype(np.float64)
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    ends = np.append(starts[1:], len(path)) - 1
    spoken = path[starts] != BLANK
    peaks = np.maximum.reduceat(scores, starts)[spoken] if len(path) else scores
    tokens, frames = path[starts][spoken], ends[: len(starts)][spoken]
    return Hypothesis(tuple(tokens.tolist()), float(scores.sum()), tuple(frames.tolist()), _confidences(peaks.tolist()))


def _confidences(peaks: Iterable[float]) -> tuple[float, ...]:
    """Return probabilities, at most 1: the rounding of a softmax can give slightly more."""
    return tuple(math.exp(min(peak, 0.0)) for peak in peaks)
