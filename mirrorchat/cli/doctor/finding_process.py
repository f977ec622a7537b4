"""Runs a section in a separate process, because it can crash, hang or exhaust the memory.

The process writes lines of JSON to its standard output: its current step as `doing`, each `finding`, and at the end
`complete`.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mirrorchat.cli.doctor.findings import Finding, State, problem, unexpected
from mirrorchat.hardware.bounded_run import Ended, run_bounded

Say = Callable[[str], None]

_LIMIT_BYTES = 1_000_000
_REMEDIES = {
    signal.SIGKILL: "the memory was probably exhausted: free some, or lower xtts_cache_mb and xtts_weights",
    signal.SIGILL: "a package was built for another CPU: reinstall it with `rm .venv/installed; scripts/environment`",
}


def findings_from(module: str, *arguments: str, subject: str, limit_s: float) -> list[Finding]:
    """Return the findings of a module's function `findings`, called with `arguments` in a separate process.

    An abnormal end, or no end within `limit_s` seconds, is a finding about `subject`.
    """
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "mirrorchat.cli.doctor.finding_process", module, subject, *arguments]
    environ = {**os.environ, "PYTHONPATH": path}
    try:
        ended = run_bounded(command, limit_s=limit_s, limit_bytes=_LIMIT_BYTES, environ=environ)
    except OSError as error:
        return [problem(subject, f"no process could be started: {error.strerror}", "free memory or processes")]
    findings, doing, complete = _read(ended.output)
    if not complete:
        findings.append(_abnormal_end(subject, ended, doing, limit_s, " ".join(["python", *command[2:]])))
    return findings


def _read(output: bytes) -> tuple[list[Finding], str, bool]:
    findings: list[Finding] = []
    doing, complete = "starting", False
    for line in _objects(output):
        doing = line.get("doing", doing)
        complete = complete or "complete" in line
        if "finding" in line:
            given = line["finding"]
            findings.append(Finding(**{**given, "state": State(given["state"])}))
    return findings, doing, complete


def _objects(output: bytes) -> Iterator[dict[str, Any]]:
    """Yield the object of each line. The last line may be incomplete."""
    for line in output.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _abnormal_end(subject: str, ended: Ended, doing: str, limit_s: float, command: str) -> Finding:
    status = ended.status
    if status is None:
        how = f"it gave no answer within {limit_s:g} s"
        remedy = "check the load of this computer, and run the command again"
    elif status < 0:
        how = f"it was ended by {signal.Signals(-status).name}"
        remedy = _REMEDIES.get(signal.Signals(-status), f"a native library crashes: read the output of `{command}`")
    else:
        how = f"it ended with status {status}"
        remedy = f"read the output of `{command}`"
    return problem(subject, f"{doing}: {how}", remedy)


def main(module: str, subject: str, *arguments: str) -> None:
    """Write the findings of `module` in the process that `findings_from` started.

    The module is imported here, so that a broken package is a finding. Other output to standard output, by any library,
    goes to stderr.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def write(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        try:
            look: Callable[..., Iterator[Finding]] = importlib.import_module(module).findings
            for finding in look(lambda doing: write(doing=doing), *arguments):
                write(finding=asdict(finding))
        except BaseException as error:
            write(finding=asdict(unexpected(subject, error)))
        write(complete=True)
        os._exit(0)  # a normal exit would wait for a thread that hangs in a native call


if __name__ == "__main__":
    main(*sys.argv[1:])
