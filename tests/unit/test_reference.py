"""The reference of a voice: what is measured in it, whose it is, and how it grows."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.places import CLIPS
from support.speech import say

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import FRAME_S, speech_frames
from mirrorchat.embedded.engines import EmbeddedSynthesizer
from mirrorchat.embedded.voice_tint import similarity
from mirrorchat.engines import REFERENCE_LIMIT_S, Voice, judge_similarity
from mirrorchat.turn.reference import (
    KEPT_RATE_HZ,
    Reference,
    ReferenceQuality,
    Take,
    measure,
)

TEXTS = (
    "The north wind and the sun were disputing which was stronger, when a man came along in a warm cloak.",
    "Please open the window before you go to bed, it is far too warm in here, and close the door behind you.",
    "Good morning to all of you my dear friends, we are going to the harbour to see the ships come in today.",
)
clips_needed = pytest.mark.skipif(not CLIPS.is_dir(), reason="clips absent")


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[EmbeddedSynthesizer]:
    engine = EmbeddedSynthesizer()
    yield engine
    engine.close()


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


def joined(*takes: Audio) -> Audio:
    return Audio(np.concatenate([take.samples for take in takes]), takes[0].sample_rate)


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
            started = time.perf_counter()
            measure(noise, voiced)
            best_s = min(best_s, time.perf_counter() - started)
        assert best_s < 0.3  # some 30 ms on a free core

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


class TestSpeaker:
    def test_the_same_speaker_is_known_again_and_others_are_not(self, synthesizer: EmbeddedSynthesizer) -> None:
        voices = ("en-us+m3", "en-us+f2", "en-us+f5", "en-us+klatt4")  # f2 and f5 are sisters
        takes = {(voice, text): Take(say(text, voice), synthesizer) for voice in voices for text in TEXTS[:2]}
        for (voice, text), take in takes.items():
            assert take.embedding is not None
            for (other, other_text), second in takes.items():
                if text != other_text:
                    assert second.is_by(take.embedding) == (voice == other), (voice, other)

    @clips_needed
    def test_people_are_never_taken_for_each_other(self, synthesizer: EmbeddedSynthesizer) -> None:
        names = ("librispeech", "spk1_snt1", "LJ001-0004", "cards_005", "0880", "IT0011W0001", "S0724W0121")
        takes = [Take(read_clip(name), synthesizer) for name in names]
        for index, take in enumerate(takes):
            assert take.embedding is not None
            assert not any(other.is_by(take.embedding) for other in takes[index + 1 :])
            assert take.is_by(take.embedding)

    def test_similarity_is_symmetric_and_one_with_itself(self, synthesizer: EmbeddedSynthesizer) -> None:
        one, two = (Take(say(TEXTS[0], voice), synthesizer).embedding for voice in ("en-us+m3", "en-us+f2"))
        assert one is not None and two is not None
        assert similarity(one, one) == 1.0
        assert similarity(one, two) == pytest.approx(similarity(two, one))
        assert similarity(one, two) < 0.135
        assert synthesizer.same_speaker(one, two) is False

    def test_between_the_limits_is_doubt(self) -> None:
        verdicts = [judge_similarity(value, same_from=0.6, different_to=0.2) for value in (0.6, 0.4, 0.2)]
        assert verdicts == [True, None, False]

    def test_too_little_speech_tells_nobody(self, synthesizer: EmbeddedSynthesizer) -> None:
        take = Take(say("yes"), synthesizer)
        somebody = Take(say(TEXTS[0]), synthesizer).embedding
        assert somebody is not None
        assert take.embedding is None and not take.is_by(somebody)
        assert take.quality.second_speaker is None

    @pytest.mark.parametrize(("second", "expected"), [("en-us+f2", True), ("en-us+m3", False)])
    def test_a_second_speaker_in_one_recording(
        self, synthesizer: EmbeddedSynthesizer, second: str, expected: bool
    ) -> None:
        recording = joined(say(TEXTS[0], "en-us+m3"), say(TEXTS[1], second))
        assert Take(recording, synthesizer).quality.second_speaker is expected

    @clips_needed
    def test_a_second_person_in_one_recording(self, synthesizer: EmbeddedSynthesizer) -> None:
        woman, man = read_clip("LJ001-0004").resample(16_000), read_clip("0880")
        assert Take(joined(woman, man), synthesizer).quality.second_speaker is True
        assert Take(read_clip("librispeech"), synthesizer).quality.second_speaker is not True


class TestGrowth:
    def begun(self, synthesizer: EmbeddedSynthesizer, audio: Audio) -> Reference:
        reference = Reference.begun(Take(audio, synthesizer), synthesizer.voice([audio]))
        assert reference is not None
        return reference

    def test_it_grows_up_to_30_s_and_then_keeps_no_sound(
        self, synthesizer: EmbeddedSynthesizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = (joined(*(say(text, "en-us+m3") for text in texts)) for texts in (TEXTS, TEXTS[::-1]))
        reference = self.begun(synthesizer, first)
        heard_s: list[float] = []
        voice = reference.voice

        def record(references: Sequence[Audio]) -> Voice:
            heard_s.append(references[0].duration_s)
            return voice

        monkeypatch.setattr(synthesizer, "voice", record)
        assert reference.pcm.dtype == np.int16
        lengths = [len(reference.pcm)]
        while not reference.is_full:
            reference = reference.extended(Take(second, synthesizer), synthesizer)
            lengths.append(len(reference.pcm))
        assert lengths[:-1] == sorted(lengths[:-1]) and lengths[-1] == 0
        assert lengths[-2] <= REFERENCE_LIMIT_S * KEPT_RATE_HZ
        assert len(lengths) < 5
        assert heard_s == sorted(heard_s) and heard_s[-1] == pytest.approx(REFERENCE_LIMIT_S)
        assert 20.0 < reference.quality.speech_s <= REFERENCE_LIMIT_S

    def test_its_voice_is_that_of_all_its_speech(self, synthesizer: EmbeddedSynthesizer) -> None:
        first, second = (say(text, "en-us+m3") for text in TEXTS[:2])
        grown = self.begun(synthesizer, first).extended(Take(second, synthesizer), synthesizer)
        both = Take(joined(first, second), synthesizer).embedding
        assert both is not None
        alone = synthesizer.voice([first])
        assert grown.voice.to_bytes() != alone.to_bytes()
        assert similarity(grown.embedding, both) > 0.98
        assert grown.quality.speech_s > 1.7 * self.begun(synthesizer, first).quality.speech_s

    def test_two_speakers_or_none_begin_no_reference(self, synthesizer: EmbeddedSynthesizer) -> None:
        mixed = joined(say(TEXTS[0], "en-us+m3"), say(TEXTS[1], "en-us+f2"))
        for audio in (mixed, say("yes")):
            assert Reference.begun(Take(audio, synthesizer), synthesizer.voice([audio])) is None
