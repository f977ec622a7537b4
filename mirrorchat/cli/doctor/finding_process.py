"""Findings gathered in a process of their own, since what is looked at there can crash, hang or use up the memory.

The process writes a JSON object a line to its standard output: what it is `doing`, each `finding`, and `whole`, last.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mirrorchat.cli.doctor.findings import Finding, State, problem, unexpected
from mirrorchat.hardware.bounded_run import Ended, run_bounded

Say = Callable[[str], None]

_LIMIT_BYTES = 1_000_000
_REMEDIES = {
    signal.SIGKILL: "the memory ran out, most likely: free some, or lower xtts_cache_mb and xtts_weights",
    signal.SIGILL: "a package was built for another CPU: install again with `rm .venv/installed; scripts/environment`",
}


def findings_from(module: str, arguments: Sequence[str], *, subject: str, limit_s: float) -> list[Finding]:
    """Return what `python -m module` finds within `limit_s` seconds; how it ended is a finding when it is not well."""
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", module, *arguments]
    environ = {**os.environ, "PYTHONPATH": path}
    try:
        ended = run_bounded(command, limit_s=limit_s, limit_bytes=_LIMIT_BYTES, environ=environ)
    except OSError as error:
        return [problem(subject, f"no process could be started: {error.strerror}", "free memory or processes")]
    findings, doing, whole = _read(ended.output)
    if not whole:
        findings.append(_broken_off(subject, ended, doing, limit_s, " ".join(["python", *command[2:]])))
    return findings


def _read(output: bytes) -> tuple[list[Finding], str, bool]:
    findings: list[Finding] = []
    doing, whole = "starting", False
    for line in _objects(output):
        doing = line.get("doing", doing)
        whole = whole or "whole" in line
        if "finding" in line:
            given = line["finding"]
            findings.append(Finding(**{**given, "state": State(given["state"])}))
    return findings, doing, whole


def _objects(output: bytes) -> Iterator[dict[str, Any]]:
    """Yield what stands in the lines; the last one may be cut."""
    for line in output.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _broken_off(subject: str, ended: Ended, doing: str, limit_s: float, command: str) -> Finding:
    status = ended.status
    if status is None:
        how = f"it gave no answer within {limit_s:g} s"
        remedy = "look at what the machine is busy with, and run it again"
    elif status < 0:
        how = f"it was ended by {signal.Signals(-status).name}"
        remedy = _REMEDIES.get(signal.Signals(-status), f"a native library crashes: see what `{command}` says")
    else:
        how = f"it ended with status {status}"
        remedy = f"see what `{command}` says"
    return problem(subject, f"{doing}: {how}", remedy)


def hand_over(subject: str, look: Callable[[Say], Iterator[Finding]]) -> None:
    """Write what `look` finds, as the process that `findings_from` has started.

    What else is written to the standard output, by any library, goes to stderr.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def write(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        try:
            for finding in look(lambda doing: write(doing=doing)):
                write(finding=asdict(finding))
        except BaseException as error:
            write(finding=asdict(unexpected(subject, error)))
        write(whole=True)
        os._exit(0)  # not even a thread that hangs in a native call shall keep the process
