"""Requests of the decode engine for tests, on the tiny checkpoint, and what comes of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mirrorchat.audio.samples import Samples
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.hardware import native
from mirrorchat.xtts.decode import DecodeEngine, DecodeLimits
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import Launched, StepMode
from mirrorchat.xtts.utterance import FinishReason, Request, Utterance
from mirrorchat.xtts.vocoder import StreamingVocoder
from support.xtts_texts import ENGLISH

CPU = torch.device("cpu")
GREEDY = Sampling(do_sample=False)
SAMPLED = Sampling()
TOKEN_LIMIT = 37  # of the tiny checkpoint
POSITIONS = 32 + 401 + 2 + TOKEN_LIMIT
SLOT_BYTES = {  # layers, keys and values, width, float32 (as in all modes but int8), positions
    StepMode.EAGER: 2 * 2 * 64 * 4 * POSITIONS,
    StepMode.STATIC: 2 * 2 * 64 * 4 * (POSITIONS + 1),
}
EXACT_MODES = [WeightMode.FP16W, WeightMode.INT8] if native.library() else []  # the same to the last bit
TIE = 1e-4


@dataclass(frozen=True)
class Spoken:
    """What came of a request."""

    tokens: list[int]
    latents: torch.Tensor
    samples: Samples
    reason: FinishReason | None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Spoken)
            and self.tokens == other.tokens
            and torch.equal(self.latents, other.latents)
            and np.array_equal(self.samples, other.samples)
            and self.reason == other.reason
        )


def collect(utterance: Utterance) -> Spoken:
    chunks = list(utterance)
    return Spoken(utterance.tokens, torch.cat(utterance.latents).cpu(), np.concatenate(chunks), utterance.finish_reason)


def assert_same(found: Spoken, expected: Spoken) -> None:
    """Check for the same tokens, and latents and samples that differ by rounding only."""
    assert (found.tokens, found.reason) == (expected.tokens, expected.reason)
    assert float((found.latents - expected.latents).norm() / expected.latents.norm()) < 1e-3
    if found.latents.device.type == "cuda":  # where cuDNN computes the vocoder's products in TF32
        error = np.square(found.samples - expected.samples).sum()
        assert error < 1e-4 * np.square(expected.samples).sum()
    else:
        np.testing.assert_allclose(found.samples, expected.samples, atol=1e-4)


@contextmanager
def engines(network: Network, **defaults: Any) -> Iterator[Callable[..., DecodeEngine]]:
    """Give a function that makes engines of `network`, from what differs from `defaults`; close them at the end."""
    made: list[DecodeEngine] = []

    def make(mode: WeightMode = WeightMode.FP32, weights: Network = network, **options: Any) -> DecodeEngine:
        own: dict[str, Any] = {
            name: options.pop(name) for name in ("device_lock", "vocoder", "step_mode", "device") if name in options
        }
        settings = {"device": CPU} | defaults | own
        # In fp32 all is torch's, the reference; the faster modes speak through the library's vocoder where it runs.
        if "vocoder" not in settings:
            settings["vocoder"] = StreamingVocoder(weights.hifigan_decoder, native=mode is not WeightMode.FP32)
        made.append(DecodeEngine(weights, mode=mode, limits=DecodeLimits(**options), **settings))
        return made[-1]

    try:
        yield make
    finally:
        for engine in made:
            engine.close()


def voice(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(1, 32, 64, generator=generator), torch.randn(1, 512, 1, generator=generator)


def text_ids(network: Network, text: str, language: Language = ENGLISH) -> list[int]:
    return list(network.tokenizer.encode(text.strip().lower(), lang=language.code))


def ask(ids: Sequence[int] = range(6, 30), speaker: int = 0, seed: int = 0, **changes: Any) -> Request:
    conditioning, embedding = voice(speaker)
    options: dict[str, Any] = {"max_tokens": 600, "context": Context.after(120.0)} | changes
    return Request(list(ids), conditioning, embedding, seed, **options)


def recording(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """Return `function`, which puts what it returns into `results` as well."""

    def called(*arguments: Any, **settings: Any) -> Any:
        results.append(function(*arguments, **settings))
        return results[-1]

    return called


def launches(engine: DecodeEngine, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list to which the rows of each step will be added as it is launched."""
    rows: list[list[int]] = []
    launch = engine._steps.launch

    def recorded(asked: Sequence[int]) -> Launched:
        rows.append(list(asked))
        return launch(asked)

    monkeypatch.setattr(engine._steps, "launch", recorded)
    return rows


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
