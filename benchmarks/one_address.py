"""Measures what callers notice while one address attacks a bare gunicorn (tests/support/hostile_callers.py).

    .venv/bin/python benchmarks/one_address.py [--json] [--seconds 12] [ATTACK ...]

`health_s` and `question_s` are the longest of several requests of another address, and `own_health_s` of the attacking
one, while the attack runs; `idle_question_s` is that of the same questions just before. `cut` says how many connections
the server has ended, and `last_cut_s` after what time the last one.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "tests")]

import gunicorn  # noqa: E402
import requests  # noqa: E402
from support.chat_server import ChatServer  # noqa: E402
from support.hostile_callers import ADDRESS, ATTACKS, Hostile, session_from  # noqa: E402
from support.places import ROOT  # noqa: E402
from support.running_server import RunningServer  # noqa: E402

Row = dict[str, str | float | None]
QUESTION = (ROOT / "examples" / "question.wav").read_bytes()
OTHER = "127.0.0.3"
LIMIT_S = 60.0


def longest(request: Callable[[], requests.Response], times: int) -> float:
    """Return the seconds of the slowest of several requests; LIMIT_S for one that fails."""
    slowest = 0.0
    for _ in range(times):
        started = time.monotonic()
        try:
            ok = request().ok
        except requests.RequestException:
            ok = False
        slowest = max(slowest, time.monotonic() - started if ok else LIMIT_S)
    return round(slowest, 3)


def health_s(url: str, address: str) -> float:
    def ask() -> requests.Response:
        with session_from(address) as session:
            return session.get(f"{url}/healthz", timeout=LIMIT_S)

    return longest(ask, 5)


def question_s(url: str) -> float:
    def ask() -> requests.Response:
        with session_from(OTHER) as session:
            files, fields = {"audio": ("question.wav", QUESTION)}, {"language": "english"}
            return session.post(f"{url}/process_audio", files=files, data=fields, timeout=LIMIT_S)

    return longest(ask, 3)


def measure(server: RunningServer, names: list[str], seconds: float) -> list[Row]:
    question_s(server.url)  # the first turn is slower
    rows: list[Row] = []
    for name in names:
        row: Row = {"attack": name, "idle_question_s": question_s(server.url)}
        with Hostile(server.port, name, seconds) as hostile:
            time.sleep(1.0)
            row |= {"health_s": health_s(server.url, OTHER), "own_health_s": health_s(server.url, ADDRESS)}
            row["question_s"] = question_s(server.url)
        rows.append(row | hostile.report)
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each attack")
    parser.add_argument("attacks", nargs="*", default=list(ATTACKS), help=f"some of: {'; '.join(ATTACKS)}")
    given = parser.parse_args()
    if unknown := set(given.attacks) - set(ATTACKS):
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder, ChatServer() as chat:
        settings: dict[str, Any] = {"trusted_proxies": [], "chatgpt_apis": [chat.api()], "max_turns": 2}
        with RunningServer(Path(folder), **settings) as server:
            rows = measure(server, given.attacks, given.seconds)
            alive = "worker was" not in server.log.lower() and "Traceback" not in server.log
    versions = {"python": platform.python_version(), "gunicorn": gunicorn.__version__}
    hardware = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print("no error in the log" if alive else "ERRORS IN THE LOG")
    if given.json:
        print(json.dumps({"versions": versions, "hardware": hardware, "clean_log": alive, "rows": rows}))


if __name__ == "__main__":
    main()
