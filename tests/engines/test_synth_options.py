"""What the XTTS synthesizer can be told: how its weights are kept, how much memory it may take, where it runs."""

from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.speaking import speak
from support.speech import say
from support.xtts_texts import ENGLISH, SHORT

from mirrorchat.errors import ConfigurationError
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts.decode import DecodeLimits


@pytest.mark.parametrize("weights", ["fp32", "fp16w", "int8"])
def test_every_mode_of_a_cpu_speaks(xtts_checkpoint: Path, weights: str) -> None:
    try:
        engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1, weights=weights)
    except ConfigurationError as error:
        assert weights == "int8" and "choose fp16w" in str(error)  # a CPU without the instructions
        return
    assert engine.info.model == f"xtts-v2 {weights}"
    voice = engine.voice([say("Please tell me what the weather will be like tomorrow.")])
    assert list(speak(engine, SHORT[ENGLISH], voice))
    engine.close()


@pytest.mark.parametrize("weights", ["bf16", "fp16"])
def test_modes_of_a_gpu_are_refused_on_a_cpu(xtts_checkpoint: Path, weights: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{weights} cannot be used on cpu"):
        XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1, weights=weights)


def test_a_budget_too_small_for_one_sentence_is_refused(xtts_checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="too few for one sentence"):
        XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1, limits=DecodeLimits(cache_bytes=1000))


def test_device_auto(xtts_checkpoint: Path) -> None:
    engine = XttsSynthesizer(xtts_checkpoint, device="auto", threads=1)
    assert engine.info.device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["cudaa", "cuda:99"])
def test_unusable_device(xtts_checkpoint: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=device):
        XttsSynthesizer(xtts_checkpoint, device=device, threads=1)
