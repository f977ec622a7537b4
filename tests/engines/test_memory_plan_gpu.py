"""The memory plan for a GPU, compared with what the engines take on a simulated one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import torch
from make_tiny_xtts import make_checkpoint
from support.simulated_cuda import SimulatedCuda
from support.simulated_cuda.streams import HOPPER_WORKSPACE, WORKSPACE
from support.speaking import speak
from support.speech import say
from support.trained_wenet import write_trained_checkpoint
from support.xtts_texts import ENGLISH, SHORT

from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Engines, Language
from mirrorchat.settings import Settings
from mirrorchat.startup.loading import _let_segments_grow, build_engines
from mirrorchat.startup.memory_parts import CUDA_BYTES, WORKSPACES_BYTES
from mirrorchat.startup.memory_plan import MemoryPlan, plan_memory
from mirrorchat.synth import XttsSynthesizer

NOT_TENSORS = ("CUDA's libraries", "XTTS's CUDA graphs", "gaps between tensors")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_checkpoint(folder / "xtts-v2")
    write_trained_checkpoint(folder / "wenet-en", "en")
    return folder


def use(engines: Engines) -> None:
    """Compute a voice, speak more sentences than there are slots, and recognize, all at the same time."""
    question, speaker = say("hello there my dear friends, how are you"), engines.synthesizers[Language.ENGLISH]
    assert isinstance(speaker, XttsSynthesizer)
    voice = speaker.voice([question])
    recognizer = engines.recognizers[Language.ENGLISH]
    with ThreadPoolExecutor(5) as pool:
        spoken = [pool.submit(lambda: list(speak(speaker, SHORT[ENGLISH], voice))) for _ in range(3)]
        asked = pool.submit(recognizer.recognize, question, Language.ENGLISH, context=Context.after(300))
        other = pool.submit(speaker.voice, [question])
        assert all(each.result(300) for each in spoken) and asked.result(300).text and other.result(300)


def kept(plan: MemoryPlan) -> int:
    """Return the bytes of all tensors that the models keep on the GPU."""
    return sum(part.bytes.kept for part in plan.parts if part.device == "cuda:0" and part.name not in NOT_TENSORS)


def test_the_engines_take_what_the_plan_says(models: Path, simulated_cuda: SimulatedCuda) -> None:
    settings = Settings(models_dir=models, threads=1, device="cuda:0", xtts_batch=2)
    plan = plan_memory(settings)
    assert {part.stream for part in plan.parts if part.device != "cpu"} == {"default", "voices", "vocoder", "decoding"}
    engines = build_engines(settings)
    try:
        tensors = torch.cuda.memory_allocated(0) - len(simulated_cuda.workspaces) * WORKSPACE
        assert 0.8 * kept(plan) < tensors < 1.1 * kept(plan)
        use(engines)
        assert len(simulated_cuda.workspaces) * HOPPER_WORKSPACE <= WORKSPACES_BYTES
        assert torch.cuda.max_memory_reserved(0) < plan.needed_bytes("cuda:0") - CUDA_BYTES
    finally:
        engines.close()


def test_segments_grow_unless_a_person_has_decided() -> None:
    environ = dict[str, str]()
    _let_segments_grow(environ)
    assert environ == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        own = {name: "max_split_size_mb:64"}
        environ = dict(own)
        _let_segments_grow(environ)
        assert environ == own
