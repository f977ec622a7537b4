"""eSpeak NG speech in two languages: text cut into runs per voice, what it misreads given as phonemes, runs joined."""

import itertools
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.embedded.workers.espeak_worker import HEADER
from mirrorchat.embedded.workers.process import WorkerFailed, WorkerProcesses
from mirrorchat.engines import Language
from mirrorchat.errors import SynthesisFailed
from mirrorchat.turn.context import Context

# klatt4 is the variant that is understood best: pocketsphinx errs on 22 % of its words, on 50 % of the default voice's.
VOICES = {Language.ENGLISH: "en-us+klatt4", Language.CHINESE: "cmn+klatt4"}

_USUAL_RATE_HZ = 22_050  # for speech of no length; the library tells its own with each answer
_REQUEST_LIMIT_S = 15.0  # a sentence takes 0.01 s; this is a hang
_MAX_TEXT_BYTES = 16 * 1024
# What eSpeak NG pauses inside a text; after its end it does not, and the next run or sentence would be run into.
_SENTENCE_PAUSE_S, _CLAUSE_PAUSE_S = 0.34, 0.17

# Version 1.52 has no rule for these syllables of Mandarin and spells their pinyin in English ("k-song two"). Its own
# phonemes for the initials (S; tS; tS;h) and for the final of 用 (j'ong) make them. The characters are all of
# U+4E00-9FFF that its dictionary gives such a syllable; the last row is "er5", which it reads "arf five".
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

# Han, with the full-width punctuation and the digits of Chinese text left to whichever run they stand in.
_HAN = re.compile(r"[\u2e80-\u2fdf\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\[\]]+")  # control-A and [[ are commands to eSpeak
_SENTENCE_ENDS, _CLAUSE_ENDS = ".!?。！？…；;", ",:，、：—"
_ENDING = re.compile(rf"([{_SENTENCE_ENDS}{_CLAUSE_ENDS}])\W*$")


@dataclass(frozen=True)
class Run:
    """A stretch of text for one voice, and the silence in seconds that belongs after it."""

    text: str
    language: Language
    pause_s: float


@dataclass(frozen=True)
class Spoken:
    """Speech, and the phonemes (eSpeak mnemonics) that were spoken."""

    audio: Audio
    phonemes: str


class Espeak:
    """Speaks text as it stands (spoken form) through one warm eSpeak NG process. Thread-safe; deterministic.

    Where an English word stands in Chinese text the English voice says it, and the other way round: the Mandarin
    voice would give each English syllable a tone.
    """

    def __init__(self) -> None:
        self._workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")

    def warm_up(self) -> None:
        """Start the process. Raises WorkerFailed with the reason when eSpeak NG cannot be loaded."""
        self._workers.warm_up()

    def speak(self, text: str, language: Language, *, context: Context) -> Spoken:
        """Return `text` as speech: float32 in [-1, 1], 22,050 Hz, empty when there is nothing in it to say.

        Raises SynthesisFailed when the process crashes, hangs or answers nonsense (the next call gets a new one), and
        what ends `context`.
        """
        rate_hz = _USUAL_RATE_HZ
        parts: list[Samples] = [np.zeros(0, np.float32)]
        phonemes = []
        for run in split_runs(text, language):
            spoken = self._speak_run(run, context)
            rate_hz = spoken.audio.sample_rate
            parts += [spoken.audio.samples, np.zeros(int(run.pause_s * rate_hz), np.float32)]
            phonemes.append(spoken.phonemes)
        return Spoken(Audio(np.concatenate(parts), rate_hz), " ".join(phonemes))

    def check_start(self) -> None:
        """Raise WorkerFailed with the reason when the process has just failed to start."""
        self._workers.check_start()

    def pids(self) -> list[int]:
        """Return the ids of the running processes."""
        return self._workers.pids()

    def close(self) -> None:
        """End the process."""
        self._workers.close()

    def _speak_run(self, run: Run, context: Context) -> Spoken:
        text = run.text.encode()
        if len(text) > _MAX_TEXT_BYTES:
            raise SynthesisFailed("the sentence is too long to be spoken in one piece")
        request = VOICES[run.language].encode() + b"\0" + text
        try:
            answer = self._workers.request(request, limit_s=_REQUEST_LIMIT_S, context=context)
            return _decode(answer)
        except WorkerFailed as error:
            raise SynthesisFailed(f"the sentence could not be spoken: eSpeak NG: {error}") from None


def split_runs(text: str, language: Language) -> list[Run]:
    """Return `text` as runs of Chinese and of other text, in order, misread characters given as phonemes.

    What is neither Han nor Latin (digits, punctuation, spaces) stays with the run before it. Runs without a letter or
    digit are left out.
    """
    owners = _owners(_UNSPEAKABLE.sub(" ", text), language)
    runs = []
    for owner, group in itertools.groupby(owners, key=lambda pair: pair[1]):
        run = "".join(character for character, _ in group)
        if any(character.isalnum() for character in run):
            # Behind a mark that closes nothing for it (a quote, a second full stop) eSpeak NG would pause as well.
            run = _ENDING.sub(r"\1", run.strip())
            given = run.translate(_PHONEMES) if owner is Language.CHINESE else run
            runs.append(Run(given, owner, _pause_s(run)))
    return runs


def _owners(text: str, language: Language) -> list[tuple[str, Language]]:
    owners = []
    owner = language
    for character in text:
        if _HAN.match(character):
            owner = Language.CHINESE
        elif _LATIN.match(character):
            owner = Language.ENGLISH
        owners.append((character, owner))
    return owners


def _pause_s(text: str) -> float:
    if text[-1] in _SENTENCE_ENDS:
        return _SENTENCE_PAUSE_S
    return _CLAUSE_PAUSE_S if text[-1] in _CLAUSE_ENDS else 0.0


def _decode(answer: bytes) -> Spoken:
    if len(answer) < HEADER.size:
        raise WorkerFailed("its answer is malformed")
    rate_hz, length = HEADER.unpack_from(answer)
    sound = answer[HEADER.size + length :]
    if not 8_000 <= rate_hz <= 48_000 or length > len(answer) - HEADER.size or len(sound) % 2:
        raise WorkerFailed("its answer is malformed")
    phonemes = answer[HEADER.size : HEADER.size + length].decode(errors="replace")
    pcm: npt.NDArray[np.int16] = np.frombuffer(sound, dtype="<i2")
    return Spoken(Audio(pcm.astype(np.float32) / 32768.0, rate_hz), phonemes)
