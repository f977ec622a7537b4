"""What a server process holds, from its first moment to its last."""

import threading
from pathlib import Path

import pytest
from support.checks import wait_for

from mirrorchat.engines import Engines
from mirrorchat.errors import NotReady
from mirrorchat.server import runtime as server_runtime
from mirrorchat.server.runtime import LOADER, Runtime
from mirrorchat.settings import Settings
from mirrorchat.startup.loading import build_engines


def children() -> set[str]:
    """Return the process ids of the children of this process that run an engine."""
    lines = [each.read_text().split() for each in Path("/proc/self/task").glob("*/children")]
    found = {pid for line in lines for pid in line}
    programs = {pid: Path(f"/proc/{pid}/cmdline") for pid in found}
    return {
        pid for pid, line in programs.items() if line.exists() and b"mirrorchat.embedded.workers" in line.read_bytes()
    }


def is_loading() -> bool:
    return any(thread.name == LOADER for thread in threading.enumerate())


def test_engines_that_are_loaded_after_the_end_are_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    loaded: list[Engines] = []  # held here, so that nothing but close() ends their children

    def build(settings: Settings) -> Engines:
        loaded.append(build_engines(settings))
        return loaded[-1]

    monkeypatch.setattr(server_runtime, "build_engines", build)
    runtime = Runtime(Settings(models_dir=tmp_path))
    runtime.close()
    wait_for(lambda: not is_loading(), 60)
    assert loaded
    wait_for(lambda: children() <= before)
    assert not runtime.wait_until_loaded(0)
    with pytest.raises(NotReady):
        _ = runtime.pipeline
