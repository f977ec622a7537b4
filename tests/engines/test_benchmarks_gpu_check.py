"""benchmarks/gpu_check.py: dry runs on the CPU and on a simulated GPU, time limits, and what a failed part leaves."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from support.places import ROOT

from benchmarks import gpu_check
from benchmarks.gpu_check_report import aims_of
from benchmarks.gpu_check_server import worst_gap

SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
SIMULATED = ROOT / "tests" / "support" / "on_simulated_cuda.py"
# One thread: where others use the machine too, those of one operation wait long for each other.
DRY = ["--tiny", "--rounds", "1", "--callers", "1", "4", "--threads", "1", "--patience", "5"]
THERE = "torch torchaudio transformers scipy PyYAML safetensors einops psutil requests six lazy-loader"
EVERYWHERE = {
    "versions",
    "scores_db_fp32",
    "vocoder_db_float32",
    "vocoder_db_served",
    "bandwidth_gb_s",
    "step_over_floor_8",
    "hypotheses_differ_fp32",
    "load_s",
    "first_sound_ms_cold",
    "first_sound_ms_warm",
    "first_sound_p95_ms_4",
    "tokens_s_4",
    "tokens_s_floor_4",
    "real_time_factor_4",
    "longest_gap_ms_1",
    "recognition_ms_beside_speech",
    "longest_gap_ms_4_beside_recognition",
}
ON_A_GPU = EVERYWHERE | {
    "capability",
    "context_gb",
    "scores_db_bf16",
    "vocoder_db_float16",
    "captured_differ_from_plain",
    "step_waits",
    "waits_of_a_sentence",
    "captures_after_ready",
    "planned_gb",
    "allocated_gb",
    "reserved_gb",
    "beyond_torch_gb",
    "card_gb",
}
HIDING = """
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        installed = spec and "site-packages" in str(spec.origin or spec.submodule_search_locations)
        return None if installed and name.partition(".")[0] not in SHOWN else spec

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
"""
PARTS = """
import subprocess, sys, time
sys.path.insert(0, {root!r})
from benchmarks.gpu_check_report import Report
from pathlib import Path
name = sys.argv[2]
Report(Path({out!r})).note(f"figure_of_{{name}}", 1)
if name == "scores":
    sys.exit(3)
if name == "steps":
    child = subprocess.Popen(["sleep", "100"])
    Path({pid!r}).write_text(str(child.pid))
    time.sleep(100)
"""


def named_wheels() -> list[str]:
    """Return the names of the wheels in the first lines of the script."""
    listed = re.search(r"--no-deps`:\n\n(.{1,500}?)\n\n", gpu_check.__doc__ or "", re.DOTALL)
    assert listed
    return [name.partition("==")[0] for name in listed[1].split()]


def with_requirements(names: list[str], found: set[str]) -> set[str]:
    """Return the distributions with all that they require."""
    for name in names:
        if name not in found:
            found.add(name)
            required = [Requirement(each) for each in importlib.metadata.requires(name) or []]
            needed = [each.name for each in required if not each.marker or each.marker.evaluate({"extra": ""})]
            with_requirements([each for each in needed if is_installed(each)], found)
    return found


def is_installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def modules_of(distributions: set[str]) -> set[str]:
    """Return the names under which Python imports them."""
    wanted = {name.lower().replace("_", "-") for name in distributions}
    by_module = importlib.metadata.packages_distributions().items()
    return {module for module, names in by_module if wanted & {each.lower().replace("_", "-") for each in names}}


def test_dry_run_on_the_cpu_with_the_named_packages_alone(tmp_path: Path) -> None:
    wheels = named_wheels()
    assert all(name in (gpu_check.__doc__ or "") for name in THERE.split())
    assert not {"av", "espeakng-loader", "soundfile", "torchcodec"} & set(wheels)
    shown = modules_of(with_requirements(THERE.split(), set()) | set(wheels))
    (tmp_path / "sitecustomize.py").write_text(f"SHOWN = {shown!r}\n{HIDING}")
    out = tmp_path / "gpu_check.json"
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--out", str(out), *DRY]
    run = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, timeout=1800
    )
    figures = json.loads(out.read_text())
    assert {name: part["end"] for name, part in figures["parts"].items()} == dict.fromkeys(gpu_check.LIMITS_S, "ok"), (
        run.stderr
    )
    assert figures.keys() >= EVERYWHERE
    assert figures["gpu"] is None
    passed = {aim["name"]: aim["passed"] for aim in figures["aims"]}
    assert passed["scores in float32 against the CPU"] is passed["WeNet's hypotheses other than the CPU's"] is True
    assert passed["captures after the start"] is passed["first sound, one caller"] is None


def test_dry_run_on_a_simulated_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu_check.json"
    gpu_check.main(["--out", str(out), *DRY], python=[sys.executable, str(SIMULATED)])
    figures = json.loads(out.read_text())
    assert {name: part["end"] for name, part in figures["parts"].items()} == dict.fromkeys(gpu_check.LIMITS_S, "ok")
    assert figures.keys() >= ON_A_GPU
    missed = {aim["name"] for aim in figures["aims"] if aim["passed"] is False}
    assert all(re.search("first sound|step of|real-time", name) for name in missed), missed
    assert figures["engines"]["recognizer.zh"].endswith("on cuda:0")
    assert figures["captured_differ_from_plain"] == figures["captures_after_ready"] == 0


def test_a_failed_part_and_an_endless_one_leave_the_figures_of_the_others(tmp_path: Path) -> None:
    out, pid, parts = tmp_path / "gpu_check.json", tmp_path / "pid", tmp_path / "parts.py"
    parts.write_text(PARTS.format(root=str(ROOT), out=str(out), pid=str(pid)))
    assert not gpu_check.main(["--out", str(out), "--patience", "0.1"], python=[sys.executable, str(parts)])
    figures = json.loads(out.read_text())
    ends = {name: part["end"] for name, part in figures["parts"].items()}
    assert ends.pop("scores") == "failed: exit status 3"
    assert ends.pop("steps") == "ended: it took longer than 9 s"
    assert set(ends.values()) == {"ok"}
    assert figures.keys() >= {f"figure_of_{name}" for name in gpu_check.LIMITS_S}
    assert not (Path("/proc") / pid.read_text() / "exe").exists()  # what the part had started


@pytest.mark.parametrize(
    ("bandwidth", "concerned", "other"),
    [(272.0, "step of one caller over its floor (desk)", "step of one caller (data centre)"),
     (4300.0, "step of one caller (data centre)", "step of one caller over its floor (desk)")],
)  # fmt: skip
def test_the_aim_of_a_step_follows_the_card(bandwidth: float, concerned: str, other: str) -> None:
    figures: dict[str, Any] = {"gpu": "a card", "bandwidth_gb_s": bandwidth, "step_ms_1": 1.5, "step_over_floor_1": 1.5}
    for slower, passed in ((1, True), (2, False)):
        slow = {name: value * slower if name.startswith("step") else value for name, value in figures.items()}
        found = {aim["name"]: aim["passed"] for aim in aims_of(slow)}
        assert (found[concerned], found[other]) == (passed, None)
    assert all(aim["passed"] is None for aim in aims_of({}))


def test_worst_gap() -> None:
    assert worst_gap([0.1, 0.5, 2.0], [1.0, 0.5, 1.0]) == pytest.approx(0.4)  # 1.5 s had come, to be heard until 1.6
    assert worst_gap([0.1, 0.9, 1.5], [1.0, 0.5, 1.0]) == 0.0
