"""Processor time and memory of a process, as the kernel counts them."""

from pathlib import Path


def processor_s(pid: int) -> float:
    """Return the processor time of the running threads of a process, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory_mb(pid: int, name: str) -> float:
    """Return a figure of a process's memory: VmRSS is what it has, VmHWM the most that it has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024 / 1e6


def forget_peak(pid: int) -> None:
    """Let VmHWM begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
