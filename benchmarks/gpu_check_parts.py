"""One part of benchmarks/gpu_check.py, in a process of its own: `gpu_check_parts.py NAME OPTIONS`, OPTIONS as JSON."""

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gpu_check_report import Report  # noqa: E402

PACKAGES = ("torch", "torchaudio", "transformers", "coqui-tts", "numpy")


@dataclass(frozen=True)
class Options:
    """What was asked for. `folder` holds the models."""

    device: torch.device
    tiny: bool
    limit_gb: float
    threads: int
    rounds: int
    callers: list[int]
    folder: Path
    out: Path

    @classmethod
    def of(cls, text: str) -> "Options":
        given = json.loads(text)
        return cls(
            torch.device(given["device"]),
            given["tiny"],
            given["limit_gb"],
            given["threads"],
            given["rounds"],
            given["callers"],
            Path(given["folder"]),
            Path(given["out"]),
        )


def where(options: Options, report: Report) -> None:
    """Note the versions and the device; only torch is needed for it."""
    gpu = options.device.type == "cuda"
    report.note("gpu", torch.cuda.get_device_name(options.device) if gpu else None)
    report.note("versions", {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()})
    report.note("cores", os.cpu_count())
    if gpu:
        properties = torch.cuda.get_device_properties(options.device)
        report.note("capability", f"{properties.major}.{properties.minor}")
        report.note("cuda", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")  # type: ignore[no-untyped-call]
        report.note("card_total_gb", properties.total_memory / 1e9)
        torch.ones(1, device=options.device).item()  # the context exists from now on
        free, total = torch.cuda.mem_get_info(options.device)
        report.note("context_gb", (total - free - torch.cuda.memory_reserved(options.device)) / 1e9)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def models(options: Options, report: Report) -> None:
    from benchmarks.gpu_check_models import make_models
    from mirrorchat.hardware.native import search_library

    report.note("search_in_cpp", search_library() is not None)
    make_models(options.folder, tiny=options.tiny)


def scores(options: Options, report: Report) -> None:
    from benchmarks.gpu_check_xtts import check_scores

    check_scores(options.folder, options.device, report, tiny=options.tiny)


def steps(options: Options, report: Report) -> None:
    from benchmarks.gpu_check_xtts import check_steps

    check_steps(options.folder, options.device, report, tiny=options.tiny)


def wenet(options: Options, report: Report) -> None:
    from benchmarks.gpu_check_wenet import check_hypotheses

    check_hypotheses(options.folder, options.device, report, threads=options.threads)


def server(options: Options, report: Report) -> None:
    from benchmarks.gpu_check_server import Load, check_server

    load = Load(options.threads, options.limit_gb, options.rounds, options.callers)
    check_server(options.folder, options.device, report, load)


PARTS: dict[str, Callable[[Options, Report], None]] = {
    part.__name__: part for part in (where, models, scores, steps, wenet, server)
}


def main() -> None:
    name, options = sys.argv[1], Options.of(sys.argv[2])
    report = Report(options.out)
    torch.set_num_threads(options.threads)
    try:
        if name != "where":
            importlib.import_module("benchmarks.gpu_check_models")  # before anything imports coqui-tts
        PARTS[name](options, report)
    except Exception as error:
        traceback.print_exc()
        report.note(f"error_{name}", f"{type(error).__name__}: {str(error)[:500]}")
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # a normal exit takes a second with torch


if __name__ == "__main__":
    main()
