"""Who speaks: equal to Resemblyzer's own encoder, and one speaker nearer to themselves than to others."""

import importlib
import itertools
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.places import CLIPS
from support.speech import say

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation import speaker_encoder
from mirrorchat.cli.evaluation.clips import Clip, ClipLimits, read_clips
from mirrorchat.cli.evaluation.judge import NEEDED_PACKAGES
from mirrorchat.cli.evaluation.speaker_encoder import SpeakerEncoder, at_level, window_starts
from mirrorchat.cli.evaluation.speaker_similarity import Scale, Speakers, cosine
from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError
from mirrorchat.startup.engine_choice import absent_packages

if missing := absent_packages(NEEDED_PACKAGES):
    pytest.skip(f"{', '.join(missing)} not installed", allow_module_level=True)

VOICES = ("en-us+f2", "en-us+m6", "en-us+klatt4")
TEXTS = ("What is the best way to learn a language?", "Please tell me about the history of this old city.")


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.set_num_threads(1)
    return SpeakerEncoder()


def clip(name: str, speaker: str | None, audio: Audio, language: Language = Language.ENGLISH) -> Clip:
    return Clip(name, language, "words", speaker, audio.duration_s, lambda: audio)


@pytest.fixture(scope="module")
def resemblyzer() -> Iterator[Any]:
    """Return the package itself; its module for preparing sound needs webrtcvad, its encoder does not."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setitem(sys.modules, "webrtcvad", types.ModuleType("webrtcvad"))
        warnings.filterwarnings("ignore", message="Please import `binary_dilation`", category=DeprecationWarning)
        yield importlib.import_module("resemblyzer")


@pytest.fixture(scope="module")
def stock(resemblyzer: Any) -> Any:
    return resemblyzer.VoiceEncoder("cpu", verbose=False)


@pytest.mark.parametrize("seconds", [0.5, 1.6, 2.0, 3.1, 7.77])
def test_embeddings_are_resemblyzers(encoder: SpeakerEncoder, resemblyzer: Any, stock: Any, seconds: float) -> None:
    voice = say(" ".join(TEXTS * 2)).resample(16_000).samples[: int(seconds * 16_000)]
    np.testing.assert_allclose(encoder.embed_samples(voice), stock.embed_utterance(voice), atol=1e-5)
    starts = [part.start for part in stock.compute_partial_slices(len(voice), 1.3, 0.75)[1]]
    assert window_starts(len(voice)) == starts
    for gain in (1.0, 0.01):  # one that is left alone, one that is raised
        sound = voice * np.float32(gain)
        level = resemblyzer.normalize_volume(sound, -30, increase_only=True)
        np.testing.assert_allclose(at_level(sound), level, rtol=1e-5, atol=1e-7)


def test_a_speaker_is_nearer_to_themselves_than_to_others(encoder: SpeakerEncoder) -> None:
    made = {(voice, text): encoder.embed(say(text, voice)) for voice in VOICES for text in TEXTS}
    same: list[float] = []
    other: list[float] = []
    for (one, first), (two, second) in itertools.combinations(made.items(), 2):
        assert first is not None and second is not None
        (same if one[0] == two[0] else other).append(cosine(first, second))
    assert min(same) > max(other)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="clips absent")
def test_real_recordings_are_nearest_to_themselves(encoder: SpeakerEncoder) -> None:
    clips = [clip for clip in read_clips(CLIPS, ClipLimits(12 << 20, 60.0)) if clip.duration_s > 1.5]
    speakers = Speakers(encoder, clips)
    scale = speakers.scale(Language.ENGLISH)
    assert scale.strangers is not None and 0.3 < scale.strangers < 0.8 and scale.same_speaker is None
    assert all(speakers.similarity(clip.load(), clip) == pytest.approx(1.0, abs=1e-5) for clip in clips)


def test_the_scale_is_of_every_pair_of_recordings(encoder: SpeakerEncoder) -> None:
    named = {"a": "ann", "b": "ann", "c": "ann", "d": "bob", "e": "bob", "f": None, "g": None}
    voices = {"ann": VOICES[0], "bob": VOICES[1], None: VOICES[2]}
    sentences = itertools.cycle((*TEXTS, f"{TEXTS[1]} {TEXTS[0]}"))
    clips = [
        clip(name, who, say(text, voices[who])) for (name, who), text in zip(named.items(), sentences, strict=False)
    ]
    chinese = clip("z", "ann", say("你好，今天天气怎么样？我们去公园。", "cmn+m3"), Language.CHINESE)
    speakers = Speakers(encoder, [*clips, chinese])
    same: list[float] = []
    other: list[float] = []
    for one, two in itertools.combinations(clips, 2):
        found = speakers.similarity(one.load(), two)
        assert found is not None
        (same if one.speaker and one.speaker == two.speaker else other).append(found)
    scale = speakers.scale(Language.ENGLISH)
    assert scale.same_speaker == pytest.approx(np.mean(same)) and scale.strangers == pytest.approx(np.mean(other))
    assert len(same) == 4 and scale.lack == "" and speakers.scale(Language.CHINESE) == Scale(None, None)


def test_a_score_is_the_place_between_strangers_and_the_same_speaker() -> None:
    scale = Scale(same_speaker=0.8, strangers=0.6)
    assert scale.score(0.7) == pytest.approx(0.5) and scale.score(0.5) == pytest.approx(-0.5)
    assert scale.score(None) is None
    for lacking, what in (
        (Scale(None, 0.6), "no speaker has two recordings"),
        (Scale(0.8, None), "there is only one speaker"),
        (Scale(0.6, 0.6), "no nearer than strangers"),
        (Scale(None, None), "no speaker has two recordings"),
    ):
        assert lacking.score(0.7) is None and what in lacking.lack


def test_too_little_speech_tells_nobody(encoder: SpeakerEncoder) -> None:
    silence, voice = Audio(np.zeros(32_000, np.float32), 16_000), say(TEXTS[0])
    assert encoder.embed(silence) is None
    quiet = clip("b", "bob", silence)
    speakers = Speakers(encoder, [clip("a", "ann", voice), quiet, clip("c", "bob", silence)])
    assert speakers.similarity(silence, clip("a", "ann", voice)) is None
    assert speakers.similarity(voice, quiet) is None
    assert speakers.scale(Language.ENGLISH) == Scale(None, None)


def test_the_rate_of_the_recording_matters_little(encoder: SpeakerEncoder) -> None:
    voice = say(TEXTS[0])
    one, other = encoder.embed(voice), encoder.embed(voice.resample(48_000))
    assert one is not None and other is not None and cosine(one, other) > 0.99


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pretrained.pt"
    if content is None:
        torch.save({"model_state": {"lstm.weight_ih_l0": torch.zeros(2, 2)}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="scripts/environment small full evaluate"):
        speaker_encoder._load(path)
