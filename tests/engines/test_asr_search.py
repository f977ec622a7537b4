"""The steps of recognition around the search: features by hand, and the rescoring against an obvious one."""

from pathlib import Path

import make_tiny_wenet
import numpy as np
import pytest
import torch
from support.ctc_log_probs import random_log_probs

from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.wenet.batch import load_script
from mirrorchat.wenet.ctc.search import Hypothesis, prefix_beam_search
from mirrorchat.wenet.features import fbank
from mirrorchat.wenet.model import GlobalCMVN, U2Config, U2Model
from mirrorchat.wenet.rescoring import attention_rescoring

# Features


def test_features_are_kaldis() -> None:
    """One frame worked out by hand: no dither, preemphasis 0.97, Povey's window, 80 bins from 20 Hz to 8 kHz."""
    rng = np.random.default_rng(1)
    samples = rng.uniform(-0.5, 0.5, 400).astype(np.float32)
    frame = samples.astype(np.float64) * 32768
    frame -= frame.mean()
    frame -= 0.97 * np.concatenate((frame[:1], frame[:-1]))
    frame *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frame, 512)) ** 2
    mel = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 82)
    rising = (mel - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - mel) / (edges[2:] - edges[1:-1])[:, None]
    expected = np.log(np.clip(np.minimum(rising, falling), 0, None)[:, :256] @ power[:256])
    np.testing.assert_allclose(fbank(samples)[0], expected, atol=2e-3)


def test_features_come_every_10_ms() -> None:
    assert [len(fbank(np.zeros(n, np.float32))) for n in (0, 399, 400, 559, 560, 16000)] == [0, 0, 1, 1, 2, 98]
    assert fbank(np.zeros(0, np.float32)).shape == (0, 80)


# Rescoring, on a random network in full precision


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random network of 12 tokens, in full precision, whose scores of texts differ widely."""
    folder = tmp_path_factory.mktemp("random")
    torch.manual_seed(7)
    config = U2Config(
        vocabulary=12, sos=2, eos=2, width=16, heads=2, encoder_units=16, encoder_blocks=1, decoder_heads=2,
        decoder_units=16, decoder_blocks=1, reverse_blocks=1,
    )  # fmt: skip
    model = U2Model(config, GlobalCMVN(torch.zeros(80), torch.ones(80))).eval()
    for side in ("left", "right"):
        torch.nn.init.normal_(model.get_parameter(f"decoder.{side}_decoder.output_layer.weight"))
    tokens = ["<blank>", "<unk>", "<sos/eos>", *"abcdefghi"]
    make_tiny_wenet.save_script(model, folder / "final.zip")
    (folder / "units.txt").write_text("".join(f"{token} {i}\n" for i, token in enumerate(tokens)), encoding="utf-8")
    return folder


def reference_score(model: torch.jit.ScriptModule, hypothesis: Hypothesis, encoded: torch.Tensor) -> float:
    """Score one hypothesis alone, token by token."""
    given = torch.tensor([[2, *hypothesis.tokens]])
    left, right = model.forward_attention_decoder(given, torch.tensor([given.shape[1]]), encoded, 0.3)
    forwards: float = sum(left[0, i, token].item() for i, token in enumerate((*hypothesis.tokens, 2)))
    backwards: float = sum(right[0, i, token].item() for i, token in enumerate((*hypothesis.tokens[::-1], 2)))
    return 0.7 * forwards + 0.3 * backwards + 0.5 * hypothesis.score


@torch.inference_mode()
def test_rescoring_chooses_as_the_obvious_sum_does(random_model: Path) -> None:
    model = load_script(random_model / "final.zip")
    changed = 0
    for seed in range(12):
        frames = torch.randn(1, 120, 80, generator=torch.Generator().manual_seed(seed))
        encoded, _, _ = model.forward_encoder_chunk(frames, 0, -1)
        hypotheses = prefix_beam_search(random_log_probs(20, 12, seed, 2.0))
        scores = [reference_score(model, hypothesis, encoded) for hypothesis in hypotheses]
        chosen = attention_rescoring(model, hypotheses, encoded)
        assert chosen == hypotheses[scores.index(max(scores))]
        changed += chosen != hypotheses[0]
    assert changed, "no case in which the decoders disagree with CTC: the test shows nothing"


@torch.inference_mode()
def test_rescoring_takes_an_empty_text(random_model: Path) -> None:
    model = load_script(random_model / "final.zip")
    encoded, _, _ = model.forward_encoder_chunk(torch.zeros(1, 40, 80), 0, -1)
    assert attention_rescoring(model, [Hypothesis((), -1.0, (), ())], encoded).tokens == ()


def test_a_model_in_full_precision_is_read_too(random_model: Path) -> None:
    recognizer = WenetRecognizer(random_model, Language.ENGLISH, threads=1)
    noise = Audio(np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32), 16000)
    heard = recognizer.recognize(noise, Language.ENGLISH, context=Context()).text
    assert set(heard.lower()) <= set("abcdefghi ")
