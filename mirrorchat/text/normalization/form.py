"""Written form -> spoken form: numbers, dates, money, units and signs as the words that a careful speaker says.

The engines misread what is written short (`-3°C` loses its minus, `$20` its dollar), so nothing is left to them.
"""

from mirrorchat.engines import Language
from mirrorchat.text.normalization.chinese import speak_chinese
from mirrorchat.text.normalization.english import speak_english
from mirrorchat.text.normalization.written_form import plain_characters


def spoken_form(text: str, language: Language) -> str:
    """Return `text` as it is said in `language`: no digit is left, and no sign that the engines misread.

    Spoken text is left as it is. Chinese characters under English stay: it is for the caller to speak them.
    """
    plain = plain_characters(text)
    return speak_chinese(plain) if language is Language.CHINESE else speak_english(plain)
