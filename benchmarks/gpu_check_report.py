"""The report of benchmarks/gpu_check.py: one JSON file that is rewritten after each figure, and what is aimed at."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATA_CENTRE_GB_S = 1000.0  # a card that reads its memory faster counts as one for a data centre

Figures = dict[str, Any]


class Report:
    """The figures by name in the file `path`. The processes of the parts write to it one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = time.perf_counter()

    def read(self) -> Figures:
        found: Figures = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return found

    def note(self, name: str, value: object) -> None:
        """Print a figure and add it to the file, which is never left half written."""
        shown = value if not isinstance(value, float) else round(value, 4)
        print(f"  [{time.perf_counter() - self._started:6.1f} s] {name}: {shown}", flush=True)
        written = self.path.with_name(f"{self.path.name}.new")
        written.write_text(json.dumps(self.read() | {name: shown}, indent=1), encoding="utf-8")
        os.replace(written, self.path)


@dataclass(frozen=True)
class Aim:
    """What is aimed at. `passed` is None if it does not concern this device, or was not measured."""

    name: str
    bound: str
    found: Any
    passed: bool | None


def aims_of(figures: Figures) -> list[dict[str, Any]]:
    """Return every aim with what was found."""
    return [asdict(aim) for aim in (*_correctness(figures), *_speed(figures), *_memory(figures))]


def _correctness(figures: Figures) -> list[Aim]:
    served = figures.get("weights")
    return [
        _at_least(figures, "scores in float32 against the CPU", "scores_db_fp32", 60, "dB"),
        _at_least(figures, "scores in the served weights", f"scores_db_{served}", 30, "dB"),
        _at_least(figures, "the vocoder in float32", "vocoder_db_float32", 50, "dB"),
        _at_least(figures, "the served vocoder", "vocoder_db_served", 45, "dB"),
        _at_most(figures, "captured tokens other than plain ones", "captured_differ_from_plain", 0),
        _at_most(figures, "WeNet's hypotheses other than the CPU's", "hypotheses_differ_fp32", 0),
        _at_most(figures, "steps that wait for the device", "step_waits", 0),
    ]


def _speed(figures: Figures) -> list[Aim]:
    gpu, bandwidth = bool(figures.get("gpu")), figures.get("bandwidth_gb_s") or 0.0
    centre = gpu and bandwidth >= DATA_CENTRE_GB_S
    desk = gpu and 0 < bandwidth < DATA_CENTRE_GB_S
    return [
        _at_most(figures, "captures after the start", "captures_after_ready", 0, where=gpu),
        _at_most(figures, "first sound, one caller", "first_sound_ms_1", 150, "ms", where=gpu),
        _at_most(figures, "first sound, the first over later ones", "first_over_later", 1.5, where=gpu),
        _at_most(figures, "first sound, 8 callers, p95", "first_sound_p95_ms_8", 400, "ms", where=gpu),
        _at_most(figures, "real-time factor of 8 callers", "real_time_factor_8", 1, where=gpu),
        _at_most(figures, "step of one caller over its floor (desk)", "step_over_floor_1", 2, where=desk),
        _at_most(figures, "step of one caller (data centre)", "step_ms_1", 1.6, "ms", where=centre),
    ]


def _memory(figures: Figures) -> list[Aim]:
    gpu = bool(figures.get("gpu"))
    return [
        _at_most(figures, "what is taken of the card", "card_gb", 7, "GB", where=gpu),
        _at_most(figures, "what is taken over the plan", "card_over_plan", 1, where=gpu),
        _at_most(figures, "the whole check", "seconds", 480, "s"),
    ]


def _at_least(figures: Figures, name: str, key: str, bound: float, unit: str = "") -> Aim:
    found = figures.get(key)
    return Aim(name, f">= {bound:g} {unit}".strip(), found, None if found is None else found >= bound)


def _at_most(figures: Figures, name: str, key: str, bound: float, unit: str = "", *, where: bool = True) -> Aim:
    """Return the aim, which does not concern this device unless `where` is true."""
    found = figures.get(key) if where else None
    return Aim(name, f"<= {bound:g} {unit}".strip(), found, None if found is None else found <= bound)
