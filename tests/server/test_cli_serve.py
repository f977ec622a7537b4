"""`mirrorchat serve`: the server that it starts, and what it says when it cannot."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from support.chat_server import ChatServer, answer
from support.command_line import command, environment
from support.ollama import OllamaServer
from support.places import QUESTION, ROOT
from support.running_server import GUNICORN_CONF, START_LIMIT_S, RunningServer, free_port

from mirrorchat.chat.ollama import HOST_VARIABLE
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


def test_the_usual_case_needs_no_file(tmp_path: Path) -> None:
    """A chat API in the environment answers; the start, `/engines` and the header name its host and no secret."""
    key = "sk-secret-0123456789"
    with ChatServer(answer("Blue, mostly.")) as api:
        url = f"http://user:pa55word@127.0.0.1:{api.port}?token=quer7"
        environ = {"MIRRORCHAT_CHAT_URL": url, "MIRRORCHAT_CHAT_KEY": key, "MIRRORCHAT_CHAT_MODEL": "tiny"}
        with RunningServer(tmp_path, environ=environ) as server:
            response = server.ask(QUESTION.read_bytes(), "english", text="What colour is the sky?")
            engine = requests.get(f"{server.url}/engines", timeout=5).json()["engines"]["chat"]
        assert response.status_code == 200 and response.headers["X-MirrorChat-Reply"] == "Blue%2C%20mostly."
        assert [request.path for request in api.requests] == ["/v1/chat/completions?token=quer7"]
        named = f"tiny@127.0.0.1:{api.port}"
    assert (engine["model"], engine["reason"]) == (named, "MIRRORCHAT_CHAT_URL is set")
    assert re.search(rf"chat +chat/{named} on \w+: MIRRORCHAT_CHAT_URL is set", server.log)
    for shown in (server.log, str(engine), str(response.headers)):
        assert not [secret for secret in (key, "pa55word", "quer7") if secret in shown]


def test_an_empty_list_keeps_the_parrot(tmp_path: Path) -> None:
    with OllamaServer("qwen2.5:7b") as ollama:
        environ = {"OPENAI_API_KEY": "sk-secret", HOST_VARIABLE: f"127.0.0.1:{ollama.port}"}
        with RunningServer(tmp_path, environ=environ, chatgpt_apis=[]) as server:
            engine = requests.get(f"{server.url}/engines", timeout=5).json()["engines"]["chat"]
        assert ollama.asked == []
    assert (engine["name"], engine["reason"]) == ("parrot", "chatgpt_apis is empty")


def test_where_nothing_is_set_the_start_says_how_to_use_the_ollama_that_runs(tmp_path: Path) -> None:
    with OllamaServer("qwen2.5:7b") as ollama:
        with RunningServer(tmp_path, environ={HOST_VARIABLE: f"127.0.0.1:{ollama.port}"}) as server:
            response = server.ask(QUESTION.read_bytes(), "english", text="Hello there.")
            assert "chat=parrot" in response.headers["X-MirrorChat-Engines"]
        assert ollama.asked == ["GET /api/tags"]
    line = f"MIRRORCHAT_CHAT_URL=http://127.0.0.1:{ollama.port} MIRRORCHAT_CHAT_MODEL=qwen2.5:7b scripts/serve"
    assert f"an Ollama runs on this machine; to use it: `{line}`\n" in server.log
    assert "no chat API is set: set OPENAI_API_KEY" in server.log


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


def test_a_bad_variable_keeps_it_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.py").touch()
    monkeypatch.setenv("MIRRORCHAT_CHAT_URL", "localhost:11434")
    result = CliRunner().invoke(cli, ["serve", "--config", str(tmp_path / "config.py")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mirrorchat: MIRRORCHAT_CHAT_URL must be a text that begins with http://")


def test_a_server_that_would_ask_itself_does_not_start(tmp_path: Path) -> None:
    port = free_port()
    environ = environment(tmp_path) | {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    said = f"mirrorchat: the chat API at 127.0.0.1:{port} is this server itself (OPENAI_API_KEY is set)\n"
    served = command("serve", "--port", str(port))
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_CONF)]
    for arguments, more in ((served, {}), (gunicorn, {"MIRRORCHAT_PORT": str(port)})):
        done = subprocess.run(
            arguments, cwd=ROOT, env=environ | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode != 0 and done.stdout == said


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(cli, ["serve", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1 and "Address already in use" in result.stderr and "--port" in result.stderr


def test_deploy_has_the_settings_of_the_package() -> None:
    text = (ROOT / "deploy" / "gunicorn.conf.py").read_text(encoding="utf-8")
    found: dict[str, object] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), found)
    assert found["wsgi_app"] == "mirrorchat.app:create_app()" and callable(found["post_worker_init"])
