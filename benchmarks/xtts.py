"""This project's XTTS engine against stock coqui-tts: random weights at real size, both sides in turn in one process.

    .venv/bin/python benchmarks/xtts.py [--json] [--threads 2] [--tokens 80] [--rounds 3] [--checkpoint FOLDER]

Every sentence has a fixed number of tokens, so both sides do the same work. A figure is made of the fastest of several
rounds on each side (the median is printed too): on a shared machine the fastest is what the code costs. Memory and
loading are measured in a process of their own without stock. Without --checkpoint the 1.9 GB of weights are made in a
temporary folder. `step_vs_floor` is a decode step's time over the time to read its weights once at the memory
bandwidth measured in the same run.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("", "scripts")]
os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of every setting that the two sides need

import numpy as np  # noqa: E402
import torch  # noqa: E402

from mirrorchat.xtts_linear import WeightMode  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.xtts_sides import Own, Spoken, Stock, Voice, load_seconds, weights_read
else:  # by its bare name: an installed package may be called benchmarks
    from xtts_sides import Own, Spoken, Stock, Voice, load_seconds, weights_read

MODES = (
    (WeightMode.FP16W, torch.float32),
    (WeightMode.INT8, torch.bfloat16),
)  # nearly exact, and the fastest
STREAM_TOKENS = 20  # coqui-tts's default chunk
BANDWIDTH_BYTES = 1 << 30  # far more than caches hold
GPU_BATCHES = (1, 4, 8, 16)
GPU_LIMIT_BYTES = 8e9

Figures = dict[str, Any]


def best(times: list[float]) -> str:
    return f"min {min(times):.3f} s, median {median(times):.3f} s"


def read_bandwidth(device: str = "cpu") -> float:
    """Return bytes a second of the fastest of several ways to read much memory once."""
    block = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    matrix, vector = block.view(1 << 14, -1), torch.ones(block.numel() >> 14, device=device)
    ways: list[Callable[[], torch.Tensor]] = [lambda: block.sum(), lambda: torch.mv(matrix, vector)]
    seconds = []
    for way in ways * 4:
        start = time.perf_counter()
        way()[..., :1].cpu() if device != "cpu" and way is ways[1] else way().cpu()
        seconds.append(time.perf_counter() - start)
    return BANDWIDTH_BYTES / min(seconds)


def compare_sentences(stock: Stock, sides: list[Own], voice: Voice, options: argparse.Namespace) -> Figures:
    """Time whole sentences, all sides in turn in each round; compare ids and samples with stock's."""
    rounds: dict[str, list[Spoken]] = {name: [] for name in ("stock", *(side.name for side in sides))}
    equal, error = True, 0.0
    for index in range(options.rounds + 1):
        sample = index % 2 == 1
        expected = stock.speak(voice, options.tokens, sample=sample)
        rounds["stock"].append(expected)
        for side in sides:
            spoken = side.speak(voice, options.tokens, sample=sample)
            rounds[side.name].append(spoken)
            same = spoken.tokens == expected.tokens
            print(f"round {index} sampled={sample} {side.name}: ids {'equal' if same else 'differ'}", flush=True)
            if side.mode is WeightMode.FP16W:
                equal &= same
                error = max(error, float(np.abs(spoken.samples - expected.samples).max())) if same else float("inf")
    times = {name: [spoken.seconds for spoken in each[1:]] for name, each in rounds.items()}  # the first warms up
    audio_s = len(rounds["stock"][0].samples) / 24_000
    for name, each in times.items():
        ratio = min(times["stock"]) / min(each)
        print(
            f"{options.tokens} tokens, {audio_s:.2f} s: {name}: {best(each)}, {ratio:.2f}x, "
            f"RTF {min(each) / audio_s:.3f}"
        )
    fastest = min(sides, key=lambda side: min(times[side.name])).name
    return {
        "fp16w_vs_stock": min(times["stock"]) / min(times[sides[0].name]),
        "fastest_vs_stock": min(times["stock"]) / min(times[fastest]),
        "fastest_mode": fastest,
        "rtf_fastest": min(times[fastest]) / audio_s,
        "rtf_stock": min(times["stock"]) / audio_s,
        "ids_equal": equal,
        "wav_max_error": error,
    }


