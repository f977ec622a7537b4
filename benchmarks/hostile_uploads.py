"""Measures the time and memory of `decode` for every hostile upload of tests/support/hostile_audio.py.

    .venv/bin/python benchmarks/hostile_uploads.py [--json]

Each upload is decoded in a fork of a process that has decoded ordinary files, so the figures do not include the
loading of libraries. Memory is the growth of the peak resident size without the upload itself. `cpu_s` is the CPU time
of the process, `wall_s` includes the time it waits for a core.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "tests")]

import av  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from support.audio_files import KINDS, encode, tone, wav  # noqa: E402
from support.hostile_audio import HOSTILE  # noqa: E402

from mirrorchat.audio.decoding import decode  # noqa: E402
from mirrorchat.errors import MirrorChatError  # noqa: E402

Row = dict[str, str | float]
LIMIT_S = 60.0


def in_fork(work: Callable[[], Row]) -> Row:
    """Return the result of `work` in a forked process, or the exit status of a process that dies."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    row: Row = json.loads(answer) if answer else {"outcome": f"died, status {status}"}
    return row


def build(name: str, path: Path) -> Row:
    return {"size_mb": round(path.write_bytes(HOSTILE[name]()) / 1e6, 3)}


def usage() -> tuple[float, float, float]:
    """Return CPU seconds, wall seconds and the peak resident size in MB (the kernel counts in units of 1024)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter(), used.ru_maxrss * 1024 / 1e6


def measure(path: Path) -> Row:
    data = path.read_bytes()
    cpu_s, wall_s, memory_mb = usage()
    outcome = attempt(data)
    cpu_after_s, wall_after_s, memory_after_mb = usage()
    return {
        "outcome": outcome,
        "cpu_s": round(cpu_after_s - cpu_s, 3),
        "wall_s": round(wall_after_s - wall_s, 3),
        "memory_mb": round(memory_after_mb - memory_mb, 1),
    }


def attempt(data: bytes) -> str:
    try:
        return f"{decode(data, limit_s=LIMIT_S).duration_s:.2f} s read"
    except MirrorChatError as error:
        return f"{type(error).__name__} ({error.status})"
    except Exception as error:  # this script looks for such errors
        return f"leaked {type(error).__name__}"


def warm_up() -> None:
    decode(wav(tone(440, 1.0, 96000), 96000), limit_s=LIMIT_S)
    for kind in ("mp3", "m4a aac", "webm opus", "flac"):
        decode(encode(tone(440, 1.0, KINDS[kind].sample_rate), KINDS[kind]), limit_s=LIMIT_S)


def hardware() -> dict[str, str | int | None]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.machine(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "av": av.__version__,
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "numpy": np.__version__,
    }


def measure_all() -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        for name in HOSTILE:
            size = in_fork(lambda name=name: build(name, path))  # type: ignore[misc]
            rows.append({"upload": name} | size | in_fork(lambda: measure(path)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    arguments = parser.parse_args()
    warm_up()
    rows = measure_all()
    print(f"{'upload':36} {'MB':>7} {'outcome':24} {'cpu s':>7} {'wall s':>7} {'extra MB':>8}")
    for row in rows:
        print(
            f"{row['upload']:36} {row.get('size_mb', 0):7} {row['outcome']:24} "
            f"{row.get('cpu_s', ''):>7} {row.get('wall_s', ''):>7} {row.get('memory_mb', ''):>8}"
        )
    print(versions(), hardware())
    if arguments.json:
        print(json.dumps({"versions": versions(), "hardware": hardware(), "limit_s": LIMIT_S, "rows": rows}))


if __name__ == "__main__":
    main()
