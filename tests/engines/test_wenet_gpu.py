"""WeNet on a GPU: the hypotheses of the CPU, the lock of the device only while it computes, and little to wait for."""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.simulated_cuda import SimulatedCuda
from support.speech import say
from support.trained_wenet import write_trained_checkpoint
from support.wenet_reference import DATA

from mirrorchat.asr import WenetRecognizer, choose_weights
from mirrorchat.concurrency.context import Context
from mirrorchat.concurrency.device_lock import DeviceLock
from mirrorchat.engines import Language
from mirrorchat.errors import EngineFailed, RecognitionFailed
from mirrorchat.wenet import batch, stream
from mirrorchat.wenet.batch import U2Batches
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.ctc.search import BEAM, FloatArray, PrefixBeamSearch
from mirrorchat.wenet.frame_scores import FrameScores
from mirrorchat.wenet.layers import keep_in_half
from mirrorchat.wenet.model import U2Model
from mirrorchat.wenet.stream import ChunkReader

SIZES = (203, 23, 403, 67)


def recordings(sizes: Sequence[int] = SIZES) -> list[FloatArray]:
    generator = np.random.default_rng(5)
    return [(10 + 3 * generator.standard_normal((size, 80))).astype(np.float32) for size in sizes]


def network(device: torch.device) -> U2Model:
    return read_checkpoint(DATA / "aishell").model.to(device=device)


@torch.inference_mode()
@pytest.mark.parametrize("weights", ["fp32", "fp16w", "fp16"])
def test_hypotheses_are_those_of_the_cpu(cuda_device: torch.device, weights: str) -> None:
    model = network(torch.device("cpu"))
    expected = U2Batches(model).recognize(recordings(), [None] * len(SIZES))
    if weights == "fp16w":
        keep_in_half(model)
    model.to(device=cuda_device, dtype=torch.float16 if weights == "fp16" else None)
    found = U2Batches(model, device=cuda_device).recognize(recordings(), [None] * len(SIZES))
    for one, other in zip(found, expected, strict=True):
        alike = SequenceMatcher(
            None, one.tokens, other.tokens
        ).ratio()  # random weights have choices that are nearly tied
        assert alike == 1.0 if weights == "fp32" else alike > 0.9
        assert one.score == pytest.approx(other.score, rel=1e-5 if weights == "fp32" else 0.02)


@torch.inference_mode()
def test_chunks_are_those_of_the_cpu(cuda_device: torch.device) -> None:
    features = recordings((403,))[0]
    readers = [ChunkReader(network(device)) for device in (torch.device("cpu"), cuda_device)]
    for start in range(0, 403 - readers[0].window, readers[0].stride):
        for reader in readers:
            reader.read(features[start : start + reader.window])
        tokens = [[each.tokens for each in reader.hypotheses()] for reader in readers]
        assert tokens[0] == tokens[1]
    assert readers[0].rescored().tokens == readers[1].rescored().tokens


