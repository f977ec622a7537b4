"""The memory plan: compared with the memory of the engines, and its steps down and refusals on an 8 GB card."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import safetensors.torch
import torch
from make_tiny_xtts import RELEASED_TEXT_TOKENS, make_checkpoint, make_vocabulary, random_weights, released_config
from support.places import ROOT
from support.running_server import RunningServer
from support.tiny_xtts import pickled_copy
from support.trained_wenet import write_trained_checkpoint

from mirrorchat.asr import WenetWeights
from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware import devices, native
from mirrorchat.settings import Settings
from mirrorchat.startup import memory_parts, memory_small
from mirrorchat.startup.checkpoint_bytes import WenetBytes, XttsBytes
from mirrorchat.startup.loading import build_engines
from mirrorchat.startup.memory_parts import CUDA_BYTES, WORKSPACES_BYTES, Choice, Demand
from mirrorchat.startup.memory_plan import MemoryPlan, fit, plan_memory
from mirrorchat.startup.memory_small import Bytes, Part
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.xtts.decode import DecodeEngine
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import VocoderSizes, load_network
from mirrorchat.xtts.native_gpt import NativeGpt

GB = 10**9
GPU = "cuda:0"
MODES = [WeightMode.FP32, WeightMode.FP16W, *([WeightMode.INT8] if native.library() else [])]
XTTS = XttsBytes(  # of XTTS v2
    matrices=(*(((1024, 3072), (1024, 1024), (1024, 4096), (4096, 1024)) * 30), (1024, 1026)),
    layers=30, width=1024, positions=1037, modules=61_201_988, embeddings=8_928_256, vocoder=17_827_808,
    activation=8192, converted=0,
)  # fmt: skip
WENET = WenetBytes(
    matrices=116_617_216, others=5_933_795, width=512, inner=2048, convolved=True, vocabulary=5538
)  # of WenetSpeech
# A process loads a checkpoint and prints the memory that it took beyond the imports, without file pages.
LOADS = """
import sys, threading, time
from pathlib import Path
from mirrorchat.synth import XttsSynthesizer

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

