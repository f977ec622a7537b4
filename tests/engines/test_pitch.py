"""The pitch of synthetic speech: against known pitches, and against WORLD's Harvest, which is far slower."""

import numpy as np
import pytest
from support.speech import MAN, TEXTS, WOMAN, say

from mirrorchat.audio.samples import Audio
from mirrorchat.embedded.pitch import FRAME_S, follow_pitch
from mirrorchat.embedded.voice_tint import SAMPLE_RATE_HZ, VoiceTint


def buzz(hz: np.ndarray, rate_hz: int) -> Audio:
    """Return a buzz of 20 harmonics whose pitch is `hz` at each sample."""
    phase = 2 * np.pi * np.cumsum(hz) / rate_hz
    samples = sum(np.sin(number * phase) / number for number in range(1, 21))
    return Audio((0.1 * np.asarray(samples)).astype(np.float32), rate_hz)


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
@pytest.mark.parametrize(("first_hz", "last_hz"), [(80.0, 80.0), (100.0, 180.0), (260.0, 150.0), (400.0, 400.0)])
def test_the_pitch_of_a_buzz(rate_hz: int, first_hz: float, last_hz: float) -> None:
    hz = np.linspace(first_hz, last_hz, rate_hz)
    pitch = follow_pitch(buzz(hz, rate_hz))
    assert pitch.shape == (201,)
    inner = slice(10, -10)
    expected = np.interp(FRAME_S * np.arange(201), np.arange(rate_hz) / rate_hz, hz)
    np.testing.assert_allclose(pitch[inner], expected[inner], rtol=0.015)


@pytest.mark.parametrize("speaker", [MAN, WOMAN])
@pytest.mark.parametrize("text", TEXTS[:2])
def test_it_agrees_with_harvest(speaker: str, text: str) -> None:
    speech = say(text, speaker).resample(SAMPLE_RATE_HZ)
    world = VoiceTint()._world
    bounds = {"f0_floor": 60.0, "f0_ceil": 450.0, "frame_period": 5.0}
    reference, _ = world.harvest(np.ascontiguousarray(speech.samples, np.float64), SAMPLE_RATE_HZ, **bounds)
    pitch = follow_pitch(speech)
    assert pitch.shape == reference.shape
    both = (pitch > 0) & (reference > 0)
    assert both.sum() > 0.7 * (reference > 0).sum()  # Harvest reaches into weak frames
    assert both.sum() > 0.9 * (pitch > 0).sum()
    apart = np.abs(np.log(pitch[both] / reference[both]))
    assert np.median(apart) < 0.01
    assert (apart > 0.2).mean() < 0.08  # octaves, and ends of words


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    assert (follow_pitch(Audio(0.1 * noise, 16_000)) > 0).mean() < 0.1
    assert not follow_pitch(Audio(np.zeros(16_000, np.float32), 16_000)).any()


def test_quiet_ends_have_no_pitch() -> None:
    voice = buzz(np.full(8_000, 120.0), 16_000).samples
    pitch = follow_pitch(Audio(np.concatenate([voice, 0.01 * voice, voice]), 16_000))
    assert pitch[20:80].all() and pitch[220:280].all()
    assert not pitch[115:185].any()


@pytest.mark.parametrize("samples", [1, 79, 80, 161])
def test_short_speech_has_as_many_frames_as_worlds(samples: int) -> None:
    assert len(follow_pitch(Audio(np.full(samples, 0.1, np.float32), 16_000))) == samples // 80 + 1
