"""benchmarks/turn.py: it runs through on the embedded engines, and its player counts what a listener would hear."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.places import ROOT
from support.small_models import kokoro_folder, whisper_folder

from benchmarks.turn_player import Arrival, first_sound, play

FIELDS = {"ttfa_vs_original", "ttfa_ms", "underruns", "overhead_ms_p50", "rss_mb"}


def test_last_line_holds_every_figure() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "turn.py"), "--json", "--engines", "embedded"]
    command += ["--callers", "1", "--turns", "1", "--threads", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures.keys() >= FIELDS
    embedded = figures["engines"]["embedded"]
    assert embedded["answered"] == {"1": 1}
    assert embedded["refused"] == embedded["failed"] == {"1": 0}
    assert 300 < figures["ttfa_ms"]["1"]["p50"] == figures["ttfa_ms"]["1"]["p95"]  # no token comes before
    assert figures["ttfa_vs_original"] > 1
    assert embedded["speech_s"]["1"]["p50"] > 5  # four sentences
    assert 0 < figures["overhead_ms_p50"] < figures["ttfa_ms"]["1"]["p50"]
    assert figures["rss_mb"] > 20
    assert embedded["cpu_s_per_turn"]["1"] > 0


def test_the_small_models_are_compared_with_the_floor() -> None:
    models = whisper_folder().parent
    assert kokoro_folder().parent == models
    command = [sys.executable, str(ROOT / "benchmarks" / "turn.py"), "--json", "--engines", "small"]
    command += ["--callers", "1", "--turns", "1", "--threads", "2", "--models", str(models)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures["engines"]["small"]["answered"] == {"1": 1}
    compared = figures["small_vs_floor"]
    assert compared["answers"] == 1
    assert 2.5 < compared["hearing_question_s"] < 3.5
    hearing_ms = {side: times["p50"] for side, times in compared["hearing_ms"].items()}
    assert compared["hearing"] == pytest.approx(hearing_ms["small"] / hearing_ms["pocketsphinx"], abs=0.01)
    for language in ("english", "chinese"):
        first_ms = {side: times["p50"] for side, times in compared["first_sound_ms"][language].items()}
        assert min(first_ms["floor"], first_ms["small"]) > 300  # no token comes before
        assert compared["first_sound"][language] == pytest.approx(first_ms["small"] / first_ms["floor"], abs=0.01)
        assert compared["underruns"][language] >= 0


def test_without_the_small_models_the_benchmark_says_how_to_get_them(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "turn.py"), "--engines", "small", "--models", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "models install small" in run.stderr


def test_player_waits_when_it_has_no_more() -> None:
    on_time = [Arrival(1.0, 100), Arrival(1.9, 200), Arrival(2.1, 250), Arrival(9.0, 250)]
    assert play(on_time[:3], 100.0) == []
    late = [Arrival(1.0, 100), Arrival(2.5, 200), Arrival(3.4, 300), Arrival(4.75, 400)]
    assert play(late, 100.0) == pytest.approx([0.5, 0.25])


def test_first_sound_is_the_read_that_brought_it() -> None:
    data = np.array([0, 5, -90, 4000, 20], "<i2").tobytes()
    arrivals = [Arrival(0.1, 4), Arrival(0.2, 7), Arrival(0.3, 10)]
    assert first_sound(data, arrivals) == 0.3
    assert first_sound(data[:6], arrivals) == 0.0
