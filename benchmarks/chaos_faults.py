"""The faults of benchmarks/chaos.py, each a function that returns when the fault is over."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from support.chat_server import ChatServer, answer
from support.nginx import NGINX, Nginx
from support.running_server import RunningServer

from benchmarks.turn_server import descendants

REPLY = "A little every day is the best way. Speak aloud from the first week."
DISK_MB, HOME_MB = 8, 1
KILLS, BETWEEN_KILLS_S = 3, 5.0  # what one of them broke has been tried again before the next


class Mounted:
    """A small file system of its own at `folder`; an ordinary folder where it may not be mounted."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = self._mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs")

    def fill(self) -> None:
        """Fill it with a file, to the last byte."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        self._filler.unlink()

    def make(self, mode: str) -> None:
        """Make it "ro", which nothing can be written to, or "rw" again."""
        assert self._mount("-o", f"remount,{mode}")

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=False, capture_output=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def _mount(self, *arguments: str) -> bool:
        command = ["mount", *arguments, str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@dataclass
class Scene:
    """A server behind nginx, where that is installed, and what it needs: a chat API, a disk, a home folder."""

    server: RunningServer
    url: str
    chat: ChatServer
    disk: Mounted
    home: Mounted


class OpenScene:
    """Starts the scene in `folder` and ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._open = folder, ExitStack()

    def __enter__(self) -> Scene:
        disk, home = Mounted(self._folder / "disk", DISK_MB), Mounted(self._folder / "home", HOME_MB)
        self._open.callback(disk.close)
        self._open.callback(home.close)
        chat = ChatServer(answer(REPLY)).__enter__()
        environ = {"HOME": str(home.folder), "TMPDIR": str(disk.folder)}
        server = RunningServer(disk.folder, environ=environ, chatgpt_apis=[chat.api()], chat_cooldown_s=0.0)
        self._open.enter_context(server)
        url = self._open.enter_context(Nginx(disk.folder, server.port)).url if NGINX else server.url
        self._scene = Scene(server, url, chat, disk, home)
        return self._scene

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()
        self._scene.chat.__exit__(None, None, None)


def processes(scene: Scene, module: str) -> list[int]:
    """Return the worker processes that run `module`."""
    found = []
    for pid in descendants(scene.server.worker_pid):
        with contextlib.suppress(OSError):
            if module in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


Fault = Callable[[Scene], None]


def nothing(scene: Scene) -> None:
    time.sleep(10.0)


def killed(module: str) -> Fault:
    def fault(scene: Scene) -> None:
        for _ in range(KILLS):
            send(processes(scene, module), signal.SIGKILL)
            time.sleep(BETWEEN_KILLS_S)

    return fault


def stopped(module: str, seconds: float) -> Fault:
    def fault(scene: Scene) -> None:
        pids = processes(scene, module)
        send(pids, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            send(pids, signal.SIGCONT)

    return fault


def chat_killed(scene: Scene) -> None:
    port = scene.chat.port
    scene.chat.__exit__(None, None, None)
    try:
        time.sleep(10.0)
    finally:
        scene.chat = ChatServer(answer(REPLY), port=port).__enter__()


def gunicorn_worker_killed(scene: Scene) -> None:
    send([scene.server.worker_pid], signal.SIGKILL)


def disk_full(scene: Scene) -> None:
    scene.disk.fill()
    scene.home.fill()
    try:
        time.sleep(15.0)
    finally:
        scene.disk.empty()
        scene.home.empty()


def home_read_only(scene: Scene) -> None:
    scene.home.make("ro")
    try:
        time.sleep(15.0)
    finally:
        scene.home.make("rw")


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "eSpeak NG's process killed 3 times": killed("espeak_worker"),
    "pocketsphinx's process killed 3 times": killed("pocketsphinx_worker"),
    "eSpeak NG's process stopped for 20 s": stopped("espeak_worker", 20.0),
    "pocketsphinx's process stopped for 20 s": stopped("pocketsphinx_worker", 20.0),
    "the chat API gone for 10 s": chat_killed,
    "gunicorn's worker killed": gunicorn_worker_killed,
    "the disk full for 15 s": disk_full,
    "HOME read-only for 15 s": home_read_only,
}
NEED_MOUNTS = ("the disk full for 15 s", "HOME read-only for 15 s")
