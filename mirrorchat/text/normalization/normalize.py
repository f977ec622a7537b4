"""Text normalization, from written form to spoken form: numbers, dates, money, units and signs become words.

The engines misread short written forms (they drop the minus of `-3°C` and the dollar of `$20`), so none is left to
them.

    normalize_text("It is -3°C.", Language.ENGLISH)  # "It is minus three degrees Celsius."
"""

from collections.abc import Collection

from mirrorchat.engines import Language
from mirrorchat.text.normalization.characters import with_plain_characters
from mirrorchat.text.normalization.chinese import normalize_chinese
from mirrorchat.text.normalization.english import normalize_english
from mirrorchat.text.normalization.scripts import ESPEAK_SCRIPTS, without_unreadable


def normalize_text(text: str, language: Language, scripts: Collection[str] = ESPEAK_SCRIPTS) -> str:
    """Return `text` as a careful speaker of `language` says it, without digits or signs that the engines misread.

    Text in spoken form does not change. Chinese characters in English text stay; the synthesizer speaks them. Words in
    a script that is not one of `scripts` are left out, with a pause.
    """
    text = without_unreadable(with_plain_characters(text), language, scripts)
    return normalize_chinese(text) if language is Language.CHINESE else normalize_english(text)