@torch.inference_mode()
def test_the_device_lock_is_held_while_the_device_computes_only(
    any_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, held = DeviceLock(), list[tuple[str, bool]]()

    def noting(owner: Any, name: str) -> None:
        usual: Callable[..., Any] = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            held.append((name, bool(lock._turns)))
            return usual(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    model = network(any_device)
    places: list[tuple[Any, str]] = [
        (batch, "prefix_beam_search"), (batch, "uploaded"), (model.ctc, "log_softmax"),
        (model.decoder.left_decoder, "hidden_at"), (model.encoder, "forward_chunk"),
        (PrefixBeamSearch, "advance"), (PrefixBeamSearch, "hypotheses"), (stream, "attention_rescoring"),
    ]  # fmt: skip
    for owner, name in places:
        noting(owner, name)
    U2Batches(model, device=any_device, device_lock=lock).recognize(recordings(), [None] * len(SIZES))
    reader = ChunkReader(model, device_lock=lock)
    reader.read(recordings((reader.window,))[0])
    reader.rescored()
    on_device = {"uploaded", "log_softmax", "hidden_at", "forward_chunk", "attention_rescoring"}
    on_cpu = {"prefix_beam_search", "advance", "hypotheses"}
    assert set(held) == {(name, name in on_device) for name in on_device | on_cpu}


@torch.inference_mode()
def test_the_best_tokens_of_each_frame_come_from_the_device(cuda_device: torch.device) -> None:
    log_probs = torch.randn(2, 7, 5_000, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    scores = FrameScores.fetched(log_probs.to(cuda_device))
    assert scores.values.shape == (2, 7, BEAM) and scores.values.device.type == "cpu"
    dense = scores.for_search()
    best = log_probs.topk(BEAM).indices
    expected = torch.full(log_probs.shape, -torch.inf).scatter_(-1, best, log_probs.gather(-1, best))
    np.testing.assert_array_equal(dense, expected.numpy())
    few = log_probs[..., :6]
    np.testing.assert_array_equal(FrameScores.fetched(few.to(cuda_device)).for_search(), few.numpy())
    np.testing.assert_array_equal(FrameScores.fetched(log_probs).for_search(), log_probs.numpy())


@torch.inference_mode()
def test_a_batch_waits_for_its_results_only(simulated_cuda: SimulatedCuda) -> None:
    """Three downloads after the encoder; after that one for each of the two decoders and the two groups of trees."""
    device = torch.device("cuda", 0)
    batches = U2Batches(network(device), device=device)
    with simulated_cuda.counting() as waits:
        batches.recognize(recordings(), [None] * len(SIZES))
    assert {kind for kind, _ in waits} == {"download to pageable memory"} and sum(waits.values()) == 3 + 2 * 2, waits


@torch.inference_mode()
def test_not_a_number_on_the_device_is_an_error(cuda_device: torch.device) -> None:
    batches = U2Batches(network(cuda_device), device=cuda_device)
    batches.model.ctc.ctc_lo.bias[3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        batches.recognize(recordings((60,)), [None])


def test_the_recognizer_takes_16_bits_and_sets_the_device_of_its_thread(
    cuda_device: torch.device, tmp_path: Path
) -> None:
    write_trained_checkpoint(tmp_path / "wenet-en", "en")
    question = say("hello there my dear friends, how are you")
    texts = []
    for device in ("cpu", str(cuda_device)):
        recognizer = WenetRecognizer(tmp_path / "wenet-en", Language.ENGLISH, threads=1, device=device)
        try:
            texts.append(recognizer.recognize(question, Language.ENGLISH, context=Context.after(60)).text)
            if device != "cpu":
                assert recognizer.info.model == f"wenet-en {choose_weights('auto', cuda_device)}"
                assert recognizer.info.model.endswith(("bf16", "fp16"))
                index = recognizer._engine.compute(torch.cuda.current_device, context=Context.after(60))
                assert index == cuda_device.index
        finally:
            recognizer.close()
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize(
    "last_words", [None, RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`")]
)
def test_a_lost_gpu_ends_the_recognizer(
    simulated_cuda: SimulatedCuda, tmp_path: Path, last_words: Exception | None
) -> None:
    write_trained_checkpoint(tmp_path / "wenet-en", "en")
    question = say("hello there my dear friends, how are you")
    recognizer = WenetRecognizer(tmp_path / "wenet-en", Language.ENGLISH, threads=1, device="cuda")
    try:
        recognizer.check_ready()
        simulated_cuda.lose(after=50, last_words=last_words)
        with pytest.raises(RecognitionFailed, match="the recognition engine has failed"):
            recognizer.recognize(question, Language.ENGLISH, context=Context.after(60))
        with pytest.raises(EngineFailed):
            recognizer.check_ready()
    finally:
        simulated_cuda.regain()
        recognizer.close()
