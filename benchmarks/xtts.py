"""This project's XTTS engine against stock coqui-tts: random weights at real size, each side in a process of its own.

    .venv/bin/python benchmarks/xtts.py [--json] [--threads 2] [--tokens 80] [--rounds 3] [--checkpoint FOLDER]
        [--kernels | --no-kernels] [--wenet FOLDER ...]

Every sentence has a fixed number of tokens, so both sides do the same work, and only one process computes at a time.
A figure is made of the fastest of several rounds on each side (the median is printed too): on a shared machine the
fastest is what the code costs. Memory and loading are measured in a process that does nothing else. Without
--checkpoint the 1.9 GB of weights are made in a temporary folder. benchmarks/README.md says what each figure is.
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
os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of every setting that the two sides need

import torch  # noqa: E402

from benchmarks.side_process import Child, SideFailed  # noqa: E402
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
LOADS = 4  # of a fresh process each; the first perhaps from the disk, and into memory that the host has yet to give
ALONE = 8  # sequences at once while memory is measured
L3_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

warnings.filterwarnings("ignore")  # coqui-tts's and transformers', in the children too


def own_child(options: argparse.Namespace, mode: WeightMode, dtype: torch.dtype) -> Child[Own]:
    name = f"{mode} + {str(dtype).removeprefix('torch.')} vocoder"
    return Child(name, options.threads, Own, options.checkpoint, mode, dtype)


def own_children(options: argparse.Namespace, stack: ExitStack) -> dict[str, Child[Own]]:
    """Return a fresh process for each mode, ready, and ended with `stack`."""
    children = {mode.value: stack.enter_context(own_child(options, mode, dtype)) for mode, dtype in MODES.items()}
    for child in children.values():
        child.wait()  # from here on only one computes
    return children


def load_seconds(options: argparse.Namespace, mode: WeightMode, dtype: torch.dtype) -> float:
    with own_child(options, mode, dtype) as child:
        child.wait()
        return child.load_s


def measure_alone(options: argparse.Namespace) -> Figures:
    """Load LOADS times, and speak 8 sentences at once where nothing else has run: times and the most memory."""
    mode, dtype = next(iter(MODES.items()))
    loads = [load_seconds(options, mode, dtype) for _ in range(LOADS - 1)]
    with own_child(options, mode, dtype) as child:
        load_gb = child.ask(Own.peak_gb)
        loads.append(child.load_s)
        spoken = child.ask(Own.speak_all, range(ALONE), options.tokens, sample=True)
        peak_gb = child.ask(Own.peak_gb)
        tokens_s = ALONE * options.tokens / max(each.seconds for each in spoken)
        print(
            f"alone, {child.name}: imports {child.import_s:.1f} s, load {'/'.join(f'{s:.1f}' for s in loads)} s "
            f"and {load_gb:.2f} GB; "
            f"{ALONE} sentences at once {tokens_s:.1f} tokens/s, {peak_gb:.2f} GB at most",
            flush=True,
        )
        return {
            "import_s": child.import_s,
            "load_s": min(loads),
            "loads_s": loads,
            "load_gb": load_gb,
            "peak_gb": peak_gb,
            "engine_8_tokens_s": tokens_s,
        }


def measure_cpu(options: argparse.Namespace) -> Figures:
    """Compare the sides: first what callers hear, then in fresh processes the parts (see `Own`) and the errors."""
    work = Work(options.tokens, options.rounds)
    with Child("stock", options.threads, Stock, options.checkpoint) as stock:
        with ExitStack() as stack:
            speaking = own_children(options, stack)
            stock.wait()
            figures = compare_sentences(stock, speaking, work)
            figures |= compare_first_chunk(stock, speaking, work)
        with ExitStack() as stack:
            reference = stack.enter_context(own_child(options, WeightMode.FP32, torch.float32))
            parts = own_children(options, stack)
            reference.wait()
            figures |= compare_steps(parts, work)
            figures |= compare_vocoders(stock, parts, work)
            figures["errors"] = measure_errors(reference, parts)
    return figures


def measure_all(options: argparse.Namespace) -> Figures:
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
    parser.add_argument("--wenet", type=Path, action="append", default=[], help="a model to load beside, on a GPU")
    options = parser.parse_args()
    options.kernels = options.json if options.kernels is None else options.kernels
    return options


def make_checkpoint(folder: Path) -> Path:
    """Make weights of real size in `folder`, in a process whose memory ends with it."""
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
