"""How much memory this machine can still give: what Linux counts as available, within the limits of control groups.

In a container or a systemd unit with a limit, /proc/meminfo tells of the whole machine; what counts then is the group's
limit less what the group uses. Pages of files count as free: the system takes them back when memory is short.
"""

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = "sys/fs/cgroup"
UNLIMITED = 1 << 60  # version 1 says so with a number near 2**63


def free_host_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that processes can still take, by the files under `root` (proc/ and sys/fs/cgroup/)."""
    return max(0, min([_available(root), *_left_in_groups(root)]))


def resident_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that this process holds in memory now; 0 where the system does not say."""
    return _field(root / "proc/self/status", "VmRSS:") or 0


def _available(root: Path) -> int:
    available = _field(root / "proc/meminfo", "MemAvailable:")
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if available is None else available


def _field(path: Path, name: str) -> int | None:
    """Return a line `name: N kB` of a file of /proc in bytes, or None where there is none."""
    lines = [line.split() for line in _text(path).splitlines()]
    return next((int(line[1]) * 1024 for line in lines if len(line) == 3 and line[0] == name), None)


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what is left in each group that this process is in, up to the outermost, where that has a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            yield from _left(root / GROUPS, group, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            yield from _left(root / GROUPS / "memory", group, *names)


def _left(mount: Path, group: str, limit_name: str, usage_name: str, prefix: str) -> Iterator[int]:
    """Yield what is left in `group` and in each of its parents. Those that a container does not show are not there."""
    place = mount / group.lstrip("/")
    for folder in (place, *place.parents):
        limit, usage = (_text(folder / name).strip() for name in (limit_name, usage_name))
        if limit.isdecimal() and usage.isdecimal() and int(limit) < UNLIMITED:
            yield int(limit) - int(usage) + _file_pages(folder, prefix)
        if folder == mount:
            return


def _file_pages(folder: Path, prefix: str) -> int:
    """Return the bytes of a group's usage that are pages of files."""
    lines = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
    return sum(int(lines.get(f"{prefix}{kind}", 0)) for kind in ("inactive_file", "active_file"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
