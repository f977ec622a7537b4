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
from mirrorchat.cli.evaluation.speaker_encoder import SpeakerEncoder, at_level, missing_packages, window_starts
from mirrorchat.cli.evaluation.speaker_similarity import SpeakerSimilarity, cosine
from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError

if missing := missing_packages():
    pytest.skip(missing, allow_module_level=True)

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
def test_real_speakers_are_nearer_to_themselves_than_to_others(encoder: SpeakerEncoder) -> None:
    clips = [clip for clip in read_clips(CLIPS, ClipLimits(12 << 20, 60.0)) if clip.duration_s > 1.5]
    similarity = SpeakerSimilarity(encoder, clips)
    found = [similarity.compare(clip.load(), clip) for clip in clips if clip.language is Language.ENGLISH]
    known = [(each.ceiling, each.floor) for each in found if each.ceiling is not None and each.floor is not None]
    assert len(known) >= 5 and all(ceiling > floor for ceiling, floor in known)
    assert all(each.answer == pytest.approx(1.0, abs=1e-5) for each in found)


def test_ceiling_and_floor_are_of_the_right_clips(encoder: SpeakerEncoder) -> None:
    one, two = (say(text, VOICES[0]) for text in TEXTS)
    stranger, chinese = say(TEXTS[0], VOICES[1]), say("你好，今天天气怎么样？我们去公园。", "cmn+m3")
    clips = [
        clip("a", "ann", one), clip("b", "ann", two), clip("c", "bob", stranger), clip("d", None, stranger),
        clip("e", "ann", chinese, Language.CHINESE),
    ]  # fmt: skip
    similarity = SpeakerSimilarity(encoder, clips)
    first, second, other = (encoder.embed(audio) for audio in (one, two, stranger))
    assert first is not None and second is not None and other is not None
    found = similarity.compare(stranger, clips[0])
    assert found.ceiling == pytest.approx(cosine(first, second)) and not found.by_halves
    assert found.floor == found.answer == pytest.approx(cosine(first, other))
    unknown = similarity.compare(stranger, clips[3])
    assert unknown.by_halves and unknown.ceiling is not None
    expected = (cosine(first, other) + cosine(second, other) + 1.0) / 3.0  # nobody knows that c is the same person
    assert unknown.floor == pytest.approx(expected, abs=1e-5)
    alone = similarity.compare(chinese, clips[4])
    assert alone.floor is None and alone.answer == pytest.approx(1.0, abs=1e-5)


def test_too_little_speech_tells_nobody(encoder: SpeakerEncoder) -> None:
    silence = Audio(np.zeros(32_000, np.float32), 16_000)
    assert encoder.embed(silence) is None
    voice = say(TEXTS[0])
    similarity = SpeakerSimilarity(encoder, [])
    assert similarity.compare(silence, clip("a", None, voice)).answer is None
    quiet = similarity.compare(voice, clip("b", None, silence))
    assert (quiet.answer, quiet.ceiling, quiet.floor) == (None, None, None)


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
    with pytest.raises(ConfigurationError, match="scripts/environment full evaluate"):
        speaker_encoder._load(path)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker_encoder, "NEEDED_PACKAGES", ("torch", "not_a_package"))
    assert missing_packages() == "not_a_package not installed: run scripts/environment full evaluate"
    with pytest.raises(ConfigurationError, match="not_a_package"):
        SpeakerEncoder()
