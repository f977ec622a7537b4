"""Measures WeNet's recognition in each format that the server runs, with random weights in the sizes of the releases.

    .venv/bin/python benchmarks/wenet.py [--json] [--threads 1] [--seconds 5] [--rounds 5] [--sizes wenetspeech ...]
                                      [--no-trained]

The sides are our network with 8-bit and float32 weights, and WeNet's runtime format (int8 TorchScript) with a search in
plain Python. Each side has a process, and they compute alternately. benchmarks/README.md describes each figure.
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
sys.path[0] = str(ROOT)  # instead of this folder, where this file hides WeNet's package `wenet`

import torch  # noqa: E402

from benchmarks.side_process import Side, SideFailed  # noqa: E402
from benchmarks.wenet_errors import Trained, differing_share  # noqa: E402
from benchmarks.wenet_package_side import Package  # noqa: E402
from benchmarks.wenet_package_side import available as package_is_there  # noqa: E402
from benchmarks.wenet_sides import SIZES, Ours, Runtime, Stages  # noqa: E402
from mirrorchat.asr import WenetWeights  # noqa: E402

Figures = dict[str, Any]
FRAMES_S = 100
BATCH = 8
SHORT = 150  # frames of a short utterance
OURS = (WenetWeights.INT8, WenetWeights.FP32)

warnings.filterwarnings("ignore")  # of torch about TorchScript and quantization; the sides inherit this


def measure(size: str, options: argparse.Namespace) -> Figures:
    """Measure the sides alternately, and return the figures of one size."""
    frames, threads = int(options.seconds * FRAMES_S), options.threads
    rounds: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        ours = {mode: stack.enter_context(Side(mode.value, threads, Ours, size, mode, threads)) for mode in OURS}
        runtime = stack.enter_context(Side("runtime", threads, Runtime, size))
        package = stack.enter_context(Side("package", threads, Package, size)) if package_is_there() else None
        for _ in range(options.rounds + 1):  # the first round warms up
            for name, seconds in one_round(ours, runtime, frames).items():
                rounds[name].append(seconds)
            if package is not None:
                rounds["package"].append(package.ask(Package.seconds, frames))
        memory = {side.name: (side.ask(type_.peak_mb), side.ask(type_.now_mb)) for side, type_ in _sides(ours, runtime)}
        heard = {side.name: side.ask(type_.hypotheses, frames, BATCH) for side, type_ in _sides(ours, runtime)}
        rates = {
            rows: ours[WenetWeights.INT8].ask(Ours.product_gmac_s, rows)
            for rows in (frames // 4, BATCH * frames // 4, SHORT // 4, BATCH * SHORT // 4)
        }
    best = {name: min(seconds[1:]) for name, seconds in rounds.items()}
    for name, seconds in best.items():
        print(f"  {size}, {name}: {seconds * 1e3:.1f} ms", flush=True)
    figures = figures_of(best) | heard_figures(heard) | {"product_gmac_s": rates}
    for name in ("tokens", "int8_tokens_differ", "torchscript_tokens_differ", "product_gmac_s"):
        print(f"  {size}, {name}: {figures[name]}", flush=True)
    peaks, now = ({name: both[index] for name, both in memory.items()} for index in range(2))
    return figures | {"rss_mb": peaks["int8"], "rss_mb_by_side": peaks, "rss_after_mb_by_side": now}


def one_round(ours: dict[WenetWeights, Side[Ours]], runtime: Side[Runtime], frames: int) -> dict[str, float]:
    """Return the times (s) of one round."""
    times: dict[str, float] = {}
    for mode, side in ours.items():
        times[mode.value] = side.ask(Ours.seconds, frames, 1, together=False)
        times |= stage_times(mode.value, side.ask(Ours.stages, frames))
    stages = runtime.ask(Runtime.stages, frames)
    times |= stage_times("runtime", stages) | {"runtime": stages.encoder_s + stages.search_s + stages.rescoring_s}
    times["runtime, our search"] = runtime.ask(Runtime.seconds_with_our_search, frames)
    for mode, side in ours.items():
        for size, what in ((frames, mode.value), (SHORT, f"{mode.value} short")):
            times[f"{what} x 8"] = side.ask(Ours.seconds, size, BATCH, together=False)
            times[f"{what} batch of 8"] = side.ask(Ours.seconds, size, BATCH, together=True)
    times["beam"], times["beam in Python"] = ours[WenetWeights.FP32].ask(Ours.search_seconds, frames)
    return times


def stage_times(side: str, stages: Stages) -> dict[str, float]:
    return {
        f"{side} encoder": stages.encoder_s,
        f"{side} search": stages.search_s,
        f"{side} rescoring": stages.rescoring_s,
    }


def _sides(ours: dict[WenetWeights, Side[Ours]], runtime: Side[Runtime]) -> list[tuple[Side[Any], Any]]:
    return [*((side, Ours) for side in ours.values()), (runtime, Runtime)]


def figures_of(best: dict[str, float]) -> Figures:
    """Return the ratios of the fastest times (s)."""
    batches = {
        f"batch8_vs_1{name}": best[f"{side} x 8"] / best[f"{side} batch of 8"]
        for name, side in (("", "int8"), ("_fp32", "fp32"), ("_short", "int8 short"), ("_short_fp32", "fp32 short"))
    }
    stages = {
        side: {stage: best[f"{side} {stage}"] * 1e3 for stage in ("encoder", "search", "rescoring")}
        for side in ("int8", "fp32", "runtime")
    }
    return {
        "int8_vs_torchscript": best["runtime"] / best["int8"],
        "int8_vs_torchscript_with_our_search": best["runtime, our search"] / best["int8"],
        "fp32_vs_torchscript": best["runtime"] / best["fp32"],
        "beam_vs_python": best["beam in Python"] / best["beam"],
        "wenet_vs_ours": best["package"] / best["int8"] if "package" in best else None,
        "wenet_vs_ours_fp32": best["package"] / best["fp32"] if "package" in best else None,
        **batches,
        "int8_ms": best["int8"] * 1e3,
        "beam_ms": best["beam"] * 1e3,
        "stage_ms": stages,
        "ms": {name: seconds * 1e3 for name, seconds in best.items()},
    }


def heard_figures(heard: dict[str, list[tuple[int, ...]]]) -> Figures:
    """Return the mean number of tokens of a float32 hypothesis, and the shares that differ in other formats."""
    expected = heard["fp32"]
    return {
        "tokens": sum(map(len, expected)) / len(expected),
        "int8_tokens_differ": differing_share(heard["int8"], expected),
        "torchscript_tokens_differ": differing_share(heard["runtime"], expected),
    }


def trained_figures() -> Figures:
    """Return the effect of 8 bits on the hypotheses of the tests' trained models, for each language."""
    found: Figures = {}
    with Side("trained", 1, Trained) as side:
        for code in ("en", "zh"):
            ours, script = side.ask(Trained.differing, code)
            found[code] = {"int8": ours, "torchscript": script}
            print(f"  trained tiny model, {code}, tokens that differ: {found[code]}", flush=True)
    return found


def surroundings() -> Figures:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def gathered(sizes: dict[str, Figures], trained: Figures | None) -> Figures:
    """Return the figures of all sizes. Those of the first size come first."""
    return {**next(iter(sizes.values())), "sizes": sizes, "trained_tokens_differ": trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["wenetspeech", "librispeech"])
    parser.add_argument("--no-trained", action="store_true", help="leave out the tests' trained models")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(surroundings(), f"{options.threads} thread(s), {options.seconds} s of audio", flush=True)
    try:
        sizes = {size: measure(size, options) for size in options.sizes}
        figures = gathered(sizes, None if options.no_trained else trained_figures())
    except SideFailed as error:
        sys.exit(f"benchmarks/wenet.py: {error}")
    if options.json:
        settings = {name: getattr(options, name) for name in ("threads", "seconds", "rounds")}
        print(json.dumps({**figures, "settings": settings, "surroundings": surroundings()}))


if __name__ == "__main__":
    main()
