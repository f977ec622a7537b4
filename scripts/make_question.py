"""Makes examples/question.wav: a question spoken by eSpeak NG (the same bytes every time)."""

from pathlib import Path

import numpy as np

from mirrorchat.audio import Audio, encode_wav
from mirrorchat.child_process import WarmChildren
from mirrorchat.engines import Cancel
from mirrorchat.espeak_child import HEADER

TEXT = "What is the best way to learn a language?"
VOICE = "en-us+f2"  # one of the voices that pocketsphinx hears well
DESTINATION = Path(__file__).resolve().parent.parent / "examples" / "question.wav"


def say(text: str, voice: str) -> Audio:
    """Return `text` spoken by an eSpeak NG voice and variant (`en-us+f2`, `cmn+m3`, ...), untinted."""
    children = WarmChildren("mirrorchat.espeak_child")
    try:
        answer = children.request(f"{voice}\0{text}".encode(), limit_s=20.0, deadline=None, cancel=Cancel())
    finally:
        children.close()
    rate_hz, length = HEADER.unpack_from(answer)
    pcm = np.frombuffer(answer[HEADER.size + length :], dtype="<i2")
    return Audio(pcm.astype(np.float32) / 32768.0, rate_hz)


if __name__ == "__main__":
    DESTINATION.parent.mkdir(exist_ok=True)
    DESTINATION.write_bytes(encode_wav(say(TEXT, VOICE)))
