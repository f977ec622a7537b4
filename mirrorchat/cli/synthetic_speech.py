"""Speech for trials of the engines, made by eSpeak NG. Small differences between two processes are possible."""

from contextlib import closing

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.espeak_worker import HEADER
from mirrorchat.embedded.workers.process import WorkerProcesses
from mirrorchat.engines import Language

_LIMIT_S = 20.0  # for a sentence, which takes 0.01 s: a longer request hangs

# A question in each language with its eSpeak NG voice, which pocketsphinx recognizes well.
QUESTIONS = {
    Language.CHINESE: ("今天天气怎么样？", "cmn+f2"),
    Language.ENGLISH: ("What is the best way to learn a language?", "en-us+f2"),
}


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
