"""Hot words in a search: every token that continues a phrase earns a bonus, which a broken phrase loses again.

The phrases form an automaton (Aho and Corasick, 1975) over token numbers; the search keeps one state of the automaton
with each prefix. The method and the scores are those of `ContextGraph` in WeNet, which follows icefall's.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

MAX_PHRASES = 2000
MAX_PHRASE_TOKENS = 64
CONTEXT_SCORE = 3.0
BLANK = 0
ROOT = 0

_LARGEST_TOKEN = 2**31 - 1


class ContextGraph:
    """The automaton of `phrases`, each a sequence of token numbers. Immutable.

    `score` is the bonus of one token, a log probability. A prefix that ends with the first n tokens of a phrase has n
    times `score`. The last token of the phrase adds the same sum once more, and the prefix keeps that second sum. A
    phrase that breaks off, or that the end of the speech cuts off, loses its bonus.

    WeNet ignores a phrase that is the beginning of an earlier one; here the order of the phrases has no effect.

    Raises ValueError for a phrase that is empty, is longer than MAX_PHRASE_TOKENS or has tokens below 1 (blank is not
    allowed), for more than MAX_PHRASES, and for a score that is negative or not finite.

    Example: `ContextGraph([(17, 4, 250)])` favours hypotheses in which token 17 is followed by 4 and 250.
    """

    def __init__(self, phrases: Sequence[Sequence[int]], score: float = CONTEXT_SCORE) -> None:
        _check(phrases, score)
        self.score = score
        self._next: list[dict[int, int]] = [{}]
        self._fail = [ROOT]  # the state of the longest proper suffix
        self._reached = [0.0]  # the bonus from the root to here
        self._completed = [0.0]  # the bonus of all phrases that end here
        for phrase in phrases:
            self._add(phrase)
        self._link()
        self.arrays = _Arrays(self._next, self._fail, self._reached, self._completed)

    def step(self, state: int, token: int) -> tuple[float, int]:
        """Return the change of the bonus by `token` (negative if a phrase breaks off) and the state after it."""
        target = self._follow(state, token)
        bonus = self.score if token in self._next[state] else self._reached[target] - self._reached[state]
        return bonus + self._completed[target], target

    def unfinished(self, state: int) -> float:
        """Return the bonus that is lost if the speech ends in `state`."""
        return self._reached[state]

    def _add(self, phrase: Sequence[int]) -> None:
        state = ROOT
        for token in phrase:
            if token not in self._next[state]:
                self._next[state][token] = len(self._next)
                self._next.append({})
                self._fail.append(ROOT)
                self._reached.append(self._reached[state] + self.score)
                self._completed.append(0.0)
            state = self._next[state][token]
        self._completed[state] = self._reached[state]

    def _link(self) -> None:
        """Set the suffix of every state and add the bonus of the phrases that end there; shallow states come first."""
        queue = deque([ROOT])
        while queue:
            state = queue.popleft()
            for token, child in self._next[state].items():
                self._fail[child] = ROOT if state == ROOT else self._follow(self._fail[state], token)
                self._completed[child] += self._completed[self._fail[child]]
                queue.append(child)

    def _follow(self, state: int, token: int) -> int:
        """Return the state of the longest beginning of a phrase with which the tokens so far and `token` end."""
        while token not in self._next[state]:
            if state == ROOT:
                return ROOT
            state = self._fail[state]
        return self._next[state][token]


class _Arrays:
    """The automaton as arrays for the compiled search: the arcs of state s are `first[s]` to `first[s + 1]`, sorted.

    `first`, `tokens`, `targets` and `fail` are int32; `reached` and `completed` are float64.
    """

    def __init__(
        self, arcs: Sequence[dict[int, int]], fail: Sequence[int], reached: Sequence[float], completed: Sequence[float]
    ) -> None:
        flat = [arc for each in arcs for arc in sorted(each.items())]
        self.first = np.cumsum([0, *map(len, arcs)], dtype=np.int32)
        self.tokens = np.array([token for token, _ in flat], dtype=np.int32)
        self.targets = np.array([target for _, target in flat], dtype=np.int32)
        self.fail = np.array(fail, dtype=np.int32)
        self.reached = np.array(reached, dtype=np.float64)
        self.completed = np.array(completed, dtype=np.float64)


def _check(phrases: Sequence[Sequence[int]], score: float) -> None:
    if not 0.0 <= score < math.inf:
        raise ValueError(f"the bonus of a hot word's token is {score}; it must be finite and not negative")
    if len(phrases) > MAX_PHRASES:
        raise ValueError(f"{len(phrases)} hot words are too many; at most {MAX_PHRASES}")
    for phrase in phrases:
        if not 1 <= len(phrase) <= MAX_PHRASE_TOKENS:
            raise ValueError(f"a hot word has {len(phrase)} tokens; 1 to {MAX_PHRASE_TOKENS} are possible")
        if not all(BLANK < token <= _LARGEST_TOKEN for token in phrase):
            raise ValueError(f"a hot word has tokens below 1 or too large: {list(phrase)}")
