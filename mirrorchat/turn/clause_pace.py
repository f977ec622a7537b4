"""The pace of an engine that computes a clause at once: how long a clause may be, and how long the first one waits.

A clause is as long as the engine can compute while the listener hears what is buffered. So speech begins early, stays
without an underrun, and the clauses grow to whole sentences as speech is buffered, or at once where the engine is fast.
"""

from collections.abc import Callable

from mirrorchat.engines import Language
from mirrorchat.text.clauses import Words, cut_clause

FIRST_CHARS = {Language.CHINESE: 8, Language.ENGLISH: 30}  # of the first clause; letters, digits, Chinese characters
LATER_CHARS = {Language.CHINESE: 12, Language.ENGLISH: 40}  # a later clause may always be as long
CHARS_S = {Language.CHINESE: 4.2, Language.ENGLISH: 12.0}  # of speech per second
FAST_SPEED = 4.0  # seconds of speech a second; from there on the first clause needs no limit
UNKNOWN_SPEED = 1.2  # Kokoro's on two busy cores
MARGIN = 1.25  # short clauses take longer for each second of speech than the mean


class ClausePace:
    """Cuts the sentences of one answer in `language` into clauses. `speed` returns what was measured lately.

    `words` divides Chinese text into words.
    """

    def __init__(self, language: Language, words: Words, speed: Callable[[], float | None]) -> None:
        self._language = language
        self._words = words
        self._speed = speed

    def cut(self, text: str, *, is_first: bool, buffered_s: float) -> tuple[str, str]:
        """Return the clause of `text` to speak next, and the rest, while `buffered_s` seconds of speech are unheard."""
        speed = self._speed() or UNKNOWN_SPEED
        if is_first:
            is_fast = speed >= FAST_SPEED
            return (text, "") if is_fast else cut_clause(text, FIRST_CHARS[self._language], self._words)
        computed_chars = int(buffered_s * speed / MARGIN * CHARS_S[self._language])
        return cut_clause(text, max(LATER_CHARS[self._language], computed_chars), self._words)

    def prebuffer_s(self) -> float:
        """Return how long the first clause has to last, together with its wait: until the second one is there."""
        speed = self._speed() or UNKNOWN_SPEED
        if speed >= FAST_SPEED:
            return 0.0
        return MARGIN * LATER_CHARS[self._language] / CHARS_S[self._language] / speed
