"""Compares our XTTS engine with stock coqui-tts, with random weights of real size. Each side has a process.

    .venv/bin/python benchmarks/xtts.py [--json] [--threads 2] [--tokens 80] [--rounds 3] [--checkpoint FOLDER]
        [--kernels | --no-kernels] [--gpu-only] [--wenet FOLDER ...]

Every sentence has a fixed number of tokens, so both sides do the same work. Only one process computes at a time. A
figure is the fastest of several rounds on each side (the median is printed too), because on a shared computer the
fastest round shows the cost of the code. Memory and loading are measured in a process that does nothing else. Without
--checkpoint the 1.9 GB of weights are made in a temporary folder. benchmarks/README.md describes each figure.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns about settings that both sides need

import torch  # noqa: E402

from benchmarks.side_process import Side, SideFailed  # noqa: E402
from benchmarks.xtts_compare import (  # noqa: E402
    Figures,
    Work,
    compare_first_chunk,
    compare_sentences,
    compare_steps,
    compare_vocoders,
)
from benchmarks.xtts_errors import measure_errors  # noqa: E402
from benchmarks.xtts_gpu import measure_gpu  # noqa: E402
from benchmarks.xtts_kernels import measure_kernels  # noqa: E402
from benchmarks.xtts_sides import Own, Stock  # noqa: E402
from mirrorchat.hardware import native  # noqa: E402
from mirrorchat.xtts.checkpoint import CONFIG_FILE  # noqa: E402
from mirrorchat.xtts.linear import WeightMode  # noqa: E402

MODES = {WeightMode.FP16W: torch.float32}  # nearly exact
if native.library() is not None:
    MODES[WeightMode.INT8] = torch.bfloat16  # the fastest
LOADS = 4  # each in a fresh process; the first may read the disk, and memory that the host must provide first
ALONE = 8  # parallel sequences while memory is measured
L3_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

warnings.filterwarnings("ignore")  # of coqui-tts and transformers; the sides inherit this


def own_side(options: argparse.Namespace, mode: WeightMode, dtype: torch.dtype) -> Side[Own]:
    name = f"{mode} + {str(dtype).removeprefix('torch.')} vocoder"
    return Side(name, options.threads, Own, options.checkpoint, mode, dtype)


def own_sides(options: argparse.Namespace, stack: ExitStack) -> dict[str, Side[Own]]:
    """Return a ready process for each mode. `stack` ends them."""
    sides = {mode.value: stack.enter_context(own_side(options, mode, dtype)) for mode, dtype in MODES.items()}
    for side in sides.values():
        side.wait()  # from now on only one computes
    return sides


def load_seconds(options: argparse.Namespace, mode: WeightMode, dtype: torch.dtype) -> float:
    with own_side(options, mode, dtype) as side:
        side.wait()
        return side.load_s


def measure_alone(options: argparse.Namespace) -> Figures:
    """Measure loading (LOADS times), and the peak memory of 8 parallel sentences in a fresh process."""
    mode, dtype = next(iter(MODES.items()))
    loads = [load_seconds(options, mode, dtype) for _ in range(LOADS - 1)]
    with own_side(options, mode, dtype) as side:
        load_gb = side.ask(Own.peak_gb)
        loads.append(side.load_s)
        spoken = side.ask(Own.speak_all, range(ALONE), options.tokens, sample=True)
        peak_gb = side.ask(Own.peak_gb)
        tokens_s = ALONE * options.tokens / max(each.seconds for each in spoken)
        print(
            f"alone, {side.name}: imports {side.import_s:.1f} s, load {'/'.join(f'{s:.1f}' for s in loads)} s "
            f"and {load_gb:.2f} GB; "
            f"{ALONE} sentences at once {tokens_s:.1f} tokens/s, {peak_gb:.2f} GB at most",
            flush=True,
        )
        return {
            "import_s": side.import_s,
            "load_s": min(loads),
            "loads_s": loads,
            "load_gb": load_gb,
            "peak_gb": peak_gb,
            "engine_8_tokens_s": tokens_s,
        }


def measure_cpu(options: argparse.Namespace) -> Figures:
    """Compare the sides: sentences first, then in fresh processes the parts (see `Own`) and the errors."""
    work = Work(options.tokens, options.rounds)
    with Side("stock", options.threads, Stock, options.checkpoint) as stock:
        with ExitStack() as stack:
            speaking = own_sides(options, stack)
            stock.wait()
            figures = compare_sentences(stock, speaking, work)
            figures |= compare_first_chunk(stock, speaking, work)
        with ExitStack() as stack:
            reference = stack.enter_context(own_side(options, WeightMode.FP32, torch.float32))
            parts = own_sides(options, stack)
            reference.wait()
            figures |= compare_steps(parts, work)
            figures |= compare_vocoders(stock, parts, work)
            figures["errors"] = measure_errors(reference, parts)
    return figures


def measure_all(options: argparse.Namespace) -> Figures:
    if options.gpu_only:
        return measure_gpu(options.checkpoint, options.threads, Work(options.tokens, options.rounds), options.wenet)
    figures = measure_alone(options) | measure_cpu(options)
    if options.kernels:
        sizes = json.loads((options.checkpoint / CONFIG_FILE).read_text())["model_args"]
        figures["kernels"] = measure_kernels(options.threads, sizes["gpt_n_model_channels"], sizes["gpt_layers"])
    if torch.cuda.is_available():
        work = Work(options.tokens, options.rounds)
        figures |= measure_gpu(options.checkpoint, options.threads, work, options.wenet)
    return figures


def surroundings() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "l3": L3_SIZE.read_text().strip() if L3_SIZE.is_file() else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "coqui-tts", "transformers")},
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, help="a converted checkpoint instead of one with random weights")
    parser.add_argument(
        "--kernels", action=argparse.BooleanOptionalAction, help="torch's own kernels beside; as a rule with --json"
    )
    parser.add_argument("--gpu-only", action="store_true", help="measure nothing on the CPU")
    parser.add_argument("--wenet", type=Path, action="append", default=[], help="a model to load beside, on a GPU")
    options = parser.parse_args()
    options.kernels = options.json if options.kernels is None else options.kernels
    if options.gpu_only and not torch.cuda.is_available():
        parser.error("torch finds no GPU")
    return options


def make_checkpoint(folder: Path) -> Path:
    """Make weights of real size in `folder`, in a process that frees their memory."""
    script = ROOT / "scripts" / "make_tiny_xtts.py"
    command = [sys.executable, str(script), str(folder), "--size", "real"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder


def main() -> None:
    options = parse_options()
    with ExitStack() as stack:
        if options.checkpoint is None:
            options.checkpoint = make_checkpoint(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        print(surroundings(), f"{options.threads} threads, {options.tokens} tokens", flush=True)
        try:
            figures = measure_all(options)
        except SideFailed as error:
            sys.exit(f"benchmarks/xtts.py: {error}")
    if options.json:
        settings = {"threads": options.threads, "tokens": options.tokens, "rounds": options.rounds}
        print(json.dumps({**figures, "settings": settings, "surroundings": surroundings()}))


if __name__ == "__main__":
    main()
