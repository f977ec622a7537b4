"""MirrorChat as its users run it: a real gunicorn on a free port, with a configuration file of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from support.places import ROOT

GUNICORN_CONF = ROOT / "mirrorchat" / "server" / "gunicorn_conf.py"  # what deploy/gunicorn.conf.py takes all from
START_LIMIT_S = 90.0


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def changed_conf(folder: Path, old: str, new: str) -> Path:
    """Return a copy of mirrorchat/server/gunicorn_conf.py that says `new` instead of `old`."""
    text = GUNICORN_CONF.read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / "gunicorn.conf.py").write_text(text.replace(old, new), encoding="utf-8")
    return folder / "gunicorn.conf.py"


UNLUCKY = "unlucky"  # with FAILING_SENTENCES a sentence with this word meets a defect
FAILING_SENTENCES = f"""\
import mirrorchat.embedded.engines

normalize = mirrorchat.embedded.engines.normalize_text


def failing(text, language):
    return failing(text, language) if "{UNLUCKY}" in text else normalize(text, language)


mirrorchat.embedded.engines.normalize_text = failing
"""  # for a gunicorn.conf.py


def conf_that_admits_all(folder: Path) -> Path:
    """Return a gunicorn.conf.py with which `max_turns` callers are answered at once, however slowly they are spoken to.

    It has FAILING_SENTENCES, too.
    Otherwise a busy test machine would decide how many, and which sentences are buffer_low: then one that goes wrong is
    not drawn again.
    """
    settings = "mirrorchat.turn.playback.NEEDED_RATE = 0.0\nmirrorchat.turn.answer.LOW_BUFFER_S = 0.0"
    imports = "import mirrorchat.turn.answer\nimport mirrorchat.turn.playback"
    change = f"{FAILING_SENTENCES}\n{imports}\n\n{settings}\nbind = "
    return changed_conf(folder, "bind = ", change)


def ask(url: str, audio: bytes, language: str, **fields: str) -> requests.Response:
    """Post `audio` to the server at `url`, and return the response."""
    return requests.post(
        f"{url}/process_audio",
        files={"audio": ("question.wav", audio)},
        data={"language": language} | fields,
        timeout=90,
    )


def ask_when_free(url: str, audio: bytes, language: str, **fields: str) -> requests.Response:
    """Post `audio` again while all places are taken: helpers of a turn that just ended hold theirs a moment longer."""
    limit = time.monotonic() + 60.0
    while True:
        response = ask(url, audio, language, **fields)
        if response.status_code != 503 or time.monotonic() > limit:
            return response
        time.sleep(0.05)


class RunningServer:
    """A server started in `folder` (for its configuration, models and log) and stopped at the end of the block.

    `settings` are those of config.py; models_dir is an empty folder unless given, and eSpeak NG speaks unless XTTS is
    there or a synthesizer is given. `wait` until /readyz answers 200.
    `environ` is added to the environment of the tests.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wait: bool = True,
        gunicorn_conf: Path = GUNICORN_CONF,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._environ = dict(environ or {})
        self._gunicorn_conf = gunicorn_conf
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._wait = wait
        models = folder / "models"
        models.mkdir(exist_ok=True)
        values: dict[str, Any] = {"models_dir": str(models), "port": self.port, "threads": 1} | settings
        if not (Path(values["models_dir"]) / "xtts-v2").exists():
            values.setdefault("synthesizer", "embedded")  # it starts sooner than hibari
        self.config = folder / "config.py"
        self.config.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()), encoding="utf-8")
        self._log = folder / "server.log"

    def __enter__(self) -> "RunningServer":
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MIRRORCHAT_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environ | self._environ | {"MIRRORCHAT_CONFIG": str(self.config)},
                stdout=log,
                stderr=log,
            )
        if self._wait:
            self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        finally:
            self.process.kill()
            self.process.wait()

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "gunicorn", "--config", str(self._gunicorn_conf)]

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def worker_pid(self) -> int:
        """Return the process id of gunicorn's one worker."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def wait_until_ready(self) -> None:
        """Wait until /readyz answers 200. Raises AssertionError with the log when the server ends or takes too long."""
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            assert self.process.poll() is None, f"the server ended:\n{self.log}"
            try:
                if requests.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except (requests.ConnectionError, requests.Timeout):  # a busy machine's server may be slow while it loads
                pass
            time.sleep(0.1)
        raise AssertionError(f"the server was not ready within {START_LIMIT_S} s:\n{self.log}")

    def ask(self, audio: bytes, language: str, **fields: str) -> requests.Response:
        """Post `audio` as a caller does, and return the response."""
        return ask(self.url, audio, language, **fields)

    def ask_json(self, audio: bytes, language: str, **fields: str) -> Any:
        """Post `audio`, ask for JSON, and return it. Raises AssertionError for any status but 200."""
        response = requests.post(
            f"{self.url}/process_audio",
            files={"audio": ("question.wav", audio)},
            data={"language": language} | fields,
            headers={"Accept": "application/json"},
            timeout=90,
        )
        assert response.status_code == 200, response.text
        return response.json()
