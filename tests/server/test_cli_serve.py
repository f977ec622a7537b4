"""`mirrorchat serve`: the server that it starts, and what it says when it cannot."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from support.command_line import command, environment
from support.places import ROOT
from support.running_server import START_LIMIT_S, free_port

from mirrorchat.cli.main import cli


def test_it_serves_from_any_folder_and_starts_anew_when_the_code_changes(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "own.py").write_text(f"models_dir = {str(tmp_path)!r}\nthreads = 1\nport = 1\n")
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command("serve", "--config", "own.py", "--port", str(port), "--reload"),
            cwd=tmp_path, env=environment(tmp_path), stdout=file, stderr=file,
        )  # fmt: skip

    def wait_for(text: str) -> None:
        limit = time.monotonic() + START_LIMIT_S
        while not re.search(text, log.read_text()):
            assert time.monotonic() < limit and process.poll() is None, log.read_text()
            time.sleep(0.1)

    try:
        wait_for("ready after")
        assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json()["status"] == "ready"
        os.utime(ROOT / "mirrorchat" / "__init__.py")
        wait_for(r"Worker reloading.*/mirrorchat/__init__\.py")
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "host 0.0.0.0 lets other computers call: set api_keys"),
        (["--config", "/no/such/config.py"], "/no/such/config.py cannot be read"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIRRORCHAT_CONFIG", raising=False)
    result = CliRunner().invoke(cli, ["serve", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"mirrorchat: {said}") and result.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(cli, ["serve", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1 and "Address already in use" in result.stderr and "--port" in result.stderr


def test_deploy_has_the_settings_of_the_package() -> None:
    text = (ROOT / "deploy" / "gunicorn.conf.py").read_text(encoding="utf-8")
    found: dict[str, object] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), found)
    assert found["wsgi_app"] == "mirrorchat.app:create_app()" and callable(found["post_worker_init"])
