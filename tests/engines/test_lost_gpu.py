"""Which errors mean that the GPU is lost to the process, and what an engine does then."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.speaking import speak
from support.speech import say
from support.xtts_texts import ENGLISH, SHORT

from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import ParrotChat
from mirrorchat.engines import EngineInfo, Engines, Language
from mirrorchat.errors import EngineFailed, NotReady, RecognitionFailed, SynthesisFailed
from mirrorchat.hardware.lost_gpu import is_gpu_lost
from mirrorchat.server.failed_engine import failure
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.wenet.ctc.context import ContextGraph
from mirrorchat.wenet.ctc.search import FloatArray, Hypothesis
from mirrorchat.wenet.engine import RecognitionEngine

LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"),
    RuntimeError("cuFFT error: CUFFT_EXEC_FAILED"),
    RuntimeError("CUDA driver error: unknown error"),
]
ONE_COMPUTATION = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),  # torch.stft without memory for its plan
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    ValueError("the log probabilities hold NaN or infinity"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_the_gpu_is_lost(error: Exception) -> None:
    assert is_gpu_lost(error)
    try:
        try:
            raise error
        except RuntimeError as cause:
            raise ValueError("WeNet's package failed") from cause
    except ValueError as wrapped:
        assert is_gpu_lost(wrapped)


@pytest.mark.parametrize("error", ONE_COMPUTATION, ids=str)
def test_one_computation_has_failed(error: Exception) -> None:
    assert not is_gpu_lost(error)


def test_a_ring_of_errors_ends() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_gpu_lost(first)


class Failing:
    """A recognizer's network that fails."""

    rows, frames = 8, 8000

    def __init__(self, error: Exception) -> None:
        self.error = error

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        raise self.error


@pytest.mark.parametrize("error", LOST[:3], ids=str)
def test_a_recognizer_is_not_ready_after_its_gpu_is_lost(error: Exception) -> None:
    engine = RecognitionEngine(Failing(error))
    try:
        for _ in range(2):
            with pytest.raises((RecognitionFailed, EngineFailed), match="the recognition engine has failed"):
                engine.recognize([np.zeros((50, 80), np.float32)], context=Context())
        with pytest.raises(EngineFailed):
            engine.check_ready()
    finally:
        engine.close()


def test_so_it_is_after_a_chunk_of_a_stream() -> None:
    engine = RecognitionEngine(Failing(LOST[0]))

    def read_chunk() -> None:
        raise LOST[1]

    with pytest.raises(RecognitionFailed):
        engine.compute(read_chunk, context=Context())
    with pytest.raises(EngineFailed):
        engine.check_ready()
    engine.close()


@pytest.mark.parametrize("error", ONE_COMPUTATION, ids=str)
def test_a_recognizer_is_ready_after_one_failure(error: Exception) -> None:
    engine = RecognitionEngine(Failing(error))
    with pytest.raises(RecognitionFailed, match="the question could not be recognized"):
        engine.recognize([np.zeros((50, 80), np.float32)], context=Context())
    engine.check_ready()
    engine.close()


@pytest.fixture
def synthesizer(xtts_checkpoint: Path) -> Iterator[XttsSynthesizer]:
    synthesizer = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
    yield synthesizer
    synthesizer.close()


@pytest.mark.parametrize("error", LOST[:3], ids=str)
def test_a_synthesizer_is_not_ready_after_a_voice_found_the_gpu_lost(
    synthesizer: XttsSynthesizer, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    question = say("Please tell me what the weather will be like tomorrow.")
    for place, name in ((synthesizer._loaded(), "get_speaker_embedding"), (torch, "stack")):
        synthesizer._gpu_lost = False
        synthesizer.check_ready()
        with monkeypatch.context() as patch, pytest.raises(SynthesisFailed, match="the voice could not be computed"):
            patch.setattr(place, name, fail)
            synthesizer.voice([question])
        with pytest.raises(EngineFailed):
            synthesizer.check_ready()


@pytest.mark.parametrize("error", LOST[:3], ids=str)
def test_a_synthesizer_is_not_ready_after_a_step_found_the_gpu_lost(
    synthesizer: XttsSynthesizer, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    voice = synthesizer.voice([say("Please tell me what the weather will be like tomorrow.")])
    monkeypatch.setattr(synthesizer._engine._steps, "launch", fail)
    with pytest.raises(SynthesisFailed, match="the speech engine has failed"):
        list(speak(synthesizer, SHORT[ENGLISH], voice))
    with pytest.raises(EngineFailed):
        synthesizer.check_ready()


def test_a_failed_engine_is_found_beside_a_busy_one(synthesizer: XttsSynthesizer) -> None:
    class Stuck:
        info = EngineInfo("wenet", "", "cpu")

        def check_ready(self) -> None:
            raise NotReady("recognition has been stuck for 70 s")

    synthesizer._engine.healthy = False
    engines = Engines({Language.ENGLISH: Stuck()}, ParrotChat(), {Language.ENGLISH: synthesizer})  # type: ignore[dict-item]
    assert isinstance(failure(engines), EngineFailed)
    synthesizer._engine.healthy = True
    assert failure(engines) is None
