"""Time stretching: the stretched speech has the expected length and the same pitch."""

from collections.abc import Iterator

import numpy as np
import pytest
from support.audio_files import tone
from support.speech import say

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.time_stretch import TimeStretch, at_speed
from mirrorchat.embedded.voice_tint import VoiceTint

RATE = 24_000
SPEEDS = (0.25, 0.4, 0.5, 0.9, 1.25, 2.0, 3.0, 4.0)


def stretched(samples: np.ndarray, speed: float, step: int) -> np.ndarray:
    stretch = TimeStretch(speed, RATE)
    parts = [stretch.push(samples[start : start + step]) for start in range(0, len(samples), step)]
    return np.concatenate([*parts, stretch.finish()])


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_length_changes_and_the_pitch_stays(speed: float) -> None:
    spoken = say("Here is a sentence that is said faster and slower, as it was asked for.").resample(RATE)
    heard = stretched(spoken.samples, speed, 1000)
    assert len(spoken.samples) / len(heard) == pytest.approx(speed, rel=0.02)
    assert np.abs(heard).max() == pytest.approx(np.abs(spoken.samples).max(), rel=0.3)
    sine = stretched(tone(220.0, 4.0, RATE), speed, 1000)
    assert np.argmax(np.abs(np.fft.rfft(sine))) * RATE / len(sine) == pytest.approx(220.0, rel=0.01)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.5, 2.0])
def test_a_voice_keeps_its_pitch(speed: float) -> None:
    spoken, tint = (
        say("Here is a sentence that is said faster and slower, as it was asked for.").resample(RATE),
        VoiceTint(),
    )
    before = tint.profile(spoken)
    after = tint.profile(Audio(stretched(spoken.samples, speed, 4096), RATE))
    assert before is not None and after is not None
    assert np.exp(after.f0_mean - before.f0_mean) == pytest.approx(1.0, abs=0.04)


def test_the_size_of_the_steps_changes_nothing() -> None:
    samples = say("Here is a sentence.").resample(RATE).samples
    whole = stretched(samples, 1.5, len(samples))
    for step in (777, 12_000):
        np.testing.assert_array_equal(stretched(samples, 1.5, step), whole)


def test_an_empty_stream_stays_empty() -> None:
    assert len(stretched(np.zeros(0, np.float32), 2.0, 1)) == 0


def test_pieces_are_stretched_while_they_come() -> None:
    samples, taken = tone(220.0, 4.0, RATE), 0

    def pieces() -> Iterator[Audio]:
        nonlocal taken
        for at in range(0, len(samples), 2400):
            taken += 2400
            yield Audio(samples[at : at + 2400], RATE)

    heard = at_speed(pieces(), 2.0)
    first = next(heard)
    assert taken < len(samples) / 4
    assert sum(piece.duration_s for piece in (first, *heard)) == pytest.approx(2.0, rel=0.02)


def test_pieces_at_their_own_speed_are_passed_on() -> None:
    piece = Audio(tone(220.0, 0.1, RATE), RATE)
    assert [each is piece for each in at_speed(iter([piece]), 1.0)] == [True]
