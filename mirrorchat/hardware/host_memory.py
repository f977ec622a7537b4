"""Host memory: what Linux counts as available, within the limits of control groups; and how much malloc keeps.

In a container or a systemd unit with a limit, /proc/meminfo describes the whole host. The available memory is then the
group's limit minus its usage. The page cache counts as free: the system reclaims it when memory is short.
"""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GROUPS = "sys/fs/cgroup"
MALLOC_ARENAS = 2
UNLIMITED = 1 << 60  # cgroups version 1 state a number near 2**63
_M_ARENA_MAX = -8  # of glibc's malloc.h


def free_host_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still allocate, by the files under `root` (proc/ and sys/fs/cgroup/)."""
    return max(0, min([_available(root), *_left_in_groups(root)]))


def resident_bytes(root: Path = Path("/")) -> int:
    """Return the resident memory of this process in bytes, 0 if the system does not state it."""
    return _field(root / "proc/self/status", "VmRSS:") or 0


def limit_malloc_arenas() -> None:
    """Let all threads share two heaps, before they start.

    glibc gives dozens of threads up to eight heaps for each core, and each keeps the most that it ever needed.
    """
    if mallopt := _libc("mallopt"):
        mallopt(_M_ARENA_MAX, MALLOC_ARENAS)


def return_free_memory() -> None:
    """Give the memory that malloc keeps between allocations in use back to the system; it takes milliseconds."""
    if malloc_trim := _libc("malloc_trim"):
        malloc_trim(ctypes.c_size_t(0))


def _libc(name: str) -> Any:
    """Return a function of glibc; None with musl."""
    return getattr(ctypes.CDLL(None), name, None)


def _available(root: Path) -> int:
    available = _field(root / "proc/meminfo", "MemAvailable:")
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if available is None else available


def _field(path: Path, name: str) -> int | None:
    """Return the number of a line `name: N kB` in bytes, None if the file at `path` has no such line."""
    lines = [line.split() for line in _text(path).splitlines()]
    return next((int(line[1]) * 1024 for line in lines if len(line) == 3 and line[0] == name), None)


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield the bytes that are left in each control group of this process that has a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            yield from _left(root / GROUPS, group, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            yield from _left(root / GROUPS / "memory", group, *names)


def _left(mount: Path, group: str, limit_name: str, usage_name: str, prefix: str) -> Iterator[int]:
    """Yield the bytes that are left in `group` and in each parent that has a limit and that a container shows."""
    leaf = mount / group.lstrip("/")
    for folder in (leaf, *leaf.parents):
        limit, usage = (_text(folder / name).strip() for name in (limit_name, usage_name))
        if limit.isdecimal() and usage.isdecimal() and int(limit) < UNLIMITED:
            yield int(limit) - int(usage) + _page_cache_bytes(folder, prefix)
        if folder == mount:
            return


def _page_cache_bytes(folder: Path, prefix: str) -> int:
    """Return the part of a group's usage that is page cache."""
    lines = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
    return sum(int(lines.get(f"{prefix}{kind}", 0)) for kind in ("inactive_file", "active_file"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
