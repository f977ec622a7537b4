"""What the server says itself when there is no answer to speak, in the language and the voice of the answer."""

import re
from collections.abc import Mapping

from mirrorchat.engines import Language

_CODE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf]")

_ONLY_CODE: Mapping[Language, str] = {
    Language.ENGLISH: "The answer is only code, please see the screen.",
    Language.CHINESE: "回答只有代码，请看屏幕。",
}
_ONLY_EMOJI: Mapping[Language, str] = {
    Language.ENGLISH: "The answer is only emoji, please see the screen.",
    Language.CHINESE: "回答只有表情符号，请看屏幕。",
}
_NO_WORDS: Mapping[Language, str] = {
    Language.ENGLISH: "The answer has no words to read aloud, please see the screen.",
    Language.CHINESE: "回答里没有可以朗读的文字，请看屏幕。",
}
_NO_ANSWER: Mapping[Language, str] = {
    Language.ENGLISH: "No chat service has answered, please ask again later.",
    Language.CHINESE: "聊天服务都没有回答，请稍后再问。",
}


def no_words(reply: str, language: Language) -> str:
    """Return the sentence that is spoken instead of `reply`, which has no word to speak."""
    if _CODE.search(reply):
        return _ONLY_CODE[language]
    return (_ONLY_EMOJI if _EMOJI.search(reply) else _NO_WORDS)[language]


def no_answer(language: Language) -> str:
    """Return the sentence that is spoken when no chat API has answered."""
    return _NO_ANSWER[language]
