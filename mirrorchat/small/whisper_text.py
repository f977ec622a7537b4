"""The text of Whisper's tokens: bytes of UTF-8, in the coding of GPT-2's vocabulary, become words with their times."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from mirrorchat.engines import Language, SpokenToken, TimedWord
from mirrorchat.text.sentences.speech_length import HAN, count_han, starts_with_han

TEXT_TOKENS = 50_257  # the first of the vocabulary are text, all others are special
_FIRST_SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>"]

_FULL_WIDTH = str.maketrans(",.?!:;", "，。？！：；")
# A mark after a Chinese character, or before one; but not that of a name (文件.txt, U.S.政府).
_CHINESE_MARK = re.compile(rf"(?<=[{HAN}])(?:[,?!:;]{{1,3}}|\.(?![A-Za-z0-9.]))|[,?!:;](?= ?[{HAN}])")
_PAUSE = re.compile(rf"(?<=[，。？！：；、]) | (?=[，。？！：；、])|(?<=[{HAN}]) (?=[{HAN}])")
_LATIN = re.compile("[A-Za-z]")
_LONGEST_REPETITION = 12  # tokens
_REPETITIONS = 4
_SHORTEST_RESTART = 4  # letters or Chinese characters
_RESTART_SHARE = 0.25  # of the text


@dataclass(frozen=True)
class HeardToken:
    """A token as `bytes` of text, its start in seconds, and its probability."""

    data: bytes
    start_s: float
    confidence: float


def read_vocabulary(path: Path) -> list[str]:
    """Return the tokens in the file of the model, by their ids. Raises ValueError if they are not Whisper's."""
    tokens = path.read_text(encoding="utf-8").split("\n")
    if tokens[TEXT_TOKENS:][: len(_FIRST_SPECIAL)] != _FIRST_SPECIAL:  # a lost line shifts the ids
        raise ValueError(f"{path.name} holds no vocabulary of Whisper for several languages")
    return tokens


def token_bytes(tokens: Sequence[str]) -> list[bytes]:
    """Return the bytes of each token of text. GPT-2 writes each byte as one visible character.

    Raises ValueError for any other character.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in visible]
    codes = {chr(byte): byte for byte in visible} | {chr(0x100 + at): byte for at, byte in enumerate(hidden)}
    try:
        return [bytes(codes[character] for character in token) for token in tokens[:TEXT_TOKENS]]
    except KeyError as error:
        raise ValueError(f"the vocabulary has {error}, which stands for no byte") from None


def without_loop(ids: Sequence[int]) -> list[int]:
    """Return `ids` with one copy of what they repeat at their end four times or more: the decoder was in a loop."""
    kept = list(ids)
    for length in range(1, min(_LONGEST_REPETITION, len(kept) // _REPETITIONS) + 1):
        if _repeats(kept, length):
            while len(kept) >= 2 * length and kept[-length:] == kept[-2 * length : -length]:
                del kept[-length:]
            break
    return kept


def _repeats(ids: Sequence[int], length: int) -> bool:
    end = ids[-length:]
    return all(ids[len(ids) - (time + 1) * length : len(ids) - time * length] == end for time in range(_REPETITIONS))


def starts_again(text: str) -> bool:
    """Return whether `text` ends with a good part of its beginning: the decoder started again."""
    letters = "".join(filter(str.isalnum, text))
    shortest = max(_SHORTEST_RESTART, math.ceil(_RESTART_SHARE * len(letters)))
    return any(letters.endswith(letters[:length]) for length in range(shortest, len(letters) // 2 + 1))


def tidy(text: str) -> str:
    """Return `text` without the spaces that Whisper writes at its start and for pauses in Chinese."""
    return _PAUSE.sub("", " ".join(text.split()))


def chinese_marks(text: str) -> str:
    """Return `text` with full-width marks, which Whisper often lacks, beside Chinese characters: as long as it was."""
    return _CHINESE_MARK.sub(lambda marks: marks[0].translate(_FULL_WIDTH), text)


def with_chinese_marks(tokens: Sequence[SpokenToken]) -> list[SpokenToken]:
    """Return the tokens with `chinese_marks`, which the neighbours of a token decide."""
    marked = chinese_marks("".join(token.text for token in tokens))
    ends = accumulate(len(token.text) for token in tokens)
    return [replace(token, text=marked[end - len(token.text) : end]) for token, end in zip(tokens, ends, strict=True)]


def written_language(text: str, detected: Language) -> Language:
    """Return the language of a transcript: `detected`, but English for Latin letters without a Chinese character.

    After "Yes, please." in a strange voice Whisper has been seen to take it for Chinese and to write it in English.
    """
    return detected if count_han(text) or not _LATIN.search(text) else Language.ENGLISH


def spoken_tokens(heard: Sequence[HeardToken], end_s: float) -> list[SpokenToken]:
    """Return the tokens as text. Parts of one character are joined; each token ends where the next begins."""
    joined: list[HeardToken] = []
    for token in heard:
        if joined and not _is_whole(joined[-1].data):
            last = joined[-1]
            joined[-1] = HeardToken(last.data + token.data, last.start_s, min(last.confidence, token.confidence))
        else:
            joined.append(token)
    ends_s = [token.start_s for token in joined[1:]] + [end_s]
    return [
        SpokenToken(token.data.decode("utf-8", "replace"), token.start_s, max(token.start_s, end), token.confidence)
        for token, end in zip(joined, ends_s, strict=True)
    ]


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end < len(data) or error.reason != "unexpected end of data"
    return True


def timed_words(tokens: Sequence[SpokenToken]) -> tuple[TimedWord, ...]:
    """Return the words that `tokens` spell: a space begins a word, a Chinese character is one, marks join the last."""
    words: list[TimedWord] = []
    for token in tokens:
        parts = re.findall(rf"[{HAN}]|[^{HAN}]+", token.text)
        each_s = (token.end_s - token.start_s) / max(len(parts), 1)
        for at, part in enumerate(parts):
            text, start_s = part.strip(), token.start_s + at * each_s
            if not text:
                continue
            begins = starts_with_han(text) or part[0].isspace() or not words or starts_with_han(words[-1].text)
            if begins and any(character.isalnum() for character in text):
                words.append(TimedWord(text, start_s, start_s + each_s))
            elif words:
                words[-1] = TimedWord(words[-1].text + text, words[-1].start_s, start_s + each_s)
    return tuple(words)
