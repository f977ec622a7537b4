"""The server of benchmarks/turn.py: a real gunicorn, with measurements of its stages, memory and CPU time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from support.running_server import GUNICORN_CONF, RunningServer
from support.usage import memory_mb

QUIET_LIMIT_S = 60.0
TICKS_S = os.sysconf("SC_CLK_TCK")


class MeasuredServer:
    """A running server with the application of turn_wsgi."""

    def __init__(self, server: RunningServer) -> None:
        self.port = server.port
        self._server = server
        self._url = server.url
        self._pid = server.worker_pid

    @property
    def log(self) -> str:
        return self._server.log

    def stages(self) -> dict[str, float]:
        """Wait until every slot is free, and return the seconds of each stage of the last turn.

        Raises TimeoutError when a turn keeps its slot.
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
        """Return the CPU time of the worker and its child processes, including ended ones."""
        return sum(_cpu_s(pid) for pid in [self._pid, *descendants(self._pid)])

    def peak_mb(self) -> tuple[float, float]:
        """Return the peak memory of the worker, and the sum of the peaks of its child processes."""
        return memory_mb(self._pid, "VmHWM"), sum(memory_mb(pid, "VmHWM") for pid in descendants(self._pid))


@contextmanager
def measured_server(folder: Path, **settings: Any) -> Iterator[MeasuredServer]:
    """Run gunicorn in `folder` as a deployment does, but with the application of turn_wsgi."""
    conf = folder / "gunicorn.conf.py"
    conf.write_text(GUNICORN_CONF.read_text() + '\nwsgi_app = "benchmarks.turn_wsgi:app"\n')
    with RunningServer(folder, gunicorn_conf=conf, **settings) as server:
        yield MeasuredServer(server)


def descendants(pid: int) -> list[int]:
    """Return the running descendants of the process `pid`."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # each thread has a list
    children = [int(child) for children in lists for child in children.read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def _cpu_s(pid: int) -> float:
    # after the name, which may contain anything, utime, stime, cutime and cstime are fields 14 to 17
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_S
