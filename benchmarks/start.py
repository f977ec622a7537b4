"""Measures how long a server takes to start, and to be back after its worker was killed.

    .venv/bin/python benchmarks/start.py [--json] [--starts 3]

The embedded engines start, then the small models, where these are installed.
`ready_s` is from the command `mirrorchat serve` until /readyz is 200; `processor_s` is what all processes have computed
until then. `question_s` is from the command until a question is answered that was sent as soon as the port was open.
`back_s` is from the death of the worker until /readyz is 200 again.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "tests")]

import gunicorn  # noqa: E402
import requests  # noqa: E402
from support.places import ROOT  # noqa: E402
from support.running_server import RunningServer  # noqa: E402
from support.small_models import FOLDER as SMALL_MODELS  # noqa: E402

from benchmarks.turn_server import descendants  # noqa: E402

Row = dict[str, float]
QUESTION = (ROOT / "examples" / "question.wav").read_bytes()
LIMIT_S = 120.0
LOOK_S = 0.05
THREADS = os.cpu_count() or 1


class Started(RunningServer):
    """A server that is started by its command, which is later replaced by gunicorn."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "mirrorchat", "serve"]


def ready_after(url: str, started: float) -> float:
    """Wait until /readyz is 200; return the seconds since `started`."""
    while time.monotonic() - started < LIMIT_S:
        try:
            if requests.get(f"{url}/readyz", timeout=LIMIT_S).ok:
                return time.monotonic() - started
        except requests.ConnectionError:
            pass
        time.sleep(LOOK_S)
    raise SystemExit("the server was not ready in time")


def answered_after(server: RunningServer, started: float) -> float:
    """Ask as soon as the port is open; return the seconds from `started` to the whole answer."""
    while time.monotonic() - started < LIMIT_S:
        try:
            response = server.ask(QUESTION, "english")
        except requests.ConnectionError:
            time.sleep(LOOK_S)
            continue
        if not response.ok:
            raise SystemExit(f"the question was not answered: {response.text}")
        return time.monotonic() - started
    raise SystemExit("the port was not open in time")


def processor_s(pid: int) -> float:
    """Return the processor time of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_start(models: Path) -> Row:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as asker:
        started = time.monotonic()
        with Started(Path(folder), wait=False, models_dir=str(models), threads=THREADS) as server:
            question = asker.submit(answered_after, server, started)
            row = {"ready_s": ready_after(server.url, started)}
            row["processor_s"] = sum(map(processor_s, [server.process.pid, *descendants(server.process.pid)]))
            row["question_s"] = question.result()
            killed = time.monotonic()
            os.kill(server.worker_pid, signal.SIGKILL)
            time.sleep(LOOK_S)
            return row | {"back_s": ready_after(server.url, killed)}


def medians(rows: list[Row]) -> Row:
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--starts", type=int, default=3, help="whose medians are printed; one more warms up")
    given = parser.parse_args()
    results: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as empty:
        for name, models in {"embedded": Path(empty), "small": SMALL_MODELS}.items():
            if name == "embedded" or (SMALL_MODELS / "whisper-base").is_dir():
                measure_start(models)
                results[name] = medians([measure_start(models) for _ in range(given.starts)])
                print(name, json.dumps(results[name]), flush=True)
    versions = {"python": platform.python_version(), "gunicorn": gunicorn.__version__}
    hardware = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    if given.json:
        print(json.dumps({"versions": versions, "hardware": hardware, "starts": given.starts, "results": results}))


if __name__ == "__main__":
    main()
