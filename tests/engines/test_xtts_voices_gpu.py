"""Voices on a GPU: one thread computes them, and memory that runs out is asked for again."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.simulated_cuda import SimulatedCuda

from mirrorchat.audio.samples import Audio
from mirrorchat.errors import NotReady, SynthesisFailed
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts import voice_thread
from mirrorchat.xtts.decode import DecodeLimits
from mirrorchat.xtts.voice_thread import VoiceThread

SECOND = torch.device("cuda", 1)


@pytest.fixture
def thread(simulated_cuda: SimulatedCuda) -> Iterator[VoiceThread]:
    made = VoiceThread(SECOND)
    yield made
    made.close()


def noise(seconds: float) -> Audio:
    samples = np.random.default_rng(0).normal(0, 0.1, int(22_050 * seconds)).astype(np.float32)
    return Audio(samples, 22_050)


def test_all_callers_share_one_thread_with_its_device(thread: VoiceThread) -> None:
    with ThreadPoolExecutor(4) as callers:
        found = list(
            callers.map(
                lambda _: thread.run(lambda: (threading.current_thread().name, torch.cuda.current_device())), range(8)
            )
        )
    assert set(found) == {("xtts-voice_0", 1)}


def test_a_cpu_computes_on_the_callers_thread() -> None:
    thread = VoiceThread(torch.device("cpu"))
    assert thread.run(threading.current_thread) is threading.current_thread()
    thread.close()


def test_memory_that_runs_out_is_asked_for_once_more(thread: VoiceThread, simulated_cuda: SimulatedCuda) -> None:
    def compute() -> int:
        return len(torch.zeros(7, device=SECOND).cpu())

    simulated_cuda.fail_allocation()
    assert thread.run(compute) == 7
    with pytest.raises(torch.OutOfMemoryError):
        thread.run(lambda: torch.zeros(1 << 50, dtype=torch.uint8, device=SECOND) and None)


def test_a_voice_that_never_comes_is_not_waited_for(thread: VoiceThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_thread, "LIMIT_S", 0.05)
    go_on = threading.Event()
    with pytest.raises(SynthesisFailed, match=r"within 0\.05 s"):
        thread.run(go_on.wait)
    go_on.set()


def test_who_waits_at_the_end_gets_an_error(thread: VoiceThread) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def first() -> bool:
        begun.set()
        return go_on.wait()

    with ThreadPoolExecutor(2) as callers:
        running = callers.submit(thread.run, first)
        begun.wait()
        waiting = callers.submit(thread.run, lambda: None)
        while thread._pool is not None and not thread._pool._work_queue.qsize():
            pass
        thread.close()
        go_on.set()
        assert running.result() is True
        with pytest.raises(NotReady):
            waiting.result()


def test_same_voice_as_on_a_cpu(xtts_checkpoint: Path, simulated_cuda: SimulatedCuda) -> None:
    """And none of it is computed on the thread that asks; cuDNN's attention is off."""
    torch.set_num_threads(1)
    on_cpu = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
    expected = on_cpu._condition([noise(2.0)], on_cpu._neutral_voice.kind, "")
    embedding = on_cpu.embed_speaker(noise(2.0))
    on_cpu.close()
    engine = XttsSynthesizer(xtts_checkpoint, device="cuda:1", threads=1, limits=DecodeLimits(max_batch=1))
    found = engine._condition([noise(2.0)], expected.kind, "")
    np.testing.assert_allclose(found.gpt_cond_latent, expected.gpt_cond_latent, atol=1e-4)
    np.testing.assert_allclose(found.speaker_embedding, expected.speaker_embedding, atol=1e-4)
    again = engine.embed_speaker(noise(2.0))
    assert again is not None and embedding is not None
    np.testing.assert_allclose(again, embedding, atol=1e-4)
    assert engine.info.reason == ""
    assert not torch._C._get_cudnn_sdp_enabled()
    engine.close()
