"""A clone of the repository, in which tests run commands as a reader of the documents would."""

import copy
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from support.places import ROOT
from support.running_server import START_LIMIT_S, free_port

PORT = "9990"  # the documents'; the clone's server gets another, so that one which already runs is not in the way


class Clone:
    """The repository's files as git has them, with a home folder of their own and the environment of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mirrorchat"
        self.home = folder / "home"
        self.home.mkdir()
        self.port = free_port()
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        # The clone's scripts find everything installed and install nothing into the shared environment.
        subprocess.run([str(ROOT / "scripts" / "environment"), "small", "full", "test", "evaluate"], check=True)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("MIRRORCHAT_")}
        self.environ |= {"HOME": str(self.home), "MIRRORCHAT_PORT": str(self.port)}

    def with_home(self, home: Path) -> "Clone":
        """Return the clone as a user with the home folder `home` has it: what that user installs lies there alone."""
        other = copy.copy(self)
        home.mkdir()
        other.home = home
        other.environ = self.environ | {"HOME": str(home)}
        return other

    def text(self, block: str) -> str:
        """Return a block of a document with the port of the clone's server."""
        return block.replace(PORT, str(self.port))

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command of a document and return how it ended; stdout holds stderr, too."""
        return subprocess.run(
            ["bash", "-c", self.text(command)],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120,
        )  # fmt: skip

    @contextmanager
    def serving(self, command: str, *, models: bool = False) -> Iterator[str]:
        """Run a command that starts the server, and yield the server's address once it is ready.

        The small models are not fetched: tests/server/test_first_start.py shows how they are. `models`: they are there.
        """
        if not models:
            command = command.replace("scripts/serve", "scripts/serve --no-models")
        url = f"http://127.0.0.1:{self.port}"
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"], cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )
        try:
            limit = time.monotonic() + START_LIMIT_S
            while not _is_ready(url):
                assert process.poll() is None and time.monotonic() < limit, self.log
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8")


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
