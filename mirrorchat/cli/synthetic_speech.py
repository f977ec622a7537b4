"""Speech for trials of the engines, made by eSpeak NG, or by the synthesizer that is installed.

Small differences between two processes are possible.
"""

from contextlib import closing

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.espeak_worker import HEADER
from mirrorchat.embedded.workers.process import WorkerProcesses
from mirrorchat.engines import SPEECH_NEEDED_S, Language, Priority, Synthesizer, Tier
from mirrorchat.errors import MirrorChatError

_LIMIT_S = 20.0  # for a sentence, which takes 0.01 s: a longer request hangs

# A question in each language with its eSpeak NG voice, which pocketsphinx recognizes well.
QUESTIONS = {
    Language.CHINESE: ("今天天气怎么样？", "cmn+f2"),
    Language.ENGLISH: ("What is the best way to learn a language?", "en-us+f2"),
}


def speak_question(language: Language, synthesizer: Synthesizer, *, limit_s: float) -> Audio:
    """Return the question of `language` in the neutral voice of `synthesizer`, which `limit_s` seconds bound.

    eSpeak NG speaks it for an engine on the floor, and where an engine fails: a good recognizer mishears its Mandarin.
    Raises WorkerFailed when eSpeak NG fails.
    """
    if synthesizer.info.tier is not Tier.FLOOR:
        try:
            spoken = _neutral_speech(QUESTIONS[language][0], language, synthesizer, limit_s)
        except MirrorChatError:
            pass  # the trial goes on to the stage that speaks, and says what is wrong
        else:
            if find_speech(spoken).speech_s >= SPEECH_NEEDED_S:
                return spoken
    (audio,) = synthesize(QUESTIONS[language])
    return audio


def _neutral_speech(text: str, language: Language, synthesizer: Synthesizer, limit_s: float) -> Audio:
    pieces = synthesizer.speak(
        text, synthesizer.voice([]), language, seed=0, priority=Priority.FIRST, context=Context.after(limit_s)
    )
    samples = [piece.samples for piece in pieces]
    return Audio(np.concatenate([np.zeros(0, np.float32), *samples]), synthesizer.sample_rate)


def synthesize(*sentences: tuple[str, str]) -> list[Audio]:
    """Return the speech of each (text, voice), without the tint of a speaker.

    A voice is an eSpeak NG voice with a variant (`en-us+f2`, `cmn+m3`, ...). Raises WorkerFailed when eSpeak NG fails.
    """
    with closing(WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")) as workers:
        return [
            _decoded(workers.request(f"{voice}\0{text}".encode(), limit_s=_LIMIT_S, context=Context()))
            for text, voice in sentences
        ]


def _decoded(answer: bytes) -> Audio:
    rate_hz, length = HEADER.unpack_from(answer)
    pcm = np.frombuffer(answer[HEADER.size + length :], dtype="<i2")
    return Audio(pcm.astype(np.float32) / 32768.0, rate_hz)
