"""Recordings with several channels, and the one that holds the speech."""

from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from support.audio_files import wav
from support.places import QUESTION

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.samples import Samples
from mirrorchat.audio.vad import find_speech

SPEECH, RATE = soundfile.read(QUESTION, dtype="float32")
SPOKEN_S = find_speech(decode(wav(SPEECH, RATE), limit_s=60)).speech_s


def late(samples: Samples, delay_ms: float) -> Samples:
    delay = round(RATE * delay_ms / 1000)
    return np.concatenate([np.zeros(delay, np.float32), samples[: len(samples) - delay]])


def hiss(level: float, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(0.0, level, len(SPEECH)).astype(np.float32)


def square(hz: float, level: float) -> Samples:
    samples: Samples = (level * np.sign(np.sin(2 * np.pi * hz * np.arange(len(SPEECH)) / RATE))).astype(np.float32)
    return samples


NOTHING = np.zeros_like(SPEECH)
LOST: dict[str, Callable[[], list[Samples]]] = {
    "inverted": lambda: [SPEECH, -SPEECH],
    "inverted, the first quieter": lambda: [-0.9 * SPEECH, SPEECH],
    "inverted, with hiss": lambda: [SPEECH + hiss(0.002), -0.95 * SPEECH + hiss(0.002, 1)],
    "inverted and late": lambda: [SPEECH, -late(SPEECH, 2)],
    "late": lambda: [late(SPEECH, 5), SPEECH],
    "loud hiss in the first": lambda: [hiss(0.3), 0.4 * SPEECH],
    "loud hiss in the second": lambda: [0.4 * SPEECH, hiss(0.1)],
    "loud buzz in the first": lambda: [square(440, 0.5), 0.3 * SPEECH],
    "six, three of them inverted": lambda: [SPEECH, -SPEECH, hiss(0.001), hiss(0.001, 1), SPEECH, -SPEECH],
    "six, with a rumbling one": lambda: [0.1 * SPEECH, 0.1 * SPEECH, 0.2 * SPEECH, square(40, 0.9), NOTHING, NOTHING],
}
KEPT: dict[str, Callable[[], list[Samples]]] = {
    "twice the same": lambda: [SPEECH, SPEECH],
    "two microphones": lambda: [SPEECH + hiss(0.001), 0.8 * SPEECH + hiss(0.001, 1)],
    "two microphones, 5 cm apart": lambda: [SPEECH, 0.8 * late(SPEECH, 0.15)],
    "the second silent": lambda: [SPEECH, NOTHING],
    "the first silent": lambda: [NOTHING, SPEECH],
    "six, only one of them": lambda: [NOTHING, NOTHING, SPEECH, NOTHING, NOTHING, NOTHING],
    "two people, one after the other": lambda: [
        np.concatenate([SPEECH, NOTHING]),
        np.concatenate([NOTHING, np.roll(SPEECH, 999)]),
    ],
    "silence": lambda: [NOTHING, NOTHING],
}


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
@pytest.mark.parametrize("name", LOST)
def test_speech_is_found_where_the_mean_loses_it(name: str, container: str) -> None:
    channels = np.clip(np.stack(LOST[name](), axis=1), -1.0, 1.0)
    audio = decode(wav(channels, RATE, "PCM_16", container), limit_s=60)
    assert find_speech(audio).speech_s == pytest.approx(SPOKEN_S, abs=0.2)
    alike = [abs(np.corrcoef(audio.samples, channel)[0, 1]) for channel in channels.T if channel.any()]
    assert max(alike) > 0.999, "it is no channel"


@pytest.mark.parametrize("name", KEPT)
def test_the_mean_is_kept_where_it_is_right(name: str) -> None:
    channels = np.stack(KEPT[name](), axis=1)
    data = wav(channels, RATE, "FLOAT")
    np.testing.assert_array_equal(decode(data, limit_s=60).samples, channels.mean(axis=1, dtype=np.float32))


def test_the_mean_loses_the_speech_of_these_recordings() -> None:
    """Otherwise the first test could not fail."""
    for name in ("inverted", "loud hiss in the first", "loud buzz in the first", "six, three of them inverted"):
        mean = np.stack(LOST[name](), axis=1).mean(axis=1)
        assert find_speech(decode(wav(mean.astype(np.float32), RATE), limit_s=60)).speech_s < 0.5 * SPOKEN_S, name
