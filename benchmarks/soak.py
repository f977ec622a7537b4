"""Measures whether a server stays as it was: thousands of turns in every way, with hang-ups, junk and a failing chat.

    .venv/bin/python benchmarks/soak.py [--json] [--turns 2000] [--small-turns 300] [--minutes 30]

A real gunicorn answers CALLERS callers (soak_turns.py), first with the embedded engines,
then with the small models, where these are installed. After every ROUND turns they rest for a moment, and the memory,
threads and open files of gunicorn's worker and of its child processes are read: what is left is what stays.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "tests")]

import gunicorn  # noqa: E402
from support.chat_server import ChatServer  # noqa: E402
from support.running_server import RunningServer  # noqa: E402
from support.small_models import FOLDER as SMALL_MODELS  # noqa: E402

from benchmarks.soak_chat import SILENCE_S, UnreliableChat  # noqa: E402
from benchmarks.soak_turns import Caller, Recording, Soak, WrongAnswer, recordings  # noqa: E402
from benchmarks.turn_server import descendants  # noqa: E402
from mirrorchat.server.memory import TIDY_S  # noqa: E402

CALLERS = 4
ROUND = 40  # turns; fewer in a short run
WINDOW = 5  # rounds; fewer in a short run
REST_S = TIDY_S + 1.0
AT_ONCE = 64  # questions at the beginning: they start all threads that there will ever be
GROWTH_LIMIT = 0.02
SEED = 17


class Usage(NamedTuple):
    """What the server holds: the memory of the worker and of its child processes in MB, its threads and open files."""

    worker_mb: float
    children_mb: float
    threads: int
    files: int


def usage(pid: int) -> Usage:
    threads, files = (len(os.listdir(f"/proc/{pid}/{folder}")) for folder in ("task", "fd"))
    return Usage(resident_mb(pid), sum(map(resident_mb, descendants(pid))), threads, files)


def resident_mb(pid: int) -> float:
    """Return the memory of a process without its files and what it shares; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Run:
    """One run over one set of engines: the outcomes of its turns, what was wrong, and the usage after each round."""

    def __init__(self, soak: Soak, pid: int, turns: int, limit_s: float) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.usages: list[Usage] = []
        self.round = min(ROUND, max(1, turns // 3))
        self._soak, self._pid, self._left, self._turns = soak, pid, turns, 0
        self._ends_at = time.monotonic() + limit_s
        self._lock = threading.Lock()

    def run(self) -> None:
        self._start_all_threads()
        callers = [Caller(self._soak, SEED + each) for each in range(CALLERS)]
        while self._left > 0 and time.monotonic() < self._ends_at:
            self._turns = min(self.round, self._left)
            self._left -= self._turns
            with ThreadPoolExecutor(CALLERS) as pool:
                list(pool.map(self._talk, callers))
            time.sleep(REST_S)
            self.usages.append(usage(self._pid))
            print(f"{self.outcomes.total()} turns: {self.usages[-1]}, {len(self.wrong)} wrong", flush=True)

    def _start_all_threads(self) -> None:
        """Ask so much at once that many are turned away."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda each: Caller(self._soak, each).asks_once(), range(AT_ONCE)))

    def _talk(self, caller: Caller) -> None:
        while self._take_turn():
            try:
                outcome = caller.turn()
            except (WrongAnswer, OSError, ValueError) as error:  # those of requests are OSErrors
                outcome = "wrong"
                self.wrong.append(f"{type(error).__name__}: {error}"[:300])
            with self._lock:
                self.outcomes[outcome] += 1

    def _take_turn(self) -> bool:
        with self._lock:
            self._turns -= 1
            return self._turns >= 0 and time.monotonic() < self._ends_at


def summary(run: Run, seconds: float) -> dict[str, Any]:
    """Return the outcomes, and the medians of the second window of rounds and of the last one."""
    window = max(1, min(WINDOW, len(run.usages) // 3))
    early, late = median(run.usages[window : 2 * window]), median(run.usages[-window:])
    first = run.usages[window:]
    slope, _ = statistics.linear_regression(range(len(first)), [each.worker_mb for each in first])
    return {
        "turns": run.outcomes.total(),
        "seconds": round(seconds, 1),
        "outcomes": dict(run.outcomes.most_common()),
        "wrong": run.wrong,
        "window": window * run.round,
        "second_window": early._asdict(),
        "last_window": late._asdict(),
        "growth": round(late.worker_mb / early.worker_mb - 1.0, 4),
        "kb_per_turn": round(1000 * slope / run.round, 2),
        "steady": is_steady(early, late),
    }


def is_steady(early: Usage, late: Usage) -> bool:
    grown = late.worker_mb > early.worker_mb * (1 + GROWTH_LIMIT)
    children_grown = late.children_mb > early.children_mb * (1 + GROWTH_LIMIT)
    return not (grown or children_grown) and late.threads <= early.threads and late.files <= early.files


def median(usages: Sequence[Usage]) -> Usage:
    return Usage(*(round(statistics.median(column), 1) for column in zip(*usages, strict=True)))


def soak(engines: str, turns: int, limit_s: float, sessions: int, uploads: list[Recording]) -> dict[str, Any]:
    """Run `turns` turns over the engines of that name, and return what came of it."""
    chat = UnreliableChat(SEED)
    with tempfile.TemporaryDirectory() as folder, ChatServer(chat.behave) as server:
        api = server.api(timeout_s=SILENCE_S, first_token_timeout_s=SILENCE_S)
        settings: dict[str, Any] = {"recognizer": {"english": engines}, "synthesizer": engines}
        if engines == "small":
            settings["models_dir"] = str(SMALL_MODELS)
        with RunningServer(
            Path(folder), chatgpt_apis=[api], chat_cooldown_s=0.0, max_sessions=sessions, **settings
        ) as running:
            started = time.monotonic()
            run = Run(Soak(running.url, running.port, chat, uploads), running.worker_pid, turns, limit_s)
            run.run()
            result = summary(run, time.monotonic() - started)
            result["chat"] = dict(chat.outcomes.most_common())
            result["errors_in_log"] = running.log.count("Traceback") + running.log.count("Booting worker") - 1
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--turns", type=int, default=2000, help="over the embedded engines")
    parser.add_argument("--small-turns", type=int, default=300, help="over the small models")
    parser.add_argument("--sessions", type=int, default=100, help="at most; fewer show sooner what else grows")
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, over each of them")
    given = parser.parse_args()
    uploads, results = recordings(), {}
    for engines, turns in {"embedded": given.turns, "small": given.small_turns}.items():
        if turns:
            results[engines] = soak(engines, turns, 60 * given.minutes, given.sessions, uploads)
            print(engines, json.dumps(results[engines], indent=1), flush=True)
    versions = {"python": platform.python_version(), "gunicorn": gunicorn.__version__}
    hardware = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(versions, hardware)
    if given.json:
        print(json.dumps({"versions": versions, "hardware": hardware, "engines": results}))


if __name__ == "__main__":
    main()
