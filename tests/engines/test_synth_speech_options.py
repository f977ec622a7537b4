"""The options of speech in XTTS: equal to stock coqui-tts, each sequence of a batch with its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support import tiny_xtts
from support.xtts_requests import ask, collect, engines, recording, text_ids
from support.xtts_texts import ENGLISH, SHORT

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Priority
from mirrorchat.speech.options import BOUNDS, NO_OPTIONS, SpeechOptions
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import StepMode
from mirrorchat.xtts.utterance import Request
from mirrorchat.xtts.voice import XttsVoice

SEVEN = (
    SpeechOptions(),
    SpeechOptions(temperature=0.3),
    SpeechOptions(temperature=1.4, top_k=0, top_p=1.0),
    SpeechOptions(top_k=5, speed=1.5),
    SpeechOptions(top_p=0.3, repetition_penalty=1.0),
    SpeechOptions(repetition_penalty=12.0, speed=0.7),
    SpeechOptions(temperature=0.9, top_k=1000, top_p=0.95, repetition_penalty=2.0, speed=0.95),
)
OWN = {"temperature": 0.75, "top_k": 50, "top_p": 0.85, "repetition_penalty": 5.0, "speed": 1.0}  # of config.json


@pytest.fixture(scope="module")
def stock(xtts_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path_factory.mktemp("stock") / "xtts-v2")
    with tiny_xtts.stock_model(folder, Audio(np.zeros(22_050, np.float32), 22_050)) as model:
        yield model


@pytest.fixture(scope="module", params=["fp32", "fp16w"])
def synthesizer(xtts_checkpoint: Path, request: pytest.FixtureRequest) -> Iterator[XttsSynthesizer]:
    engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1, weights=request.param)
    yield engine
    engine.close()


def asked(synthesizer: XttsSynthesizer, voice: XttsVoice, options: SpeechOptions, seed: int) -> Request:
    context = Context.after(120.0)
    return synthesizer._request(SHORT[ENGLISH], voice, ENGLISH, seed, Priority.FIRST, context, options)


@pytest.mark.filterwarnings("ignore:.*generation flags")
@pytest.mark.parametrize("number", range(len(SEVEN)))
def test_seven_settings_are_those_of_coqui_tts(synthesizer: XttsSynthesizer, stock: Any, number: int) -> None:
    options, voice = SEVEN[number], synthesizer.built_in_voices["Ana Florence"]
    assert isinstance(voice, XttsVoice)
    tolerance = 1e-5 if synthesizer._engine.gpt.mode is WeightMode.FP32 else 1e-3
    for seed in (number, 100 + number):
        codes: list[torch.Tensor] = []
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setattr(stock.gpt, "generate", recording(stock.gpt.generate, codes))
            torch.manual_seed(seed)
            settings = OWN | options.given()
            voices = voice.gpt_cond_latent, voice.speaker_embedding
            expected = stock.inference(SHORT[ENGLISH], "en", *voices, **settings)["wav"]
        request = asked(synthesizer, voice, options, seed)
        text = stock.tokenizer.encode(SHORT[ENGLISH].lower(), lang="en")
        assert list(request.text_ids) == text
        limit = len(codes[0][0])  # no more than stock says: the limit of a sentence is ours
        spoken = collect(synthesizer._engine.submit(request))
        assert spoken.tokens == codes[0][0].tolist()[: len(spoken.tokens)] and len(spoken.tokens) == limit
        np.testing.assert_allclose(spoken.samples, expected, atol=tolerance)


def test_the_settings_differ(stock: Any, synthesizer: XttsSynthesizer) -> None:
    """Otherwise their equality says little."""
    voice = synthesizer.built_in_voices["Ana Florence"]
    assert isinstance(voice, XttsVoice)
    spoken = [collect(synthesizer._engine.submit(asked(synthesizer, voice, options, 3))) for options in SEVEN]
    assert len({each.samples.tobytes() for each in spoken}) == len(SEVEN)


@pytest.fixture(scope="module")
def network(xtts_checkpoint: Path) -> Network:
    return load_network(xtts_checkpoint)


@pytest.mark.parametrize(
    ("mode", "steps"),
    [(WeightMode.FP32, StepMode.EAGER), (WeightMode.FP16W, StepMode.EAGER), (WeightMode.FP32, StepMode.STATIC)],
    ids=["torch", "native", "device sampling"],
)
def test_each_sequence_of_a_batch_has_its_own(network: Network, mode: WeightMode, steps: StepMode) -> None:
    """Seven settings together, then each alone."""

    def request(number: int) -> Request:
        given = SEVEN[number].given()
        speed = given.pop("speed", 1.0)
        ids = text_ids(network, SHORT[ENGLISH])
        return ask(ids, speaker=number, seed=number, sampling=Sampling(**given), speed=speed)

    with engines(network) as make:
        engine = make(mode, step_mode=steps, max_batch=len(SEVEN))
        running = [engine.submit(request(number)) for number in range(len(SEVEN))]
        together = list(map(collect, running))
        alone = [collect(engine.submit(request(number))) for number in range(len(SEVEN))]
    for found, expected in zip(together, alone, strict=True):
        assert found.tokens == expected.tokens and found.reason == expected.reason
        np.testing.assert_allclose(found.samples, expected.samples, atol=1e-4)


def test_options_leave_others_to_the_defaults() -> None:
    settings = SpeechOptions(temperature=0.6, top_k=0, speed=1.0)
    assert SpeechOptions(top_k=3, speed=2.0).over(settings) == SpeechOptions(temperature=0.6, top_k=3, speed=2.0)
    assert NO_OPTIONS.over(settings) == settings and SpeechOptions(top_k=0).given() == {"top_k": 0}
    assert set(BOUNDS) == set(SpeechOptions.__dataclass_fields__)


def test_a_gpu_samples_the_same_tokens(xtts_checkpoint: Path, simulated_cuda: object) -> None:
    """All seven in one batch, sampled on the device, against the CPU's sampler."""
    spoken = {}
    for device in ("cpu", "cuda"):
        synthesizer = XttsSynthesizer(xtts_checkpoint, device=device, threads=1, weights="fp32")
        voice = synthesizer.built_in_voices["Ana Florence"]
        assert isinstance(voice, XttsVoice)
        running = [synthesizer._engine.submit(asked(synthesizer, voice, options, 5)) for options in SEVEN]
        spoken[device] = [(each.tokens, len(each.samples)) for each in map(collect, running)]
        synthesizer.close()
    assert spoken["cuda"] == spoken["cpu"]
