"""The server that benchmarks/turn.py measures: a real gunicorn, its engines' stages, its memory and its time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from support.running_server import GUNICORN_CONF, RunningServer

QUIET_LIMIT_S = 60.0
TICKS_S = os.sysconf("SC_CLK_TCK")


class MeasuredServer:
    """A running server whose application is turn_wsgi's."""

    def __init__(self, server: RunningServer) -> None:
        self.port = server.port
        self._server = server
        self._url = server.url
        self._pid = server.worker_pid

    @property
    def log(self) -> str:
        return self._server.log

    def stages(self) -> dict[str, float]:
        """Return the seconds of each stage of the turn since the last call, once no turn holds a place any more.

        Of several turns, each stage's last. Raises TimeoutError when a turn does not let go.
        """
        found: dict[str, float] = {}
        limit = time.monotonic() + QUIET_LIMIT_S
        while time.monotonic() < limit:
            measured = requests.get(f"{self._url}/measured", timeout=30).json()
            found |= dict(measured["stages"])
            if measured["running"] == 0:
                return found
            time.sleep(0.05)
        raise TimeoutError("a turn has not ended")

    def cpu_s(self) -> float:
        """Return the processor time that the worker and its children have used, those that have ended included."""
        return sum(_cpu_s(pid) for pid in [self._pid, *descendants(self._pid)])

    def peak_mb(self) -> tuple[float, float]:
        """Return the most memory that the worker has had at once, and the sum of its children's most."""
        return _peak_mb(self._pid), sum(_peak_mb(pid) for pid in descendants(self._pid))


@contextmanager
def measured_server(folder: Path, **settings: Any) -> Iterator[MeasuredServer]:
    """Start gunicorn in `folder` as in deployment, but with turn_wsgi's application; stop it at the end."""
    conf = folder / "gunicorn.conf.py"
    conf.write_text(GUNICORN_CONF.read_text() + '\nwsgi_app = "benchmarks.turn_wsgi:app"\n')
    with RunningServer(folder, gunicorn_conf=conf, **settings) as server:
        yield MeasuredServer(server)


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` and its children have started and that still run."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # each thread has its own
    children = [int(child) for children in lists for child in children.read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def _cpu_s(pid: int) -> float:
    # after the name, which may hold anything: utime, stime and those of ended children are fields 14 to 17
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_S


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
