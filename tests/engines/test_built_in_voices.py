"""The speakers that come with XTTS: voices by name, which are nobody's clone; their file is read within bounds."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from make_tiny_xtts import SPEAKERS
from support.speaking import speak
from support.xtts_texts import ENGLISH, SHORT

from mirrorchat.engines import VoiceKind
from mirrorchat.errors import ConfigurationError
from mirrorchat.models.convert import convert_checkpoint
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts.checkpoint import SPEAKERS_FILE, SPEAKERS_LIMIT, SPEAKERS_PICKLE_FILE, read_speakers
from mirrorchat.xtts.voice import XttsVoice

FITTING = {"gpt_cond_latent": torch.zeros(1, 32, 64), "speaker_embedding": torch.zeros(1, 512, 1)}


@pytest.fixture
def own_copy(xtts_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xtts_checkpoint, tmp_path / "xtts-v2"))


def loaded(folder: Path) -> XttsSynthesizer:
    return XttsSynthesizer(folder, device="cpu", threads=1)


def test_each_speaker_is_a_neutral_voice(xtts_checkpoint: Path) -> None:
    synthesizer = loaded(xtts_checkpoint)
    voices = synthesizer.built_in_voices
    assert sorted(voices) == sorted(SPEAKERS)
    released = torch.load(xtts_checkpoint / SPEAKERS_PICKLE_FILE, weights_only=True)
    for name, voice in voices.items():
        assert isinstance(voice, XttsVoice) and voice.kind is VoiceKind.NEUTRAL
        assert voice.reason.isascii() and name[:14] in voice.reason
        assert torch.equal(voice.gpt_cond_latent, released[name]["gpt_cond_latent"])
        assert torch.equal(voice.speaker_embedding, released[name]["speaker_embedding"])
        assert list(speak(synthesizer, SHORT[ENGLISH], voice))
    assert synthesizer.voice([]).to_bytes()[-1000:] == voices["Claribel Dervla"].to_bytes()[-1000:]
    synthesizer.close()


def test_they_are_optional(own_copy: Path) -> None:
    (own_copy / SPEAKERS_PICKLE_FILE).unlink()
    synthesizer = loaded(own_copy)
    assert synthesizer.built_in_voices == {}
    assert synthesizer.voice([]).kind is VoiceKind.NEUTRAL
    synthesizer.close()


def test_names_that_nobody_can_ask_for_are_left_out(own_copy: Path) -> None:
    names = ["Zoe", "", "a/b", "x" * 65, "a\nb", " padded "]
    torch.save(dict.fromkeys(names, FITTING), own_copy / SPEAKERS_PICKLE_FILE)
    assert list(read_speakers(own_copy)) == ["Zoe"]


def huge_view() -> torch.Tensor:
    """Return a tensor of a terabyte that takes four bytes in a file."""
    return torch.zeros(1).expand(1, 1 << 20, 1 << 18)


@pytest.mark.parametrize(
    "speakers",
    [
        {"Zoe": FITTING | {"gpt_cond_latent": huge_view()}},
        {f"speaker {number}": FITTING for number in range(SPEAKERS_LIMIT + 1)},
        {"Zoe": FITTING | {"gpt_cond_latent": torch.zeros(1, 32, 65)}},
        {"Zoe": FITTING | {"speaker_embedding": torch.full((1, 512, 1), torch.nan)}},
        {"Zoe": {"gpt_cond_latent": torch.zeros(1, 32, 64)}},
        {"Zoe": 3},
        [FITTING],
        {"Zoe": FITTING | {"speaker_embedding": [0.0] * 512}},
        {7: FITTING, ("a", "b"): FITTING, "Zoe": {"gpt_cond_latent": "", "speaker_embedding": ""}},
    ],
    ids=["a huge view", "too many", "another model's", "not finite", "half", "a number", "a list", "no tensor", "text"],
)
def test_a_file_of_something_else_is_refused(own_copy: Path, speakers: Any) -> None:
    torch.save(speakers, own_copy / SPEAKERS_PICKLE_FILE)
    with pytest.raises(ConfigurationError, match=SPEAKERS_PICKLE_FILE):
        loaded(own_copy)


@pytest.mark.parametrize("tensors", [{"Zoe/gpt_cond_latent": torch.zeros(1, 32, 64)}, {"nothing": torch.zeros(1)}])
def test_a_converted_file_of_something_else_is_refused(own_copy: Path, tensors: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(tensors, own_copy / SPEAKERS_FILE)
    with pytest.raises(ConfigurationError, match=SPEAKERS_FILE):
        loaded(own_copy)


def test_a_huge_view_is_not_converted(own_copy: Path, tmp_path: Path) -> None:
    weights = safetensors.torch.load_file(own_copy / "model.safetensors")
    torch.save({"model": weights}, own_copy / "model.pth")
    torch.save({"Zoe": FITTING | {"gpt_cond_latent": huge_view()}}, own_copy / SPEAKERS_PICKLE_FILE)
    with pytest.raises(ConfigurationError, match="too large"):
        convert_checkpoint(own_copy, tmp_path / "made")
