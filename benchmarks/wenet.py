"""WeNet's recognition in each form that the server runs, at the sizes of the releases, with random weights.

    .venv/bin/python benchmarks/wenet.py [--json] [--threads 1] [--seconds 5] [--rounds 5] [--sizes wenetspeech ...]

Our network with 8-bit and float32 weights, and WeNet's runtime format (int8 TorchScript) with a search in plain Python,
each in a process of its own, asked in turns. benchmarks/README.md says what each figure is.
"""

import argparse
import json
import os
import platform
import sys
import warnings
from collections import defaultdict
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.wenet_sides import SIZES, Ours, Runtime  # noqa: E402
from benchmarks.xtts_child import Child, SideFailed  # noqa: E402
from mirrorchat.asr import WenetWeights  # noqa: E402

Figures = dict[str, Any]
FRAMES_S = 100
BATCH = 8
OURS = (WenetWeights.INT8, WenetWeights.FP32)

warnings.filterwarnings("ignore")  # torch's of TorchScript and quantisation, in the children too


def measure(size: str, options: argparse.Namespace) -> Figures:
    """Time each side in turns; return the figures of one size."""
    frames, threads = int(options.seconds * FRAMES_S), options.threads
    times: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        ours = {mode: stack.enter_context(Child(mode.value, threads, Ours, size, mode, threads)) for mode in OURS}
        runtime = stack.enter_context(Child("runtime", threads, Runtime, size))
        for _ in range(options.rounds + 1):  # one to warm up
            for mode, side in ours.items():
                times[mode.value].append(side.ask(Ours.seconds, frames, 1, together=False))
            times["runtime"].append(runtime.ask(Runtime.seconds, frames))
            times["runtime, our search"].append(runtime.ask(Runtime.seconds_with_our_search, frames))
            for mode, side in ours.items():
                times[f"{mode.value} x 8"].append(side.ask(Ours.seconds, frames, BATCH, together=False))
                times[f"{mode.value} batch of 8"].append(side.ask(Ours.seconds, frames, BATCH, together=True))
            fast, plain = ours[WenetWeights.FP32].ask(Ours.search_seconds, frames)
            times["beam"].append(fast)
            times["beam in Python"].append(plain)
        memory = {side.name: side.ask(type_.peak_mb) for side, type_ in _sides(ours, runtime)}
    best = {name: min(seconds[1:]) for name, seconds in times.items()}
    for name, seconds in best.items():
        print(f"  {size}, {name}: {seconds * 1e3:.1f} ms", flush=True)
    return figures_of(best, memory)


def _sides(ours: dict[WenetWeights, Child[Ours]], runtime: Child[Runtime]) -> list[tuple[Child[Any], Any]]:
    return [*((side, Ours) for side in ours.values()), (runtime, Runtime)]


def figures_of(best: dict[str, float], memory: dict[str, float]) -> Figures:
    """Return the ratios of the fastest times (s), and the memory (MB) of each side's process."""
    return {
        "int8_vs_torchscript": best["runtime"] / best["int8"],
        "int8_vs_torchscript_with_our_search": best["runtime, our search"] / best["int8"],
        "fp32_vs_torchscript": best["runtime"] / best["fp32"],
        "beam_vs_python": best["beam in Python"] / best["beam"],
        "batch8_vs_1": best["int8 x 8"] / best["int8 batch of 8"],
        "batch8_vs_1_fp32": best["fp32 x 8"] / best["fp32 batch of 8"],
        "int8_ms": best["int8"] * 1e3,
        "beam_ms": best["beam"] * 1e3,
        "rss_mb": memory["int8"],
        "rss_mb_by_side": memory,
        "ms": {name: seconds * 1e3 for name, seconds in best.items()},
    }


def surroundings() -> Figures:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def gathered(sizes: dict[str, Figures]) -> Figures:
    """Return the figures of all sizes, those of the first on top."""
    return {**next(iter(sizes.values())), "wenet_vs_ours": None, "sizes": sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(surroundings(), f"{options.threads} thread(s), {options.seconds} s of audio", flush=True)
    try:
        figures = gathered({size: measure(size, options) for size in options.sizes})
    except SideFailed as error:
        sys.exit(f"benchmarks/wenet.py: {error}")
    if options.json:
        settings = {name: getattr(options, name) for name in ("threads", "seconds", "rounds")}
        print(json.dumps({**figures, "settings": settings, "surroundings": surroundings()}))


if __name__ == "__main__":
    main()