def compare_first_chunk(stock: Stock, side: Own, voice: Voice, options: argparse.Namespace) -> Figures:
    """Time the first samples; stock's chunk is the smallest that has as many, and its default one beside it."""
    first = side.speak(voice, options.tokens, sample=False)
    chunk = next(n for n in range(2, 100) if int(n * 4 * 24_000 / 22_050) * 256 - 1024 >= first.first_samples)
    own, same, default = [], [], []
    for _ in range(options.rounds):
        own.append(side.speak(voice, options.tokens, sample=False).first_s)
        same.append(stock.first_chunk(voice, chunk, options.tokens)[0])
        default.append(stock.first_chunk(voice, STREAM_TOKENS, options.tokens)[0])
    print(f"first chunk, {first.first_samples} samples: {side.name}: {best(own)}")
    print(f"  stock, {chunk} tokens: {best(same)}; its default, {STREAM_TOKENS} tokens: {best(default)}")
    return {
        "first_chunk_vs_stock": min(same) / min(own),
        "first_chunk_vs_stock_default": min(default) / min(own),
        "first_chunk_s": min(own),
        "first_chunk_samples": first.first_samples,
    }


def compare_steps(sides: list[Own], stock: Stock, voice: Voice, options: argparse.Namespace) -> Figures:
    """Time decode steps beside the floor that memory bandwidth sets, and of 8 sequences at once beside one."""
    floors: dict[str, float] = {}
    batch8 = 0.0
    bandwidth = read_bandwidth()
    for side in sides:
        alone = side.step_seconds(voice, 1, options.tokens)
        eight = side.step_seconds(voice, 8, options.tokens)
        bandwidth = max(bandwidth, read_bandwidth())
        floor = weights_read(stock.network, side.mode) / bandwidth
        floors[side.mode.value] = min(alone) / floor
        ratio = 8 * min(alone) / min(eight)
        print(
            f"step {side.mode.value}: {min(alone) * 1e3:.1f} ms (median {median(alone) * 1e3:.1f}), floor "
            f"{floor * 1e3:.1f} ms at {bandwidth / 1e9:.1f} GB/s; "
            f"8 sequences {8 / min(eight):.0f} tokens/s, {ratio:.2f}x"
        )
        if side.mode is WeightMode.FP16W:
            batch8 = ratio
    return {"step_vs_floor": floors, "bandwidth_gb_s": bandwidth / 1e9, "batch8_vs_1": batch8}


def compare_vocoders(stock: Stock, sides: list[Own], voice: Voice, width: int) -> Figures:
    """Time vocoding in chunks of 4 times the audio, and of one length on both sides in one piece."""
    latents = torch.randn(600, width, generator=torch.Generator().manual_seed(1))
    figures: Figures = {}
    for side in sides:
        side.vocode_streamed(latents[:40], voice, 8)  # warms up
        short, long = [], []
        for _ in range(2):
            short.append(side.vocode_streamed(latents[:150], voice, 8))
            long.append(side.vocode_streamed(latents, voice, 8))
        ratio = min(long) / min(short)
        figures[side.name] = ratio
        cost = min(long) / (600 * 1024 / 22_050)
        print(f"vocoder of {side.name}: {cost:.3f} s a second, 4 times the audio {ratio:.2f}x")
    ours = {side.name: min(side.vocode_streamed(latents[:80], voice, 80) for _ in range(3)) for side in sides}
    whole = min(stock.vocode_streamed(latents[:80], voice, 80) for _ in range(3))
    for name, seconds in ours.items():
        print(f"vocoder in one piece, 80 tokens: {name} {seconds:.3f} s, stock {whole:.3f} s, {whole / seconds:.2f}x")
    short_s = stock.vocode_streamed(latents[:40], voice, STREAM_TOKENS)
    long_s = stock.vocode_streamed(latents[:160], voice, STREAM_TOKENS)
    print(f"stock vocoder, streamed: 4 times the audio {long_s / short_s:.2f}x")
    return {"vocoder_4x": figures[sides[0].name], "vocoder_4x_stock": long_s / short_s}


