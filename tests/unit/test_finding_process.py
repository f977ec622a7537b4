"""Findings of sections and of processes that crash, hang, babble or raise: each ends as a finding, in time."""

import os
import sys
import threading
from pathlib import Path

import pytest

from mirrorchat.cli.doctor.finding_process import findings_from
from mirrorchat.cli.doctor.findings import Finding, Section, State, examine, ok
from mirrorchat.errors import ConfigurationError

HEAD = """
import os, signal, sys, threading, time
from mirrorchat.errors import ConfigurationError
from mirrorchat.cli.doctor.findings import ok

def findings(say):
    say("thinking")
    yield ok("first", "found", number=1)
"""


@pytest.fixture
def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Looking":
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    return Looking(tmp_path)


class Looking:
    """Runs a process that finds one thing, and then does what a test wants."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, body: str, limit_s: float = 30.0) -> list[Finding]:
        (self._folder / "looks.py").write_text(f"{HEAD}{body}\n")
        return findings_from("looks", subject="it", limit_s=limit_s)


def test_what_it_finds_comes_whole_whatever_it_prints(looked: Looking) -> None:
    body = "    print('noise'); os.system('echo noise'); sys.stdout.flush()\n    yield ok('second', '中文')"
    assert looked(body) == [ok("first", "found", number=1), ok("second", "中文")]


def test_a_thread_that_hangs_does_not_keep_it(looked: Looking) -> None:
    assert looked("    threading.Thread(target=time.sleep, args=(600,)).start()") == [ok("first", "found", number=1)]


@pytest.mark.parametrize(
    ("body", "limit_s", "said"),
    [
        ("    os.kill(os.getpid(), signal.SIGKILL)", 30.0, "thinking: it was ended by SIGKILL"),
        ("    os.kill(os.getpid(), signal.SIGSEGV)", 30.0, "thinking: it was ended by SIGSEGV"),
        ("    os._exit(7)", 30.0, "thinking: it ended with status 7"),
        ("    time.sleep(600)", 3.0, "thinking: it gave no answer within 3 s"),
        ("    while True: yield ok('more', 'x' * 10000)", 30.0, "thinking: it gave no answer"),
        ("    raise ConfigurationError('set it')", 30.0, "set it"),
        ("    raise SystemExit(3)", 30.0, "SystemExit in looks.py, line 9"),
        ("    raise ValueError('sk-secret')", 30.0, "ValueError in looks.py, line 9"),
        ("    import no_such_package", 30.0, "no_such_package cannot be imported"),
    ],
)  # fmt: skip
def test_however_it_ends_what_it_found_stays_and_the_end_is_said(
    looked: Looking, body: str, limit_s: float, said: str
) -> None:
    first, *_, last = looked(body, limit_s)
    assert first == ok("first", "found", number=1)
    assert last.state is State.PROBLEM and last.found.startswith(said) and last.remedy
    assert "sk-secret" not in last.found


def test_a_process_that_cannot_be_started_is_a_finding(monkeypatch: pytest.MonkeyPatch, looked: Looking) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert [finding.state for finding in looked("    pass")] == [State.PROBLEM]


def test_a_section_that_raises_or_hangs_is_a_finding() -> None:
    def fail() -> list[Finding]:
        raise ConfigurationError("set it")

    assert examine(Section("it", lambda: [ok("a", "b")], 10.0)).findings == [ok("a", "b")]
    (failed,) = examine(Section("it", fail, 10.0)).findings
    assert (failed.state, failed.found) == (State.PROBLEM, "set it")
    let_go = threading.Event()
    examined = examine(Section("it", lambda: [ok("a", str(let_go.wait(60.0)))], 0.5))
    let_go.set()
    assert examined.stuck and examined.findings[0].state is State.PROBLEM
