"""Mandarin as phonemes: pinyin becomes the phonetic alphabet in which Kokoro was trained.

Kokoro's training used the package misaki 0.9.4 (`misaki.zh`, which rests on Stefan Taubert's pinyin-to-ipa). misaki
refuses Python 3.13 and loads a dictionary of its own for the word boundaries; pypinyin has both. The tests compare
every syllable with misaki, where it is installed. Tone sandhi is left to Kokoro: its training had none, either.
"""

import functools

from pypinyin import Style, lazy_pinyin
from pypinyin.contrib.tone_convert import to_finals, to_initials, to_normal

_INITIALS = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ", "h": "x",
    "j": "ʨ", "q": "ʨʰ", "x": "ɕ", "zh": "ꭧ", "ch": "ꭧʰ", "sh": "ʂ", "r": "ɻ", "z": "ʦ", "c": "ʦʰ", "s": "s",
}  # fmt: skip
# The tone stands after the vowel, at the hyphen.
_FINALS = {
    "a": "a-", "ai": "ai-", "an": "a-n", "ang": "a-ŋ", "ao": "au-", "e": "ɤ-", "ei": "ei-", "en": "ə-n", "eng": "ə-ŋ",
    "i": "i-", "ia": "ja-", "ian": "jɛ-n", "iang": "ja-ŋ", "iao": "jau-", "ie": "je-", "in": "i-n", "iou": "jou-",
    "ing": "i-ŋ", "iong": "jʊ-ŋ", "ong": "ʊ-ŋ", "ou": "ou-", "u": "u-", "uei": "wei-", "ua": "wa-", "uai": "wai-",
    "uan": "wa-n", "uen": "wə-n", "uang": "wa-ŋ", "ueng": "wə-ŋ", "uo": "wo-", "o": "wo-", "ü": "y-", "üe": "ɥe-",
    "üan": "ɥɛ-n", "ün": "y-n",
}  # fmt: skip
_WHOLE = {
    "er": "ɚ-", "o": "ɔ-", "io": "jɔ-", "ê": "ɛ-", "m": "m-", "n": "n-", "ng": "ŋ-", "hm": "hm-", "hng": "hŋ-",
}  # fmt: skip
_BUZZED = "ɨ-"  # the vowel of zi, ci, si and of zhi, chi, shi, ri, both written i
_BEFORE_BUZZED = frozenset(["z", "c", "s", "zh", "ch", "sh", "r"])
_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}


def mandarin_phonemes(words: list[str]) -> str:
    """Return the phonemes of words in Chinese characters, with a space between the words.

    A character without a known reading is left out.
    """
    spoken = ("".join(map(syllable_phonemes, _pinyin(word))) for word in words)
    return " ".join(filter(None, spoken))


def _pinyin(word: str) -> list[str]:
    """Return the syllables of a word, each with the digit of its tone, such as `lü4`."""
    return lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True, v_to_u=True, errors="ignore")


@functools.lru_cache(maxsize=2048)  # Mandarin has some 1,400 syllables
def syllable_phonemes(syllable: str) -> str:
    """Return the phonemes of a syllable in pinyin with the digit of its tone; nothing for what is no syllable."""
    tone, plain = _TONES.get(syllable[-1:]), to_normal(syllable, v_to_u=True)
    if tone is None:
        return ""
    if plain in _WHOLE:
        return _WHOLE[plain].replace("-", tone)
    initial, final = to_initials(plain, strict=True), to_finals(plain, strict=True, v_to_u=True)
    buzzed = final == "i" and initial in _BEFORE_BUZZED
    vowel = _BUZZED if buzzed else _FINALS.get(final, "")
    return _INITIALS.get(initial, "") + vowel.replace("-", tone)
