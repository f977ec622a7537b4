"""The token table of a WeNet model (`units.txt`): it spells hot words, and turns hypotheses into a transcript."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mirrorchat.audio.pieces import Piece
from mirrorchat.engines import Language, SpokenToken, Transcript
from mirrorchat.wenet.ctc.context import MAX_PHRASE_TOKENS, ContextGraph
from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.text import SPECIAL, timed_words, written

# A token is taken to last this long before and after its frame, unless a neighbour is nearer. WeNet's runtime keeps the
# same gap.
TOKEN_REACH_S = 0.1


@dataclass(frozen=True)
class RecognizedPiece:
    """The hypothesis of one piece of a recording. The piece begins at `start_s` and lasts `duration_s` seconds."""

    start_s: float
    duration_s: float
    hypothesis: Hypothesis


def recognized(pieces: Sequence[Piece], hypotheses: Sequence[Hypothesis]) -> list[RecognizedPiece]:
    """Return the `hypotheses` of a recording's `pieces` with the times of these pieces."""
    pairs = zip(pieces, hypotheses, strict=True)
    return [RecognizedPiece(piece.start_s, piece.audio.duration_s, hypothesis) for piece, hypothesis in pairs]


class TokenTable:
    """The `tokens` of a model, indexed by their numbers. Immutable.

    An encoder frame of the model lasts `frame_s` seconds.
    """

    def __init__(self, tokens: Sequence[str], frame_s: float) -> None:
        self.tokens = tokens
        self._frame_s = frame_s
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self._longest = max(map(len, tokens))
        self._begins_words = any(token.startswith("▁") for token in tokens)
        self._is_upper = any(token.isupper() for token in tokens if not SPECIAL.fullmatch(token))

    def hotword_graph(self, hotwords: Sequence[str]) -> ContextGraph | None:
        """Return the context graph of the hot words that the tokens can spell; None if they can spell none."""
        spelled = [self._spell(word) for word in hotwords]
        phrases = [tokens for tokens in spelled if tokens and len(tokens) <= MAX_PHRASE_TOKENS]
        return ContextGraph(phrases) if phrases else None

    def text(self, pieces: Sequence[RecognizedPiece], language: Language) -> str:
        """Return the text of a recording's pieces, as a person writes it."""
        return written([self.tokens[token] for piece in pieces for token in piece.hypothesis.tokens], language)

    def transcript(self, pieces: Sequence[RecognizedPiece], language: Language) -> Transcript:
        """Return the transcript of a recording's pieces, with tokens and words that are timed in the recording."""
        text = self.text(pieces, language)
        spoken = tuple(token for piece in pieces for token in self._spoken(piece))
        return Transcript(text, language, spoken, _mean_confidence(spoken), timed_words(text, spoken))

    def _spoken(self, piece: RecognizedPiece) -> Iterator[SpokenToken]:
        hypothesis = piece.hypothesis
        times = [(frame + 0.5) * self._frame_s for frame in hypothesis.frames]
        edges = [0.0, *((one + other) / 2 for one, other in pairwise(times)), piece.duration_s]
        for number, token in enumerate(hypothesis.tokens):
            start_s = piece.start_s + max(edges[number], times[number] - TOKEN_REACH_S)
            end_s = piece.start_s + min(edges[number + 1], times[number] + TOKEN_REACH_S)
            yield SpokenToken(self.tokens[token], start_s, end_s, hypothesis.confidences[number])

    def _spell(self, word: str) -> tuple[int, ...]:
        """Return a hot word as tokens, each the longest that fits; nothing if a character has no token."""
        text = word.strip()
        if self._begins_words:
            text = "".join(f"▁{part}" for part in (text.upper() if self._is_upper else text.lower()).split())
        tokens: list[int] = []
        while text:
            longest = min(self._longest, len(text))
            size = next((n for n in range(longest, 0, -1) if text[:n] in self._numbers), 0)
            if not size:
                return ()
            tokens.append(self._numbers[text[:size]])
            text = text[size:]
        return tuple(tokens)


def _mean_confidence(spoken: Sequence[SpokenToken]) -> float | None:
    """Return the geometric mean of the tokens' confidences, as `Hypothesis.confidence` does; None without tokens."""
    logs = [math.log(max(token.confidence, 1e-30)) for token in spoken]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None