before, most, loaded = anonymous(), [0], threading.Event()
def watch():
    while not loaded.wait(0.005):
        most.append(anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
speaker = XttsSynthesizer(Path(sys.argv[1]), device="cpu", threads=1, weights=sys.argv[2])
loaded.set()
watcher.join()
print(max(*most, anonymous()) - before)
speaker.close()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with XTTS and both of WeNet's checkpoints, tiny ones."""
    folder = tmp_path_factory.mktemp("models")
    make_checkpoint(folder / "xtts-v2")
    write_trained_checkpoint(folder / "wenet-zh", "zh")
    write_trained_checkpoint(folder / "wenet-en", "en")
    return folder


def card(free: float, *, host: float = 16.0, **changes: object) -> MemoryPlan:
    """Return the plan for real sizes on a GPU with `free` GB, in a host with `host` GB."""
    settings = replace(Settings(), **changes)  # type: ignore[arg-type]
    fixed = [Part("CUDA's libraries", GPU, Bytes(CUDA_BYTES + WORKSPACES_BYTES))]
    demand = Demand(GPU, XTTS, settings.xtts_cache_mb * 1_000_000, dict.fromkeys(Language, WENET), fixed, True, "bf16")
    mode = WeightMode.BF16 if settings.xtts_weights == "auto" else WeightMode(settings.xtts_weights)
    first = Choice(mode, settings.xtts_batch, settings.wenet_weights, GPU)
    return fit(settings, demand, first, {GPU: int(free * GB), "cpu": int(host * GB)})


def host(free: float, *, library: bool = True, **changes: object) -> MemoryPlan:
    """Return the plan for real sizes on a host with `free` GB and no GPU."""
    settings = replace(Settings(), **changes)  # type: ignore[arg-type]
    demand = Demand("cpu", XTTS, settings.xtts_cache_mb * 1_000_000, {Language.CHINESE: WENET}, [], library, "")
    mode = WeightMode.FP16W if settings.xtts_weights == "auto" else WeightMode(settings.xtts_weights)
    return fit(settings, demand, Choice(mode, settings.xtts_batch, "int8", "cpu"), {"cpu": int(free * GB)})


def refusal(plan: MemoryPlan) -> str:
    with pytest.raises(ConfigurationError) as caught:
        plan.require_fit()
    return caught.value.message


# On an 8 GB card


def test_everything_fits_an_8_gb_card() -> None:
    plan = card(7.5)
    plan.require_fit()
    assert plan.fits and plan.steps == () and plan.settings == Settings(threads=plan.settings.threads)
    assert plan.lines()[0] == "memory on cuda:0: 6.08 GB needed, 7.50 GB free"
    assert "memory on cuda:0: 0.76 GB for XTTS's layers in bf16, 0.02 GB more while it loads" in plan.lines()
    assert plan.wenet_device == "auto"


def test_the_steps_down_have_an_order() -> None:
    """With less and less memory each plan fits, and takes a step only after the earlier ones."""
    seen = []
    for tenths in range(80, 23, -1):
        plan = card(tenths / 10)
        if not plan.fits:
            break
        seen.append((plan.settings.wenet_weights, plan.wenet_device, plan.settings.xtts_batch))
    order = list(dict.fromkeys(seen))
    batches = [batch for _, device, batch in order if device == "auto"]
    moved = [batch for _, device, batch in order if device == "cpu"]
    assert {weights for weights, _, _ in order} == {"auto"} and order[0] == ("auto", "auto", 8)
    assert batches == sorted(batches, reverse=True) and batches[-1] <= 2
    assert moved and moved == sorted(moved, reverse=True)
    assert len(order) == len(batches) + len(moved)


def test_a_step_is_printed() -> None:
    assert card(5.7).lines()[-1] == "memory: XTTS's batch 6 instead of 8, to fit"
    assert card(5.7).steps_of("xtts") == ["XTTS's batch 6 instead of 8, to fit into memory"]
    assert card(5.7).steps_of("wenet") == []


def test_wenet_moves_to_the_cpu_only_if_it_fits_there() -> None:
    assert card(3.5).wenet_device == "cpu" and card(3.5).fits
    full = card(3.5, host=0.5)
    assert not full.fits and "cpu has 0.50 GB free (500000000 bytes), and" in refusal(full)


def test_a_small_card_is_refused_with_the_bytes_and_what_to_set() -> None:
    message = refusal(card(1.5))
    assert message.startswith("the models do not fit into memory even with WeNet on the CPU instead of cuda:0, XTTS's")
    assert re.search(
        r"cuda:0 has 1\.50 GB free \(1500000000 bytes\), and 3\.\d\d GB are needed \(3\d{9} bytes\)", message
    )
    assert message.endswith("free some memory, or set device = 'cpu' or synthesizer = 'embedded'")


def test_settings_that_a_person_has_set_are_kept_and_named() -> None:
    assert card(4.0, xtts_weights="fp32").settings.xtts_weights == "fp32"
    kept = card(4.5, xtts_batch=6, device="cuda")
    assert kept.settings.xtts_batch == 6 and kept.wenet_device == "cuda" and not kept.fits
    assert refusal(kept).endswith("; set xtts_batch = 2 instead of 6")
    moved = card(3.5, device="cuda")
    assert moved.wenet_device == "cuda" and refusal(moved).endswith("; set device = 'auto' instead of 'cuda'")
    wide = card(4.2, xtts_weights="fp32", wenet_weights="fp32", xtts_batch=7)
    assert (wide.settings.xtts_weights, wide.settings.wenet_weights, wide.settings.xtts_batch) == ("fp32", "fp32", 7)
    assert refusal(wide).endswith(
        "; set xtts_weights = 'bf16' instead of 'fp32' and xtts_batch = 1 instead of 7"
        " and wenet_weights = 'bf16' instead of 'fp32'"
    )


def test_a_second_card_keeps_wenet() -> None:
    """`auto` would be another card, so it is no advice."""
    assert "device = 'auto'" not in refusal(card(2.5, device="cuda:1"))


# On the CPU


def test_on_the_cpu_the_smaller_mode_comes_first_and_then_the_batch() -> None:
    plans = [host(free) for free in (5.0, 3.0, 1.7)]
    assert all(plan.fits for plan in plans)
    assert [plan.settings.xtts_weights for plan in plans] == ["auto", "int8", "int8"]
    assert plans[1].settings.xtts_batch == 8 > plans[2].settings.xtts_batch
    assert not host(0.9).fits


def test_without_the_library_there_is_no_int8_to_step_down_to() -> None:
    plan = host(3.5, library=False)
    assert plan.fits and plan.settings.xtts_weights == "auto" and plan.settings.xtts_batch < 8


def test_a_mode_that_a_person_has_set_is_kept_on_the_cpu() -> None:
    plan = host(2.0, xtts_weights="fp32")
    assert plan.settings.xtts_weights == "fp32"
    assert "; set xtts_weights = 'int8' instead of 'fp32'" in refusal(plan)


def test_the_cache_is_no_larger_than_its_setting() -> None:
    part = next(line for line in card(8.0, xtts_cache_mb=400).lines() if "cache" in line)
    assert "for XTTS's cache for 3 sentences at once" in part


# Against the engines


@pytest.mark.parametrize("mode", MODES)
def test_the_cache_and_the_layers_have_the_size_of_the_engines(models: Path, mode: WeightMode) -> None:
    speaker = XttsSynthesizer(models / "xtts-v2", device="cpu", threads=1, weights=str(mode))
    sizes = XttsBytes.read(models / "xtts-v2")
    try:
        engine: DecodeEngine = speaker._engine
        assert sizes.slot_bytes(mode, gpu=False) * engine.cache.slots == engine.cache.data.nbytes
        if isinstance(engine.gpt, NativeGpt):
            assert sizes.gpt(mode, gpu=False).kept == engine.gpt._linears.used
    finally:
        speaker.close()


def test_every_number_of_a_checkpoint_is_counted_once(models: Path) -> None:
    network = load_network(models / "xtts-v2")
    sizes = XttsBytes.read(models / "xtts-v2")
    matrices = sum(inputs * outputs for inputs, outputs in sizes.matrices)
    counted = matrices + sizes.modules + sizes.embeddings + sizes.vocoder
    whole = sum(tensor.numel() for tensor in network.state_dict().values())
    rest = r"gpt\.gpt\.(h\..*(bias|ln_..weight)$|ln_f)|gpt\.(final_norm|mel_head\.bias)|mel_stats"
    small = sum(tensor.numel() for name, tensor in network.state_dict().items() if re.match(rest, name))
    assert counted + small == whole
    model = read_checkpoint(models / "wenet-zh").model
    wenet = WenetBytes.read(models / "wenet-zh")
    assert wenet.matrices + wenet.others == sum(tensor.numel() for tensor in model.state_dict().values())
    assert wenet.bytes_in(WenetWeights.FP32, gpu=True, native=False).kept == 4 * (wenet.matrices + wenet.others)


def test_the_released_pickle_has_the_same_sizes(models: Path, tmp_path: Path) -> None:
    folder = pickled_copy(models / "xtts-v2", tmp_path / "xtts-v2")
    assert XttsBytes.read(folder) == XttsBytes.read(models / "xtts-v2")


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an XTTS of 4 of the released 30 layers, in their real width: 0.56 GB."""
    folder = tmp_path_factory.mktemp("middle")
    (folder / "vocab.json").write_text(json.dumps(make_vocabulary(RELEASED_TEXT_TOKENS), ensure_ascii=False))
    config = released_config()
    config.model_args.gpt_layers = 4
    config.save_json(str(folder / "config.json"))
    weights = random_weights(config, folder / "vocab.json", VocoderSizes(), 0)
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    yield folder
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("mode", [WeightMode.FP16W, *([WeightMode.INT8] if native.library() else [])])
def test_loading_takes_the_planned_memory(middle: Path, mode: WeightMode) -> None:
    """Within a fifth. The voice encoders stay in their file until they are used, and its pages do not count.

    Without the library, torch converts the weights, and glibc keeps 10 to 40 MB of the memory that this frees, which
    differs from run to run: there it gives all of it back at once.
    """
    at_once = {} if native.library() else {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADS, str(middle), str(mode)],
        cwd=ROOT, env={**os.environ, **at_once}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout.split()[-1])
    sizes = XttsBytes.read(middle)
    gpt, vocoder = sizes.gpt(mode, gpu=False), sizes.vocoder_bytes(mode, gpu=False)
    planned = gpt.kept + vocoder.kept + max(gpt.loading, vocoder.loading)
    assert 0.8 * planned < taken < 1.2 * planned


# At the start


def test_a_server_prints_its_plan(models: Path, tmp_path: Path) -> None:
    with RunningServer(tmp_path, models_dir=str(models), device="cpu") as server:
        lines = [line.split(" INFO ")[1] for line in server.log.splitlines() if " INFO memory" in line]
    assert re.fullmatch(r"memory on cpu: \d+\.\d\d GB needed, \d+\.\d\d GB free", lines[0])
    mode, kept_as = ("fp16w", "int8" if native.library() else "fp32")
    for part in (f"XTTS's layers in {mode}", "XTTS's voice encoders", "XTTS's vocoder", "Python and its packages",
                 "XTTS's cache for 8 sentences at once", f"WeNet for chinese in {kept_as}",
                 f"WeNet for english in {kept_as}"):  # fmt: skip
        assert any(re.match(rf"memory on cpu: \d+\.\d\d GB for {part}", line) for line in lines), (part, lines)


def test_the_engines_follow_the_plan_and_state_its_steps(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(models_dir=models, device="cpu", threads=1, xtts_weights="fp32")
    monkeypatch.setattr(memory_small, "resident_bytes", lambda: memory_parts.PROCESS_BYTES)
    needed = needs(plan_memory(settings, free={"cpu": 0}), "cpu")  # with a batch of 1
    slot = XttsBytes.read(models / "xtts-v2").slot_bytes(WeightMode.FP32, gpu=False)
    monkeypatch.setattr(devices, "free_host_bytes", lambda: needed + 2 * slot)
    engines = build_engines(settings)
    try:
        speaker = engines.synthesizers[Language.ENGLISH]
        assert isinstance(speaker, XttsSynthesizer) and speaker.stats().slots == 3
        assert speaker.info.reason.endswith("; XTTS's batch 3 instead of 8, to fit into memory")
    finally:
        engines.close()
    monkeypatch.setattr(devices, "free_host_bytes", lambda: 1_000_000)
    with pytest.raises(ConfigurationError, match=r"do not fit into memory.*cpu has 0\.00 GB free \(1000000 bytes\)"):
        build_engines(settings)


def test_a_gpu_that_torch_cannot_use_is_reported(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA L4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engines = build_engines(Settings(models_dir=models, threads=1))
    engines.close()
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert any("NVIDIA's driver shows NVIDIA L4, which torch cannot use" in message for message in warned)
    for info in engines.infos().values():
        assert ("which torch cannot use" in info.reason) == (info.name in ("xtts", "wenet"))


def test_without_a_model_there_is_nothing_to_plan(tmp_path: Path) -> None:
    plan = plan_memory(Settings(models_dir=tmp_path, synthesizer={"english": "embedded", "chinese": "embedded"}))
    plan.require_fit()
    assert plan.fits and plan.lines() == []


def test_the_runtime_format_and_the_package_take_the_size_of_their_files(models: Path, tmp_path: Path) -> None:
    data = ROOT / "tests" / "data" / "wenet-tiny"
    (tmp_path / "wenet-zh").symlink_to(data / "zh")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "final.pt").write_bytes(bytes(2_000_000))
    free: Mapping[str, int] = {"cpu": 100 * GB}
    settings = Settings(models_dir=tmp_path, recognizer={"chinese": "auto", "english": "wenet:own"})
    parts = {part.name: part for part in plan_memory(settings, free=free).parts}
    assert parts["WeNet's runtime for chinese"].bytes.kept == (data / "zh" / "final.zip").stat().st_size
    assert parts["wenet:own for english"].bytes.kept == 2_000_000
    unknown = replace(settings, recognizer={"chinese": "auto", "english": "wenet:no-such"})
    assert plan_memory(unknown, free=free).lines()[-1].endswith("(its size is known once it has been downloaded)")


def needs(plan: MemoryPlan, device: str) -> int:
    """Return the needed bytes that the refusal of `plan` states."""
    found = re.search(rf"{device} has .*? needed \((\d+) bytes\)", refusal(plan))
    assert found is not None
    return int(found[1])
