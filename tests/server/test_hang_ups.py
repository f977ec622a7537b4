"""Callers who hang up at every stage leave nothing behind: no turn, thread, file, process, connection or memory."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.chat_server import ChatServer
from support.checks import wait_for
from support.hang_ups import PLACES, QUESTION, TURNS_A_ROUND, Rounds, StageChat
from support.running_server import RunningServer, conf_that_admits_all
from support.scraping import scrape
from support.speech import say_wav

MORE_MEMORY_MB = 8.0  # a hundred turns add 1.5 to 2.5, some of it caches; a question kept of each adds over 20
LIMIT_S = 60.0  # for threads that close connections
GONE = "mirrorchat_requests_total{outcome=client_gone,route=process_audio}"
IDLE = ("mirrorchat_turns_", "mirrorchat_queue_depth", "mirrorchat_batch_occupancy", "mirrorchat_batch_waiting")

# Run in the worker on SIGUSR2. Memory is what is allocated: the resident part has freed pages too, and varies by tens
# of megabytes. The threads of the two pools are not counted: one comes when all others are busy, up to a limit.
TIDY = """
_begin = post_worker_init


def post_worker_init(worker):
    import ctypes, gc, os, signal, threading

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    fields = [(name, ctypes.c_size_t) for name in names.split()]
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": fields})

    def allocated_bytes():
        seen = mallinfo()
        return seen.hblkhd + seen.uordblks

    def tidy(signum, frame):
        gc.collect()
        pools = [t for t in threading.enumerate() if t.name.startswith(("turn_", "ThreadPoolExecutor-"))]
        python = threading.enumerate()
        native = len(os.listdir("/proc/self/task")) - len(python)  # a library may have one for each thread of the pools
        threads = len(python) - len(pools) + max(0, native - len(pools))
        os.write(2, b"tidied threads=%d used=%d\\n" % (threads, allocated_bytes()))

    _begin(worker)
    signal.signal(signal.SIGUSR2, tidy)
"""


@dataclass(frozen=True)
class Remains:
    """What an idle server holds: its worker's threads outside the pools and open files, its processes, memory in MB."""

    threads: int
    files: int
    processes: Counter[str]
    memory_mb: float


class HungUpOn:
    """A server, and its chat API, that callers hang up on."""

    def __init__(self, server: RunningServer, chat: StageChat) -> None:
        self.server, self.chat = server, chat
        self.rounds = Rounds(server, chat)

    def remains(self, before: Remains | None = None) -> Remains:
        """Wait until the server is idle, answer one more caller, and return what is left after that.

        Connections and the threads that close them end a moment later: wait for no more than `before`, if it is given.
        """
        wait_for(self._is_idle)
        response = self.server.ask(say_wav(QUESTION), "english")  # hearing and speech have their processes again
        assert response.status_code == 200, response.text
        wait_for(self._is_idle)
        found, limit = self._found(), time.monotonic() + LIMIT_S
        while before is not None and time.monotonic() < limit:
            if found.threads <= before.threads and found.files <= before.files:
                break
            time.sleep(0.1)
            found = self._found()
        return found

    def _found(self) -> Remains:
        told = self._tidied()
        return Remains(
            threads=told["threads"],
            files=len(os.listdir(f"/proc/{self.server.worker_pid}/fd")),
            processes=processes_of(self.server),
            memory_mb=told["used"] / 1e6,
        )

    def _tidied(self) -> dict[str, int]:
        """Let the worker collect its garbage, and return what it then says of itself."""
        before = self.server.log.count("tidied")
        os.kill(self.server.worker_pid, signal.SIGUSR2)
        wait_for(lambda: self.server.log.count("tidied") > before)
        said = self.server.log.rpartition("tidied ")[2].splitlines()[0]
        return {name: int(value) for name, value in (pair.split("=") for pair in said.split())}

    def gone(self) -> float:
        """Return how many callers hung up on a turn."""
        return scrape(self.server.url).get(GONE, 0.0)

    def _is_idle(self) -> bool:
        seen = scrape(self.server.url)
        allowed = seen.pop("mirrorchat_turns_allowed")
        busy = [name for name, value in seen.items() if name.startswith(IDLE) and value]
        return allowed == PLACES and not busy and self.chat.open == 0


def processes_of(server: RunningServer) -> Counter[str]:
    """Return the command lines of all processes that were started with the server's configuration, orphans too."""
    mark = f"MIRRORCHAT_CONFIG={server.config}".encode()
    found: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found[(process / "cmdline").read_text().replace("\0", " ")] += 1
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found


@contextmanager
def hung_up_on(folder: Path) -> Iterator[HungUpOn]:
    conf, stages = conf_that_admits_all(folder), StageChat()
    conf.write_text(conf.read_text(encoding="utf-8") + TIDY, encoding="utf-8")
    with (
        ChatServer(stages.behave) as chat,
        RunningServer(
            folder, gunicorn_conf=conf, max_turns=PLACES, max_sessions=40, chatgpt_apis=[chat.api(timeout_s=60)]
        ) as server,
    ):
        yield HungUpOn(server, stages)


def check_nothing_more(after: Remains, before: Remains) -> None:
    """Assert that an idle server holds what it held before, but for what is allowed above."""
    assert after.files <= before.files
    assert after.processes == before.processes
    assert after.threads <= before.threads


@pytest.fixture(autouse=True)
def steady_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep OpenMP's threads out of the figures: each thread of the pools that looks for speech has some of its own."""
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")


def hang_up(scene: HungUpOn, *, warm_up: int, rounds: int) -> tuple[Remains, Remains]:
    """Warm up, run `rounds` and as many again; check that each leaves no more than was there; return the last two."""
    scene.rounds.run(warm_up)
    before = scene.remains()
    scene.rounds.run(rounds)
    between = scene.remains(before)
    check_nothing_more(between, before)
    scene.rounds.run(rounds)
    after = scene.remains(before)
    check_nothing_more(after, before)
    turns = (warm_up + 2 * rounds) * (TURNS_A_ROUND - 1)  # who hangs up in the body has no turn yet
    assert scene.gone() == turns, "some were answered before they hung up"
    return between, after


def test_two_hundred_hang_ups_leave_nothing(tmp_path: Path) -> None:
    with hung_up_on(tmp_path) as scene:
        between, after = hang_up(scene, warm_up=1, rounds=6)
    assert after.memory_mb <= between.memory_mb + MORE_MEMORY_MB


def test_hang_ups_leave_no_sentence_in_the_batch(tmp_path: Path) -> None:
    pytest.importorskip("mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed")
    from make_tiny_xtts import make_checkpoint

    make_checkpoint(tmp_path / "models" / "xtts-v2")
    with hung_up_on(tmp_path) as scene:
        hang_up(scene, warm_up=1, rounds=2)
        assert scrape(scene.server.url)["mirrorchat_tokens_total{engine=xtts}"] > 0
