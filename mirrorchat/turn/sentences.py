"""The sentences of an answer while its text arrives. Text that the splitter fails on is named; the rest goes on."""

from collections.abc import Iterator
from dataclasses import dataclass

from mirrorchat.engines import Language
from mirrorchat.errors import MirrorChatError, as_mirrorchat_error
from mirrorchat.text.splitter import SentenceSplitter


@dataclass(frozen=True)
class Sentence:
    """A sentence to speak, or with a `failure` a text that could not be made into sentences."""

    text: str
    failure: MirrorChatError | None = None


class AnswerSentences:
    """Splits an answer into sentences, each as early as possible. Not thread-safe.

    sentences = AnswerSentences(Language.ENGLISH)
    for delta in chat:
        for sentence in sentences.feed(delta): ...
    for sentence in sentences.flush(): ...
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._splitter = SentenceSplitter(language)
        self._unsplit: list[str] = []  # the text since the last sentence

    def feed(self, delta: str) -> list[Sentence]:
        """Return the sentences that `delta` completes."""
        return [sentence for character in delta for sentence in self._split(character)]

    def flush(self) -> list[Sentence]:
        """End the answer: return the remaining sentences."""
        return list(self._split(""))

    def _split(self, character: str) -> Iterator[Sentence]:
        """Yield the sentences that one character completes, or the end of the text ("")."""
        try:
            found = self._splitter.feed(character) if character else self._splitter.flush()
        except Exception as error:  # a defect of ours, which one sentence has met
            yield Sentence("".join(self._unsplit).strip(), as_mirrorchat_error(error))
            self._splitter = SentenceSplitter(self._language)
            self._splitter.feed(character)  # it begins the next sentence
            self._unsplit = [character]
            return
        if found:
            self._unsplit.clear()
        self._unsplit.append(character)
        yield from map(Sentence, found)
