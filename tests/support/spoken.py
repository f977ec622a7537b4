"""What is spoken of an answer: the splitter and text normalization in a row."""

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import SentenceSplitter


def spoken_sentences(answer: str, language: Language) -> list[str]:
    """Return the sentences of `answer` in spoken form."""
    splitter = SentenceSplitter(language)
    return [normalize_text(sentence, language) for sentence in splitter.feed(answer) + splitter.flush()]


def spoken(answer: str, language: Language) -> str:
    """Return `answer` in spoken form, in one line."""
    return ("" if language is Language.CHINESE else " ").join(spoken_sentences(answer, language))
