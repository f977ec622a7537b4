"""Measures what callers see while parts of a running server fail, and how long it takes until all is well again.

    .venv/bin/python benchmarks/chaos.py [--json] [FAULT ...]

Four callers (chaos_callers.py) talk without a pause to a real gunicorn behind a real nginx: for JSON, for events, for a
stream of samples; the fourth enrols a voice, speaks with it and deletes it. Each fault (chaos_faults.py) meets them in
turn. The disk and HOME are small file systems that are mounted for this, which only root may do.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "tests")]

import gunicorn  # noqa: E402
from support.places import QUESTION  # noqa: E402

from benchmarks.chaos_callers import OK, Callers  # noqa: E402
from benchmarks.chaos_faults import FAULTS, NEED_MOUNTS, OpenScene, Scene  # noqa: E402

Row = dict[str, Any]
LIMIT_S = 180.0
HEAD = "| what failed | attempts | answered | what callers saw | longest attempt | all well after |"


def measure(scene: Scene, callers: Callers, name: str) -> Row:
    """Let the fault `name` happen, wait until every caller is answered again, and return what they saw.

    `well_after_s` counts from the end of the fault to the end of the last attempt that failed; None if the callers were
    not all answered within LIMIT_S.
    """
    began = time.monotonic()
    FAULTS[name](scene)
    ended = time.monotonic()
    while not callers.all_well(ended) and time.monotonic() < ended + LIMIT_S:
        time.sleep(0.1)
    well = callers.all_well(ended)
    attempts = callers.since(began)
    failed = [each for each in attempts if each.outcome != OK]
    return {
        "fault": name,
        "attempts": len(attempts),
        "answered": len(attempts) - len(failed),
        "seen": dict(Counter(each.outcome for each in failed).most_common()),
        "longest_s": round(max((each.ended - each.began for each in attempts), default=0.0), 1),
        "well_after_s": round(max([0.0, *(each.ended - ended for each in failed)]), 1) if well else None,
    }


def line(row: Row) -> str:
    """Return a row of the table in Markdown."""
    seen = ", ".join(f"{outcome} ({count})" for outcome, count in row["seen"].items()) or "nothing"
    well = "never" if row["well_after_s"] is None else f"{row['well_after_s']} s"
    return f"| {row['fault']} | {row['attempts']} | {row['answered']} | {seen} | {row['longest_s']} s | {well} |"


def run(names: list[str]) -> tuple[list[Row], bool]:
    """Return the rows, and whether the callers went through nginx."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, OpenScene(Path(folder)) as scene:
        with Callers(scene.url, QUESTION.read_bytes()) as callers:
            time.sleep(3.0)
            for name in names:
                if name in NEED_MOUNTS and not scene.disk.mounted:
                    print(f"not tried, since nothing can be mounted here: {name}")
                    continue
                rows.append(measure(scene, callers, name))
                print(line(rows[-1]), flush=True)
        behind_nginx = scene.url != scene.server.url
    return rows, behind_nginx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("faults", nargs="*", default=list(FAULTS), help=f"some of: {'; '.join(FAULTS)}")
    given = parser.parse_args()
    if unknown := set(given.faults) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was mounted is unmounted then, too
    print(HEAD, "| --- | --- | --- | --- | --- | --- |", sep="\n")
    rows, behind_nginx = run(given.faults)
    versions = {"python": platform.python_version(), "gunicorn": gunicorn.__version__}
    hardware = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(versions, hardware, "behind nginx" if behind_nginx else "without nginx")
    if given.json:
        print(json.dumps({"versions": versions, "hardware": hardware, "nginx": behind_nginx, "rows": rows}))


if __name__ == "__main__":
    main()
