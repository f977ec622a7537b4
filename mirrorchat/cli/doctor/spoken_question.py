"""Questions spoken by eSpeak NG, to try things with: the same bytes every time."""

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.embedded.workers.espeak_child import HEADER
from mirrorchat.embedded.workers.process import WorkerProcesses
from mirrorchat.engines import Cancel, Language

QUESTIONS = {  # what is asked, and by which voice: pocketsphinx hears this one well
    Language.CHINESE: ("今天天气怎么样？", "cmn+f2"),
    Language.ENGLISH: ("What is the best way to learn a language?", "en-us+f2"),
}


def say(text: str, voice: str) -> Audio:
    """Return `text` spoken by an eSpeak NG voice and variant (`en-us+f2`, `cmn+m3`, ...), untinted.

    Raises ChildFailed when eSpeak NG does not work.
    """
    children = WorkerProcesses("mirrorchat.embedded.workers.espeak_child")
    try:
        answer = children.request(f"{voice}\0{text}".encode(), limit_s=20.0, deadline=None, cancel=Cancel())
    finally:
        children.close()
    rate_hz, length = HEADER.unpack_from(answer)
    pcm = np.frombuffer(answer[HEADER.size + length :], dtype="<i2")
    return Audio(pcm.astype(np.float32) / 32768.0, rate_hz)
