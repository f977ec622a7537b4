"""The report of benchmarks/gpu_check.py: one JSON file that is rewritten after each figure, and what is aimed at."""

import json
import os
import time
from collections.abc import Callable
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


def _aim(figures: Figures, name: str, bound: str, key: str, holds: Callable[[Any], bool], where: bool = True) -> Aim:
    found = figures.get(key) if where else None
    return Aim(name, bound, found, None if found is None else holds(found))


def _correctness(figures: Figures) -> list[Aim]:
    """Return the aims of what is computed; each has a bound on any device."""
    served = figures.get("weights")
    return [
        _aim(figures, "scores in float32 against the CPU", ">= 60 dB", "scores_db_fp32", lambda db: db >= 60),
        _aim(figures, "scores in the served weights", ">= 20 dB", f"scores_db_{served}", lambda db: db >= 20),
        _aim(figures, "the vocoder in float32", ">= 50 dB", "vocoder_db_float32", lambda db: db >= 50),
        _aim(figures, "the served vocoder", ">= 50 dB", "vocoder_db_served", lambda db: db >= 50),
        _aim(figures, "captured tokens equal plain ones", "all", "captured_tokens_differ", lambda count: count == 0),
        _aim(figures, "WeNet's hypotheses, as on the CPU", "all", "hypotheses_differ_fp32", lambda count: count == 0),
        _aim(figures, "no step waits for the device", "0 waits", "step_waits", lambda count: count == 0),
    ]


def _speed(figures: Figures) -> list[Aim]:
    gpu, bandwidth = bool(figures.get("gpu")), figures.get("bandwidth_gb_s") or 0.0
    centre = gpu and bandwidth >= DATA_CENTRE_GB_S
    desk = gpu and 0 < bandwidth < DATA_CENTRE_GB_S
    return [
        _aim(figures, "no capture after the start", "0", "captures_after_ready", lambda count: count == 0, gpu),
        _aim(figures, "first sound, one caller", "<= 150 ms", "first_sound_ms_1", lambda ms: ms <= 150, gpu),
        _aim(figures, "the first answer, over later ones", "<= 1.5", "first_over_later", lambda x: x <= 1.5, gpu),
        _aim(figures, "first sound, 8 callers, p95", "<= 400 ms", "first_sound_p95_ms_8", lambda ms: ms <= 400, gpu),
        _aim(figures, "8 callers in real time", "factor < 1", "real_time_factor_8", lambda factor: factor < 1, gpu),
        _aim(figures, "step of one caller over its floor (desk)", "<= 2", "step_over_floor_1", lambda x: x <= 2, desk),
        _aim(figures, "step of one caller (data centre)", "<= 1.6 ms", "step_ms_1", lambda ms: ms <= 1.6, centre),
    ]


def _memory(figures: Figures) -> list[Aim]:
    gpu = bool(figures.get("gpu"))
    return [
        _aim(figures, "all of the card's memory that is taken", "<= 7 GB", "card_gb", lambda gb: gb <= 7, gpu),
        _aim(figures, "taken over the plan of memory", "<= 1", "card_over_plan", lambda ratio: ratio <= 1, gpu),
        _aim(figures, "the whole check", "< 480 s", "seconds", lambda seconds: seconds < 480),
    ]
