"""An offset and the hum of the mains are removed where they are significant, and nowhere else."""

import time

import numpy as np
import pytest
import soundfile
from support.places import CLIPS, QUESTION, ROOT

from mirrorchat.audio.hum import without_hum
from mirrorchat.audio.samples import Audio, Samples

RECORDINGS = sorted([*(ROOT / "examples").glob("*.wav"), *CLIPS.glob("*.wav")])


def read(path: object, level: float = 1.0) -> Audio:
    samples, rate = soundfile.read(path, dtype="float32")
    return Audio((level * samples).astype(np.float32), rate)


def hum(audio: Audio, hz: float, level: float, harmonics: int = 1) -> Samples:
    at = np.arange(len(audio.samples)) / audio.sample_rate
    tones = [level / number * np.sin(2 * np.pi * hz * number * at + number) for number in range(1, harmonics + 1)]
    mixed: Samples = np.sum(tones, axis=0).astype(np.float32)
    return mixed


def added(audio: Audio, noise: Samples | float) -> Audio:
    return Audio((audio.samples + noise).astype(np.float32), audio.sample_rate)


def rest_db(audio: Audio, speech: Audio) -> float:
    """Return the level of what is not `speech`, above that of the speech."""
    rest = audio.samples - speech.samples
    return float(10 * np.log10(np.mean(rest**2) / np.mean(speech.samples**2)))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem[:24])
def test_ordinary_recordings_stay_as_they_are(path: object) -> None:
    audio = read(path)
    assert without_hum(audio) is audio
    quiet = read(path, 0.01)
    assert without_hum(quiet) is quiet


@pytest.mark.parametrize("offset", [0.3, -0.6])
@pytest.mark.parametrize("level", [0.1, 0.02])
def test_an_offset_is_removed(offset: float, level: float) -> None:
    speech = read(QUESTION, level)
    assert rest_db(without_hum(added(speech, offset)), speech) < -15


def test_an_offset_that_drifts_is_removed() -> None:
    speech = read(QUESTION, 0.1)
    at = np.arange(len(speech.samples)) / speech.sample_rate
    drifting = added(speech, 0.4 * np.sin(2 * np.pi * 0.3 * at).astype(np.float32))
    assert rest_db(drifting, speech) > 20 and rest_db(without_hum(drifting), speech) < -10


@pytest.mark.parametrize("hz", [50.0, 49.9, 60.0, 60.05])
@pytest.mark.parametrize(("level", "harmonics"), [(0.03, 1), (0.1, 1), (0.1, 11), (0.3, 3)])
def test_hum_is_removed(hz: float, level: float, harmonics: int) -> None:
    speech = read(QUESTION, 0.5)
    humming = added(speech, hum(speech, hz, level, harmonics))
    before, after = rest_db(humming, speech), rest_db(without_hum(humming), speech)
    assert after < min(-12.0, before - 10.0), (before, after)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem[:24])
def test_the_voice_above_the_hum_stays(path: object) -> None:
    speech = read(path, 0.5)
    humming = added(speech, hum(speech, 60, 0.1))
    window = np.hanning(len(speech.samples))
    removed = np.abs(np.fft.rfft(window * (humming.samples - without_hum(humming).samples))) ** 2
    power = np.abs(np.fft.rfft(window * speech.samples)) ** 2
    above = np.fft.rfftfreq(len(speech.samples), 1 / speech.sample_rate) > 75
    assert removed[above].sum() < 0.01 * power[above].sum()


@pytest.mark.parametrize("hz", [100.0, 120.0])
def test_hum_of_a_rectifier_is_removed(hz: float) -> None:
    speech = read(QUESTION, 0.5)
    humming = added(speech, hum(speech, hz, 0.05, 7))
    assert rest_db(without_hum(humming), speech) < rest_db(humming, speech) - 8


def test_hum_and_offset_together() -> None:
    speech = read(QUESTION, 0.1)
    assert rest_db(without_hum(added(speech, hum(speech, 60, 0.05, 3) + 0.2)), speech) < -10


def test_hum_after_digital_silence_is_removed() -> None:
    speech = read(QUESTION, 0.5)
    humming = added(speech, hum(speech, 50, 0.1, 3))
    silence = np.zeros(2 * speech.sample_rate, np.float32)
    whole = without_hum(Audio(np.concatenate([silence, humming.samples]), speech.sample_rate))
    heard = Audio(whole.samples[len(silence) :], speech.sample_rate)
    assert rest_db(heard, speech) < rest_db(humming, speech) - 6


@pytest.mark.parametrize("hz", [55.0, 110.0, 200.0, 440.0, 600.0])
def test_other_tones_stay(hz: float) -> None:
    audio = Audio(np.zeros(32_000, np.float32), 16_000)
    tone = added(audio, hum(audio, hz, 0.3))
    assert without_hum(tone) is tone


def test_what_is_too_short_or_odd_stays() -> None:
    for samples in (np.zeros(0, np.float32), np.ones(1, np.float32), np.zeros(99, np.float32)):
        audio = Audio(samples, 16_000)
        assert without_hum(audio) is audio


def test_a_minute_costs_little() -> None:
    audio = Audio(np.full(60 * 48_000, 0.2, np.float32), 48_000)
    humming = added(audio, hum(audio, 50, 0.1, 5))
    start = time.thread_time()
    without_hum(humming)
    assert time.thread_time() - start < 4.0
