"""The judge of `evaluate --judge`, with its real models: Whisper base and DistillMOS."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.places import CLIPS
from support.small_models import whisper_folder
from support.speech import say

from mirrorchat.audio.decoding import decode_speech
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation import judge as judge_module
from mirrorchat.cli.evaluation.error_rate import edits, tokens
from mirrorchat.cli.evaluation.judge import NEEDED_PACKAGES, Judge
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError, EvaluationError
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import absent_packages

if missing := absent_packages(NEEDED_PACKAGES):
    pytest.skip(f"{', '.join(missing)} not installed", allow_module_level=True)

TEXT = "What is the best way to learn a language?"


def settings(models_dir: Path) -> Settings:
    return Settings(chatgpt_apis=(), models_dir=models_dir, threads=1)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(settings(whisper_folder().parent), [])
    yield judge
    judge.close()


def test_it_understands_speech(judge: Judge) -> None:
    heard = judge.listener.recognize(say(TEXT), Language.ENGLISH, context=Context.after(60.0)).text
    rate = edits(tokens(TEXT, Language.ENGLISH), tokens(heard, Language.ENGLISH)).rate
    assert rate is not None and rate <= 2 / 9, heard


def test_it_reads_30_s_however_short_the_speech_is(judge: Judge) -> None:
    assert judge.listener._speech_states(np.zeros(16_000, np.float32)).shape[1] == 1_500  # of 20 ms each


def test_naturalness_is_distillmos(judge: Judge) -> None:
    import torch

    voice = say(TEXT).resample(16_000)
    with torch.inference_mode():
        expected = float(judge._naturalness(torch.from_numpy(voice.samples)[None]))
    assert judge.naturalness(voice) == pytest.approx(expected)
    assert judge.naturalness(voice.resample(48_000)) == pytest.approx(expected, abs=0.3)


def test_noise_is_less_natural_than_a_person(judge: Judge) -> None:
    noise = Audio(np.random.default_rng(0).normal(0.0, 0.1, 48_000).astype(np.float32), 16_000)
    assert 1.0 <= judge.naturalness(noise) < 2.0
    path = CLIPS / "en_speechbrain_spk1_snt1.wav"
    if not path.exists():
        pytest.skip("clips absent")
    assert judge.naturalness(decode_speech(path.read_bytes(), limit_s=60.0)) > 3.0 > judge.naturalness(say(TEXT))


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    damaged = tmp_path / "distill_mos.pt"
    damaged.write_bytes(content)
    monkeypatch.setattr("distillmos.sqa.DEFAULT_WEIGHTS_CHKPT", str(damaged))
    with pytest.raises(ConfigurationError, match="DistillMOS cannot be loaded: run scripts/environment small full"):
        Judge(settings(whisper_folder().parent), [])


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    Judge(settings(whisper_folder().parent), []).close()
    assert capfd.readouterr().out == ""


def test_a_missing_package_is_named_with_the_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "NEEDED_PACKAGES", ("torch", "not_a_package"))
    with pytest.raises(EvaluationError) as refused:
        Judge(settings(tmp_path), [])
    assert str(refused.value) == "the judge needs not_a_package: run scripts/environment small full evaluate"


def test_missing_weights_are_named_with_the_one_command(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"needs .*model\.bin.* run \.venv/bin/mirrorchat models install small$"):
        Judge(settings(tmp_path), [])
