"""The reference of a voice: whose it is, and how it grows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.places import CLIPS
from support.remembered_profiles import remembering_synthesizer
from support.speech import TEXTS, say

from mirrorchat.audio.samples import Audio
from mirrorchat.embedded.engines import EmbeddedSynthesizer
from mirrorchat.embedded.voice_tint import similarity
from mirrorchat.engines import REFERENCE_LIMIT_S, Voice, judge_similarity
from mirrorchat.turn.reference import KEPT_RATE_HZ, Reference, Utterance

clips_needed = pytest.mark.skipif(not CLIPS.is_dir(), reason="clips absent")


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[EmbeddedSynthesizer]:
    engine = remembering_synthesizer()
    yield engine
    engine.close()


def read_clip(name: str) -> Audio:
    samples, rate = soundfile.read(next(Path(CLIPS).glob(f"*{name}*.wav")), dtype="float32", always_2d=True)
    return Audio(samples.mean(axis=1), rate)


def joined(*utterances: Audio) -> Audio:
    return Audio(np.concatenate([utterance.samples for utterance in utterances]), utterances[0].sample_rate)


class TestSpeaker:
    def test_the_same_speaker_is_known_again_and_others_are_not(self, synthesizer: EmbeddedSynthesizer) -> None:
        voices = ("en-us+m3", "en-us+f2", "en-us+f5", "en-us+klatt4")  # f2 and f5 are sisters
        utterances = {(voice, text): Utterance(say(text, voice), synthesizer) for voice in voices for text in TEXTS[:2]}
        for (voice, text), utterance in utterances.items():
            assert utterance.embedding is not None
            for (other, other_text), second in utterances.items():
                if text != other_text:
                    assert second.is_by(utterance.embedding) == (voice == other), (voice, other)

    @clips_needed
    def test_people_are_never_taken_for_each_other(self, synthesizer: EmbeddedSynthesizer) -> None:
        names = ("librispeech", "spk1_snt1", "LJ001-0004", "cards_005", "0880", "IT0011W0001", "S0724W0121")
        utterances = [Utterance(read_clip(name), synthesizer) for name in names]
        for index, utterance in enumerate(utterances):
            assert utterance.embedding is not None
            assert not any(other.is_by(utterance.embedding) for other in utterances[index + 1 :])
            assert utterance.is_by(utterance.embedding)

    def test_similarity_is_symmetric_and_one_with_itself(self, synthesizer: EmbeddedSynthesizer) -> None:
        one, two = (Utterance(say(TEXTS[0], voice), synthesizer).embedding for voice in ("en-us+m3", "en-us+f2"))
        assert one is not None and two is not None
        assert similarity(one, one) == 1.0
        assert similarity(one, two) == pytest.approx(similarity(two, one))
        assert similarity(one, two) < 0.135
        assert synthesizer.same_speaker(one, two) is False

    def test_between_the_limits_is_doubt(self) -> None:
        verdicts = [judge_similarity(value, same_from=0.6, different_to=0.2) for value in (0.6, 0.4, 0.2)]
        assert verdicts == [True, None, False]

    def test_too_little_speech_tells_nobody(self, synthesizer: EmbeddedSynthesizer) -> None:
        utterance = Utterance(say("yes"), synthesizer)
        somebody = Utterance(say(TEXTS[0]), synthesizer).embedding
        assert somebody is not None
        assert utterance.embedding is None and not utterance.is_by(somebody)
        assert utterance.quality.second_speaker is None

    @pytest.mark.parametrize(("second", "expected"), [("en-us+f2", True), ("en-us+m3", False)])
    def test_a_second_speaker_in_one_recording(
        self, synthesizer: EmbeddedSynthesizer, second: str, expected: bool
    ) -> None:
        recording = joined(say(TEXTS[0], "en-us+m3"), say(TEXTS[1], second))
        assert Utterance(recording, synthesizer).quality.second_speaker is expected

    @clips_needed
    def test_a_second_person_in_one_recording(self, synthesizer: EmbeddedSynthesizer) -> None:
        woman, man = read_clip("LJ001-0004").resample(16_000), read_clip("0880")
        assert Utterance(joined(woman, man), synthesizer).quality.second_speaker is True
        assert Utterance(read_clip("librispeech"), synthesizer).quality.second_speaker is not True


class TestGrowth:
    def begun(self, synthesizer: EmbeddedSynthesizer, audio: Audio) -> Reference:
        reference = Reference.begun(Utterance(audio, synthesizer), synthesizer.voice([audio]))
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
            reference = reference.extended(Utterance(second, synthesizer), synthesizer)
            lengths.append(len(reference.pcm))
        assert lengths[:-1] == sorted(lengths[:-1]) and lengths[-1] == 0
        assert lengths[-2] <= REFERENCE_LIMIT_S * KEPT_RATE_HZ
        assert len(lengths) < 5
        assert heard_s == sorted(heard_s) and heard_s[-1] == pytest.approx(REFERENCE_LIMIT_S)
        assert 20.0 < reference.quality.speech_s <= REFERENCE_LIMIT_S

    def test_its_voice_is_that_of_all_its_speech(self, synthesizer: EmbeddedSynthesizer) -> None:
        first, second = (say(text, "en-us+m3") for text in TEXTS[:2])
        grown = self.begun(synthesizer, first).extended(Utterance(second, synthesizer), synthesizer)
        both = Utterance(joined(first, second), synthesizer).embedding
        assert both is not None
        alone = synthesizer.voice([first])
        assert grown.voice.to_bytes() != alone.to_bytes()
        assert similarity(grown.embedding, both) > 0.98
        assert grown.quality.speech_s > 1.7 * self.begun(synthesizer, first).quality.speech_s

    def test_two_speakers_or_none_begin_no_reference(self, synthesizer: EmbeddedSynthesizer) -> None:
        mixed = joined(say(TEXTS[0], "en-us+m3"), say(TEXTS[1], "en-us+f2"))
        for audio in (mixed, say("yes")):
            assert Reference.begun(Utterance(audio, synthesizer), synthesizer.voice([audio])) is None
