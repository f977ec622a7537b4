"""What is measured in a recording that may become the reference of a voice."""

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.places import CLIPS
from support.speech import TEXTS, say

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import FRAME_S, speech_frames
from mirrorchat.engines import REFERENCE_LIMIT_S
from mirrorchat.turn.reference import ReferenceQuality, measure

clips_needed = pytest.mark.skipif(not CLIPS.is_dir(), reason="clips absent")


def with_pauses(speech: Audio, pause_s: float = 1.0) -> Audio:
    pause = np.zeros(int(pause_s * speech.sample_rate), np.float32)
    return Audio(np.concatenate([pause, speech.samples, pause]), speech.sample_rate)


def noisy(speech: Audio, voiced: np.ndarray, snr_db: float, seed: int = 0) -> Audio:
    """Return `speech` in white noise, `snr_db` below the mean power of the frames of 32 ms that are `voiced`."""
    length = speech.sample_rate * FRAME_S
    inside = voiced[np.minimum(np.arange(len(speech.samples)) / length, len(voiced) - 1).astype(int)]
    level = float(np.sqrt(np.mean(speech.samples[inside] ** 2))) * 10 ** (-snr_db / 20)
    noise = np.random.default_rng(seed).standard_normal(len(speech.samples)) * level
    return Audio((speech.samples + noise).astype(np.float32), speech.sample_rate)


def read_clip(name: str) -> Audio:
    samples, rate = soundfile.read(next(Path(CLIPS).glob(f"*{name}*.wav")), dtype="float32", always_2d=True)
    return Audio(samples.mean(axis=1), rate)


class TestMeasure:
    @pytest.mark.parametrize("snr_db", [5.0, 15.0, 30.0])
    def test_a_known_noise_is_found(self, snr_db: float) -> None:
        # 16 kHz: white noise at a higher rate lies partly above what is measured
        speech = with_pauses(say(TEXTS[0]).resample(16_000))
        speech = Audio(speech.samples * 0.3, speech.sample_rate)
        recording = noisy(speech, speech_frames(speech), snr_db)
        found = measure(recording, speech_frames(recording))
        assert found.snr_db is not None and abs(found.snr_db - snr_db) < 2.0

    @pytest.mark.parametrize("level", [0.01, 0.3])
    def test_loudness_and_an_offset_change_nothing(self, level: float) -> None:
        speech = with_pauses(say(TEXTS[0]).resample(16_000))
        recording = noisy(speech, speech_frames(speech), 20.0)
        voiced = speech_frames(recording)
        usual = measure(recording, voiced).snr_db
        other = measure(Audio(recording.samples * level + np.float32(0.2), 16_000), voiced).snr_db
        assert usual is not None and other is not None and abs(usual - other) < 0.1

    def test_without_a_pause_there_is_no_ratio(self) -> None:
        speech = say(TEXTS[0]).resample(16_000)
        everywhere = np.ones(len(speech_frames(speech)), np.bool_)
        assert measure(speech, everywhere).snr_db is None
        few = everywhere.copy()
        few[:8] = False  # three of them are beside speech: the detector misses how words begin
        assert measure(speech, few).snr_db is None

    def test_digital_silence_and_noise_alone_stay_within_bounds(self) -> None:
        speech = with_pauses(say(TEXTS[0]))
        assert measure(speech, speech_frames(speech)).snr_db == 96.0
        noise = Audio(np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.1, 16_000)
        assert measure(noise, speech_frames(noise)) == ReferenceQuality(0.0, None, 0.0)
        silence = np.zeros(16_000, np.float32)
        silent = measure(Audio(silence, 16_000), np.arange(31) < 10)  # as if the detector had erred
        assert silent.snr_db == -20.0

    def test_seconds_of_speech_are_those_of_the_detector(self) -> None:
        speech = with_pauses(say(TEXTS[0]))
        voiced = speech_frames(speech)
        assert measure(speech, voiced).speech_s == pytest.approx(voiced.sum() * 0.032)

    @pytest.mark.parametrize("share", [0.02, 0.2])
    def test_flat_tops_are_counted(self, share: float) -> None:
        speech = say(TEXTS[0]).samples
        limit = np.quantile(np.abs(speech), 1.0 - share)
        clipped = np.clip(speech / limit, -1.0, 1.0).astype(np.float32)
        found = measure(Audio(clipped, 22_050), np.zeros(10, np.bool_)).clipped
        assert 0.4 * share < found <= 1.01 * share  # tops of one and two samples are not runs

    @pytest.mark.parametrize("hz", [100.0, 440.0])
    def test_a_full_scale_tone_is_not_clipped(self, hz: float) -> None:
        tone: Samples = np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000).astype(np.float32)
        assert measure(Audio(tone, 48_000), np.zeros(10, np.bool_)).clipped < 0.005

    def test_thirty_seconds_are_measured_at_once(self) -> None:
        noise = Audio(np.random.default_rng(0).standard_normal(30 * 48_000).astype(np.float32) * 0.1, 48_000)
        voiced = np.arange(937) % 40 < 20
        best_s = 1e9
        for _ in range(3):
            started = time.thread_time()
            measure(noise, voiced)
            best_s = min(best_s, time.thread_time() - started)
        assert best_s < 0.3  # some 30 ms of a core

    @clips_needed
    def test_people_in_quiet_rooms_and_more_noise_is_less(self) -> None:
        clip = read_clip("librispeech")
        voiced = speech_frames(clip)
        levels = [measure(recording, voiced).snr_db for recording in (clip, noisy(clip, voiced, 10.0))]
        assert levels[0] is not None and levels[1] is not None
        assert 20.0 < levels[0] < 50.0
        assert abs(levels[1] - 10.0) < 2.0
        assert measure(clip, voiced).clipped == 0.0

    def test_joined_the_noisier_part_counts(self) -> None:
        one, two = ReferenceQuality(2.0, 30.0, 0.0, None), ReferenceQuality(6.0, 12.0, 0.1, False)
        both = one.joined(two)
        assert (both.speech_s, both.snr_db, both.second_speaker) == (8.0, 12.0, False)
        assert both.clipped == pytest.approx(0.075)
        assert ReferenceQuality(1.0, None, 0.0, True).joined(two).second_speaker is True
        assert two.joined(ReferenceQuality(29.0, None, 0.0)).speech_s == REFERENCE_LIMIT_S
