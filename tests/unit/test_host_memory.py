"""Free memory of the host, from files like Linux's: without limits, and in nested control groups of both versions."""

import subprocess
import sys
from pathlib import Path

import pytest

from mirrorchat.hardware.host_memory import free_host_bytes, resident_bytes

GB = 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with the /proc of a host that has 8,000,000 kB available."""
    write(tmp_path / "proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\nSwapFree: 9 kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/app/web\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_the_available_memory_is_free(root: Path) -> None:
    assert free_host_bytes(root) == 8_000_000 * 1024


def test_a_groups_limit_minus_its_usage_without_page_cache_is_free(root: Path) -> None:
    group = root / "sys/fs/cgroup/app/web"
    write(group / "memory.max", f"{4 * GB}\n")
    write(group / "memory.current", f"{3 * GB}\n")
    assert free_host_bytes(root) == GB
    write(group / "memory.stat", f"anon {GB}\nactive_file {GB // 2}\ninactive_file {GB}\nslab 7\n")
    assert free_host_bytes(root) == 2 * GB + GB // 2


def test_the_tightest_of_the_groups_counts(root: Path) -> None:
    for group, limit in (("app/web", "max"), ("app", str(2 * GB)), ("", str(3 * GB))):
        write(root / "sys/fs/cgroup" / group / "memory.max", limit)
        write(root / "sys/fs/cgroup" / group / "memory.current", str(GB))
    assert free_host_bytes(root) == GB


def test_in_a_container_its_own_group_is_the_outermost(root: Path) -> None:
    write(root / "sys/fs/cgroup/memory.max", str(2 * GB))
    write(root / "sys/fs/cgroup/memory.current", str(GB // 2))
    assert free_host_bytes(root) == 2 * GB - GB // 2


def test_groups_of_version_1(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu,cpuacct:/\n4:memory:/docker/1\n0::/\n")
    group = root / "sys/fs/cgroup/memory/docker/1"
    write(group / "memory.limit_in_bytes", str(2 * GB))
    write(group / "memory.usage_in_bytes", str(2 * GB))
    write(group / "memory.stat", f"inactive_file 1\ntotal_inactive_file {GB}\ntotal_active_file 5\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2**63 - 4096))
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", str(9 * GB))
    assert free_host_bytes(root) == GB + 5


def test_a_group_over_its_limit_has_nothing_free(root: Path) -> None:
    write(root / "sys/fs/cgroup/app/web/memory.max", str(GB))
    write(root / "sys/fs/cgroup/app/web/memory.current", str(2 * GB))
    assert free_host_bytes(root) == 0


def test_this_host_states_its_memory(tmp_path: Path) -> None:
    assert free_host_bytes() > 0 and resident_bytes() > 10_000_000
    assert free_host_bytes(tmp_path) > 0 and resident_bytes(tmp_path) == 0  # without /proc


HEAPS_OF_THREADS = """
import ctypes, os, threading

from mirrorchat.hardware.host_memory import limit_malloc_arenas

if {limited}:
    limit_malloc_arenas()
together = threading.Barrier(8)
threads = [threading.Thread(target=together.wait) for _ in range(8)]
for thread in threads:
    thread.start()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


@pytest.mark.parametrize("limited", [True, False])
def test_threads_share_two_heaps(limited: bool) -> None:
    code = HEAPS_OF_THREADS.format(limited=limited)
    heaps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (heaps.count("<heap nr=") <= 2) is limited


GAPS = """
from mirrorchat.hardware.host_memory import resident_bytes, return_free_memory

kept = [bytearray(100_000) for _ in range(2_000)]
del kept[:-1]  # what is left stands behind all gaps
before = resident_bytes()
return_free_memory()
print(before - resident_bytes())
"""


def test_gaps_in_the_heap_are_given_back() -> None:
    assert int(subprocess.run([sys.executable, "-c", GAPS], capture_output=True, check=True).stdout) > 100_000_000
