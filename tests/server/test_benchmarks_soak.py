"""benchmarks/soak.py and benchmarks/chaos.py: they run through, and they notice what they look for."""

import json
import subprocess
import sys
from typing import Any

import pytest
from support.places import ROOT

from benchmarks.chaos_callers import OK, WAYS, Attempt, Callers
from benchmarks.soak import Run, Usage, summary
from benchmarks.soak_chat import UnreliableChat, repeated
from benchmarks.soak_turns import Caller, Recording, Soak, WrongAnswer, check_heard

FAULT = "gunicorn's worker killed"


def last_line(script: str, *arguments: str) -> Any:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--json", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_a_short_soak() -> None:
    found = last_line("soak.py", "--turns", "12", "--small-turns", "0")["engines"]["embedded"]
    assert found["turns"] == sum(found["outcomes"].values()) == 12
    assert found["outcomes"]["ok"] > 0
    assert found["wrong"] == [] and found["errors_in_log"] == 0
    assert found["last_window"]["worker_mb"] > 20 and found["last_window"]["threads"] > 1


def test_one_fault_of_chaos() -> None:
    (row,) = last_line("chaos.py", FAULT)["rows"]
    assert row["fault"] == FAULT
    assert row["well_after_s"] is not None and 0 < row["answered"] <= row["attempts"]
    assert all("not our JSON" not in outcome and "no answer" not in outcome for outcome in row["seen"])


@pytest.fixture
def caller() -> Caller:
    return Caller(Soak("http://127.0.0.1:9", 9, UnreliableChat(1), []), 1)


def test_soak_notices_another_callers_answer(caller: Caller) -> None:
    own, _ = caller.numbered()
    assert caller.check(repeated([f"Please say {own}."]), own) == "ok"
    with pytest.raises(WrongAnswer, match="got the numbers"):
        caller.check(repeated(["Please say 77.", f"Please say {own}."]), own)
    with pytest.raises(WrongAnswer, match="got the numbers"):
        caller.check(repeated([]), own)


def test_soak_notices_another_recording() -> None:
    recording = Recording("How long does the train to the sea take?", b"", clear=True)
    check_heard("how long does a train to the sea", recording)
    with pytest.raises(WrongAnswer, match="recognized"):
        check_heard("what is the best way to learn a language", recording)


@pytest.mark.parametrize(
    ("later", "steady"),
    [
        (Usage(102, 50, 20, 30), True),
        (Usage(102.5, 50, 20, 30), False),
        (Usage(100, 52, 20, 30), False),
        (Usage(100, 50, 21, 30), False),
        (Usage(100, 50, 20, 31), False),
    ],
)
def test_soak_notices_growth(caller: Caller, later: Usage, steady: bool) -> None:
    run = Run(caller.soak, 0, 0, 0.0)
    run.usages = [Usage(100, 50, 20, 30)] * 400 + [later] * 200
    assert summary(run, 1.0)["steady"] is steady


def test_chaos_waits_for_every_caller() -> None:
    callers = Callers("http://127.0.0.1:9", b"")
    for caller in WAYS:
        assert not callers.all_well(0.0)
        callers.attempts += [Attempt(caller, "503 not_ready", 0.5, 1.0), *[Attempt(caller, OK, 1.0, 2.0)] * 2]
    assert callers.all_well(0.0)
    assert not callers.all_well(1.5), "they were asked before"
    callers.attempts.append(Attempt("json", "broken off", 2.0, 3.0))
    assert not callers.all_well(0.0)
