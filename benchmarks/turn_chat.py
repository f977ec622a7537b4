"""The chat API of benchmarks/turn.py: it streams four sentences at the constant rate of a model."""

import time

from support.chat_server import DONE, Exchange, delta, pieces_of

from mirrorchat.engines import Language
from mirrorchat.text.splitter import SentenceSplitter

ANSWERS = {
    Language.ENGLISH: (
        "Practise a little every day, and speak aloud from the first week. Listen to people who speak it well, and"
        " repeat what they say. Read short texts that you enjoy, with a dictionary close at hand. Most of all, find"
        " someone who will talk with you."
    ),
    Language.CHINESE: (
        "学习一门语言最好的办法是每天练习，而且从第一周起就大声说。多听说得好的人怎么讲，再跟着他们一句一句地重复。"
        "读一些你喜欢的短文，手边放一本词典。最重要的是，找一个愿意和你说话的人。"
    ),
}
FIRST_TOKEN_S = 0.3


class PacedAnswer:
    """Streams an answer with `tokens_s` tokens per second, FIRST_TOKEN_S after a request.

    The system prompt names its language.

    `first_sentence_s` has for each request the time from its arrival to the token that ends the first sentence: the
    shortest possible wait of a server.
    """

    def __init__(self, tokens_s: float) -> None:
        self._tokens_s = tokens_s
        self._pieces = {language: pieces_of(text) for language, text in ANSWERS.items()}
        self._decisive = {language: _ends_a_sentence(pieces, language) for language, pieces in self._pieces.items()}
        self.first_sentence_s: list[float] = []

    def __call__(self, exchange: Exchange) -> None:
        arrived = time.monotonic()
        is_chinese = "Chinese" in exchange.request.messages[0]["content"]
        language = Language.CHINESE if is_chinese else Language.ENGLISH
        exchange.head()
        for index, piece in enumerate(self._pieces[language]):
            exchange.wait(max(0.0, arrived + FIRST_TOKEN_S + index / self._tokens_s - time.monotonic()))
            exchange.chunk(delta(piece))
            if index == self._decisive[language]:
                self.first_sentence_s.append(time.monotonic() - arrived)
        exchange.chunk(delta(None, "stop") + DONE)
        exchange.end()


def _ends_a_sentence(pieces: list[str], language: Language) -> int:
    """Return the index of the first piece with which the server can detect the end of a sentence."""
    cutter = SentenceSplitter(language)
    return next(index for index, piece in enumerate(pieces) if cutter.feed(piece))