def measure_alone(options: argparse.Namespace) -> None:
    """In a process without stock: load, speak 8 sentences at once, and print memory and times as JSON."""
    before_s = time.perf_counter()
    network, _ = load_seconds(options.checkpoint)
    side = Own(network, *MODES[0])
    load_s, load_gb = time.perf_counter() - before_s, peak_gb()
    width = side.engine.gpt.width
    del network
    started = time.perf_counter()
    side.speak_all([Voice.draw(seed, width) for seed in range(8)], options.tokens, sample=True)
    seconds = time.perf_counter() - started
    side.engine.close()
    tokens_a_second = 8 * options.tokens / seconds
    print(
        json.dumps({"load_s": load_s, "load_gb": load_gb, "peak_gb": peak_gb(), "engine_8_tokens_s": tokens_a_second})
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # the kernel counts in units of 1024


def run_alone(options: argparse.Namespace) -> Figures:
    command = [sys.executable, __file__, "--alone", "--checkpoint", str(options.checkpoint)]
    command += ["--threads", str(options.threads), "--tokens", str(options.tokens)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: Figures = json.loads(output.splitlines()[-1])
    print("alone:", {name: round(value, 2) for name, value in figures.items()})
    return figures


def measure_gpu(options: argparse.Namespace, voice: Voice) -> Figures:
    """Time the engine on a GPU with 8 GB of its memory: tokens a second by batch beside the card's floor."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, GPU_LIMIT_BYTES / total))
    network, _ = load_seconds(options.checkpoint)
    floor_bytes = weights_read(network, WeightMode.BF16)
    side = Own(network.to("cuda"), WeightMode.BF16, torch.float32, max_batch=max(GPU_BATCHES), device="cuda")
    del network
    floor_s = floor_bytes / read_bandwidth("cuda")
    rows = {}
    for batch in GPU_BATCHES:
        step_s = median(side.step_seconds(voice, batch, options.tokens)[5:])
        rows[batch] = batch / step_s
        print(f"GPU batch {batch}: {rows[batch]:.0f} tokens/s, {step_s / floor_s:.2f} x {floor_s * 1e3:.2f} ms (floor)")
    first = min(side.speak(voice, options.tokens, sample=True).first_s for _ in range(options.rounds + 1))
    side.engine.close()
    used = torch.cuda.max_memory_allocated() / 1e9
    print(f"GPU first chunk {first * 1e3:.0f} ms, peak {used:.2f} GB")
    return {"gpu_tokens_s": rows, "gpu_floor_ms": floor_s * 1e3, "gpu_first_chunk_ms": first * 1e3, "gpu_peak_gb": used}


def surroundings() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "coqui-tts", "transformers")},
    }


def measure_all(options: argparse.Namespace) -> Figures:
    alone = run_alone(options)
    network, _ = load_seconds(options.checkpoint)
    sides = [Own(network, mode, dtype) for mode, dtype in MODES]
    stock = Stock(network)
    width = sides[0].engine.gpt.width
    voice = Voice.draw(0, width)
    figures = compare_sentences(stock, sides, voice, options)
    figures |= compare_first_chunk(stock, sides[-1], voice, options)
    figures |= compare_steps(sides, stock, voice, options)
    figures |= compare_vocoders(stock, sides, voice, width)
    for side in sides:
        side.engine.close()
    gpu = measure_gpu(options, voice) if torch.cuda.is_available() else {}
    return figures | alone | gpu


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, help="a converted checkpoint instead of one with random weights")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    warnings.filterwarnings("ignore")  # coqui-tts's and transformers'
    options = parse_options()
    torch.set_num_threads(options.threads)
    with ExitStack() as stack:
        if options.checkpoint is None:
            options.checkpoint = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            script = ROOT / "scripts" / "make_tiny_xtts.py"
            command = [sys.executable, str(script), str(options.checkpoint), "--size", "real"]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if options.alone:
            measure_alone(options)
            return
        print(surroundings(), f"{options.threads} threads, {options.tokens} tokens", flush=True)
        figures = measure_all(options)
    if options.json:
        settings = {"threads": options.threads, "tokens": options.tokens, "rounds": options.rounds}
        print(json.dumps({**figures, "settings": settings, "surroundings": surroundings()}))


if __name__ == "__main__":
    main()
