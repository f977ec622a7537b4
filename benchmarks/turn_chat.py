"""The chat API of benchmarks/turn.py: it streams four sentences at the constant rate of a model."""

import time

from support.chat_server import DONE, Exchange, delta, pieces_of

from mirrorchat.engines import Language
from mirrorchat.text.splitter import SentenceSplitter

ANSWER = (
    "Practise a little every day, and speak aloud from the first week. Listen to people who speak it well, and repeat"
    " what they say. Read short texts that you enjoy, with a dictionary close at hand. Most of all, find someone who"
    " will talk with you."
)
FIRST_TOKEN_S = 0.3


class PacedAnswer:
    """Streams ANSWER with `tokens_s` tokens per second, FIRST_TOKEN_S after a request.

    `first_sentence_s` has for each request the time from its arrival to the token that ends the first sentence: the
    shortest possible wait of a server.
    """

    def __init__(self, tokens_s: float) -> None:
        self._tokens_s = tokens_s
        self._pieces = pieces_of(ANSWER)
        self._decisive = _ends_a_sentence(self._pieces)
        self.first_sentence_s: list[float] = []

    def __call__(self, exchange: Exchange) -> None:
        arrived = time.monotonic()
        exchange.head()
        for index, piece in enumerate(self._pieces):
            exchange.wait(max(0.0, arrived + FIRST_TOKEN_S + index / self._tokens_s - time.monotonic()))
            exchange.chunk(delta(piece))
            if index == self._decisive:
                self.first_sentence_s.append(time.monotonic() - arrived)
        exchange.chunk(delta(None, "stop") + DONE)
        exchange.end()


def _ends_a_sentence(pieces: list[str]) -> int:
    """Return the index of the first piece with which the server can detect the end of a sentence."""
    cutter = SentenceSplitter(Language.ENGLISH)
    return next(index for index, piece in enumerate(pieces) if cutter.feed(piece))
