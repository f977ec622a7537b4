"""Text normalization, from written form to spoken form: numbers, dates, money, units and signs become words.

The engines misread short written forms (they drop the minus of `-3°C` and the dollar of `$20`), so none is left to
them.

    normalize_text("It is -3°C.", Language.ENGLISH)  # "It is minus three degrees Celsius."
"""

from mirrorchat.engines import Language
from mirrorchat.text.normalization.characters import with_plain_characters
from mirrorchat.text.normalization.chinese import normalize_chinese
from mirrorchat.text.normalization.english import normalize_english


def normalize_text(text: str, language: Language) -> str:
    """Return `text` as a careful speaker of `language` says it, without digits or signs that the engines misread.

    Text in spoken form does not change. Chinese characters in English text stay; the synthesizer speaks them.
    """
    text = with_plain_characters(text)
    return normalize_chinese(text) if language is Language.CHINESE else normalize_english(text)
