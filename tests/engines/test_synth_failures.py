"""What fails in the XTTS synthesizer: numbers that are not finite, memory, the engine itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support import tiny_xtts
from support.speaking import speak
from support.speech import say
from support.xtts_texts import ENGLISH, SHORT

from mirrorchat.errors import NotReady, SynthesisFailed
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts.voice import XttsVoice


@pytest.fixture(scope="module")
def voice(xtts_checkpoint: Path) -> Iterator[XttsVoice]:
    engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
    yield engine.voice([say("Please tell me what the weather will be like tomorrow.")])
    engine.close()


@pytest.fixture
def own_copy(xtts_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xtts_checkpoint, tmp_path / "xtts-v2"))


def test_samples_that_are_not_finite(own_copy: Path, voice: XttsVoice) -> None:
    name = "hifigan_decoder.waveform_decoder.conv_post.weight"
    tiny_xtts.replace_weights(own_copy, {name: torch.full((1, 2, 7), torch.nan)})
    engine = XttsSynthesizer(own_copy, device="cpu", threads=1)
    with pytest.raises(SynthesisFailed, match="not finite"):
        list(speak(engine, SHORT[ENGLISH], voice))


def test_a_failing_model(own_copy: Path, voice: XttsVoice) -> None:
    tiny_xtts.replace_weights(own_copy, {"gpt.final_norm.weight": torch.full((64,), torch.nan)})
    engine = XttsSynthesizer(own_copy, device="cpu", threads=1)
    with pytest.raises(SynthesisFailed, match="could not speak the sentence"):
        list(speak(engine, SHORT[ENGLISH], voice))


def test_out_of_memory_is_one_sentence_s_failure(
    xtts_checkpoint: Path, voice: XttsVoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    synthesizer = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(synthesizer._engine.gpt, "prefill", fail)
        with pytest.raises(SynthesisFailed, match="OutOfMemoryError"):
            list(speak(synthesizer, SHORT[ENGLISH], voice))
    assert list(speak(synthesizer, SHORT[ENGLISH], voice))
    synthesizer.close()


def test_a_failed_engine_is_not_ready(xtts_checkpoint: Path, voice: XttsVoice) -> None:
    engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
    engine.check_ready()
    engine._engine.healthy = False
    with pytest.raises(NotReady):
        engine.check_ready()
    with pytest.raises(NotReady):
        list(speak(engine, SHORT[ENGLISH], voice))
    engine.close()
