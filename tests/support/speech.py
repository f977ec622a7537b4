"""Speech for tests, made by eSpeak NG in any of its voices."""

import functools

import numpy as np

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.synthetic_speech import synthesize


@functools.cache
def say(text: str, voice: str = "en-us+klatt4") -> Audio:
    """Return `text` spoken by an eSpeak NG voice (`en-us+f2`, `cmn+m3`, ...)."""
    (audio,) = synthesize((text, voice))
    return audio


def say_wav(text: str, voice: str = "en-us+klatt4") -> bytes:
    """Return `text` spoken by an eSpeak NG voice, as a wav file."""
    return encode_wav(say(text, voice))


def noise_wav(seconds: float, *, level: float = 0.1) -> bytes:
    """Return white noise as a wav file: loud, but nothing that anyone said."""
    samples = np.random.default_rng(0).standard_normal(int(16_000 * seconds)) * level
    return encode_wav(Audio(samples.astype(np.float32), 16_000))


MAN, WOMAN = "en-us+m3", "en-us+f2"


TEXTS = (
    "The north wind and the sun were disputing which was stronger, when a man came along in a warm cloak.",
    "Please open the window before you go to bed, it is far too warm in here, and close the door behind you.",
    "Good morning to all of you my dear friends, we are going to the harbour to see the ships come in today.",
)
