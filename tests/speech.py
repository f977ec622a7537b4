"""Speech for tests, made by eSpeak NG in any of its voices."""

import functools

import numpy as np

from mirrorchat.audio import Audio, encode_wav
from mirrorchat.doctor import spoken_question


@functools.cache
def say(text: str, voice: str = "en-us+klatt4") -> Audio:
    """Return `text` spoken by an eSpeak NG voice (`en-us+f2`, `cmn+m3`, ...)."""
    return spoken_question.say(text, voice)


def say_wav(text: str, voice: str = "en-us+klatt4") -> bytes:
    """Return `text` spoken by an eSpeak NG voice, as a wav file."""
    return encode_wav(say(text, voice))


def noise_wav(seconds: float, *, level: float = 0.1) -> bytes:
    """Return white noise as a wav file: loud, but nothing that anyone said."""
    samples = np.random.default_rng(0).standard_normal(int(16_000 * seconds)) * level
    return encode_wav(Audio(samples.astype(np.float32), 16_000))
