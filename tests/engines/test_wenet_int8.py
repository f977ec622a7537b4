"""8-bit weights: close to float32 in number, and the same words."""

from pathlib import Path

import pytest
import tiny_wenet_speech as speech
import torch
from support.trained_wenet import write_trained_checkpoint
from support.wenet_reference import DATA

from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.hardware import native
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.int8 import quantize

VARIANTS = ("aishell", "gigaspeech", "multi_cn", "batch_norm", "transformer", "conv2d8")
CODES: tuple[speech.Code, ...] = ("en", "zh")


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def in_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no compiled library: torch quantizes")
    return bool(request.param)


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_close_to_float32(name: str, in_library: bool) -> None:
    features = torch.randn(1, 203, 80, generator=torch.Generator().manual_seed(1)) * 3 + 10
    lengths = torch.tensor([203])
    exact = read_checkpoint(DATA / name).model
    expected = exact.encoder(features, lengths)[0]
    found = quantize(read_checkpoint(DATA / name).model, threads=1).encoder(features, lengths)[0]
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < (0.02 if in_library else 0.05)


@pytest.mark.parametrize("code", CODES)
def test_the_words_are_those_of_float32(code: speech.Code, tmp_path: Path, in_library: bool) -> None:
    folder = write_trained_checkpoint(tmp_path / f"wenet-{code}", code)
    language = Language.parse(code)
    exact, small = (WenetRecognizer(folder, language, threads=1, weights=name) for name in ("fp32", "int8"))
    try:
        sounds = [Audio(samples, speech.SAMPLE_RATE) for samples in speech.speak(speech.held_out(code))]
        heard = [
            [engine.recognize(sound, language, context=Context()).text for sound in sounds] for engine in (exact, small)
        ]
    finally:
        exact.close()
        small.close()
    same = sum(one == other for one, other in zip(*heard, strict=True))
    assert same >= 0.95 * len(sounds)
    assert all(heard[0])


def test_weights_in_float32_are_not_kept() -> None:
    model = quantize(read_checkpoint(DATA / "aishell").model, threads=1)
    matrices = [name for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
    assert [name for name in matrices if "pos_bias" not in name] == []
