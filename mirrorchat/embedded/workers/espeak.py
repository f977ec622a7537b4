"""Speech by eSpeak NG: a run of text for each language's voice, and phonemes for characters that it misreads."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.espeak_worker import HEADER
from mirrorchat.embedded.workers.process import WorkerFailed, WorkerProcesses
from mirrorchat.engines import Language
from mirrorchat.errors import SynthesisFailed

# The variants that an answer is spoken with, the neutral voice first. To the ears of Whisper base, 76 % of tinted
# Mandarin is wrong in klatt4, the clearest in English, 65 % in f2, 54 % in m3. Of 50 others none was clearer and alike.
VARIANTS = {Language.ENGLISH: ("klatt4", "m3", "f2"), Language.CHINESE: ("m3", "f2")}
_VOICES = {Language.ENGLISH: "en-us", Language.CHINESE: "cmn"}

_USUAL_RATE_HZ = 22_050  # of empty speech; each answer of the library says its own rate
_REQUEST_LIMIT_S = 6.0  # a sentence takes 0.01 s; after this time the process hangs
_MAX_TEXT_BYTES = 16 * 1024
# eSpeak NG makes these pauses inside a text, but none after its end, where the next run or sentence follows.
_SENTENCE_PAUSE_S, _CLAUSE_PAUSE_S = 0.34, 0.17

# Version 1.52 has no rule for these syllables of Mandarin and spells their pinyin in English ("k-song two"). Its own
# phonemes for the initials (S; tS; tS;h) and for the final of 用 (j'ong) make them. The table holds all characters of
# U+4E00-9FFF to which its dictionary gives such a syllable; the last row is "er5", which it reads "arf five".
_PHONEMES_OF_CHARACTERS = {
    "S;j'ong55": "兄兇凶匈哅忷恟汹洶胷胸訩詾讻賯",
    "S;j'ong35": "熊赨雄",
    "S;j'ong51": "夐敻詗诇",
    "tS;hj'ong55": "匔焪芎",
    "tS;hj'ong35": "儝卭宆惸桏棾橩焭煢琼瓊睘瞏穷穹窮竆笻筇茕藑藭蛩赹跫輁邛銎",
    "tS;j'ong55": "冂冋坰埛扃蘏蘔駫",
    "tS;j'ong214": "侰僒冏囧幜泂炯烱煚煛熲皛窘絅綗褧迥逈顈颎駉澃",
    "'@r35": "兒",
}
_PHONEMES = {
    ord(character): f"[[{phonemes}]]"
    for phonemes, characters in _PHONEMES_OF_CHARACTERS.items()
    for character in characters
}

# Han only: full-width punctuation and the digits of Chinese text belong to the run in which they stand.
_HAN = re.compile(r"[\u2e80-\u2fdf\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\[\]]+")  # control-A and [[ are commands to eSpeak
_SENTENCE_ENDS, _CLAUSE_ENDS = ".!?。！？…；;", ",:，、：—"
_ENDING = re.compile(rf"([{_SENTENCE_ENDS}{_CLAUSE_ENDS}])\W*$")


@dataclass(frozen=True)
class Run:
    """A part of a text for one voice, and the silence in seconds that follows it."""

    text: str
    language: Language
    pause_s: float


@dataclass(frozen=True)
class Spoken:
    """Speech, and its phonemes in eSpeak's mnemonics."""

    audio: Audio
    phonemes: str


class Espeak(WorkerProcesses):
    """Speaks text in spoken form through one eSpeak NG worker process. Thread-safe; deterministic.

    The English voice says the English words of a Chinese text, and the other way round: the Mandarin voice would give
    each English syllable a tone.
    """

    def __init__(self) -> None:
        super().__init__("mirrorchat.embedded.workers.espeak_worker")

    def speak(self, text: str, language: Language, variant: str, *, context: Context) -> Spoken:
        """Return `text` as speech of a variant: float32 in [-1, 1], 22,050 Hz, empty without letters or digits.

        Raises SynthesisFailed when the process crashes, hangs or breaks the protocol (the next call gets a new one),
        and the reason if `context` ends.
        """
        rate_hz = _USUAL_RATE_HZ
        parts: list[Samples] = [np.zeros(0, np.float32)]
        phonemes = []
        for run in split_runs(text, language):
            spoken = self._speak_run(run, variant, context)
            rate_hz = spoken.audio.sample_rate
            parts += [spoken.audio.samples, np.zeros(int(run.pause_s * rate_hz), np.float32)]
            phonemes.append(spoken.phonemes)
        return Spoken(Audio(np.concatenate(parts), rate_hz), " ".join(phonemes))

    def _speak_run(self, run: Run, variant: str, context: Context) -> Spoken:
        text = run.text.encode()
        if len(text) > _MAX_TEXT_BYTES:
            raise SynthesisFailed("the sentence is too long to be spoken in one piece")
        request = f"{_VOICES[run.language]}+{variant}\0".encode() + text
        try:
            return _decode(self.request(request, limit_s=_REQUEST_LIMIT_S, context=context))
        except WorkerFailed as error:
            raise SynthesisFailed(f"the sentence could not be spoken: eSpeak NG: {error}") from None


def split_runs(text: str, language: Language) -> list[Run]:
    """Return `text` as runs of Chinese and of other text, in order, with phonemes for misread characters.

    Digits, punctuation and spaces belong to the run before them. Runs without a letter or digit are left out.
    """
    characters = _with_languages(_UNSPEAKABLE.sub(" ", text), language)
    runs = []
    for run_language, group in itertools.groupby(characters, key=lambda pair: pair[1]):
        run = "".join(character for character, _ in group)
        if any(character.isalnum() for character in run):
            # eSpeak NG would also pause after a second mark, such as a quote after a full stop.
            run = _ENDING.sub(r"\1", run.strip())
            phonetic = run.translate(_PHONEMES) if run_language is Language.CHINESE else run
            runs.append(Run(phonetic, run_language, _pause_s(run)))
    return runs


def _with_languages(text: str, language: Language) -> Iterator[tuple[str, Language]]:
    """Yield each character with the language of its run."""
    for character in text:
        if _HAN.match(character):
            language = Language.CHINESE
        elif _LATIN.match(character):
            language = Language.ENGLISH
        yield character, language


def _pause_s(text: str) -> float:
    if text[-1] in _SENTENCE_ENDS:
        return _SENTENCE_PAUSE_S
    return _CLAUSE_PAUSE_S if text[-1] in _CLAUSE_ENDS else 0.0


def _decode(answer: bytes) -> Spoken:
    rate_hz, length = HEADER.unpack_from(answer) if len(answer) >= HEADER.size else (0, 0)
    sound = answer[HEADER.size + length :]
    if not 8_000 <= rate_hz <= 48_000 or length > len(answer) - HEADER.size or len(sound) % 2:
        raise WorkerFailed("its answer is malformed")
    phonemes = answer[HEADER.size : HEADER.size + length].decode(errors="replace")
    pcm: npt.NDArray[np.int16] = np.frombuffer(sound, dtype="<i2")
    return Spoken(Audio(pcm.astype(np.float32) / 32768.0, rate_hz), phonemes)
