"""The line that says how to use the Ollama on this machine, with a real server in its place."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.ollama import OllamaServer

from mirrorchat.chat.ollama import HOST_VARIABLE, LIMIT_S, ollama_advice
from mirrorchat.settings import ChatApi, Settings


def advice(port: int, host: str = "127.0.0.1", settings: Settings | None = None) -> str:
    return ollama_advice(settings or Settings(), {HOST_VARIABLE: f"{host}:{port}"})


def test_the_line_names_the_first_model_that_can_chat() -> None:
    with OllamaServer("nomic-embed-text:latest", "qwen2.5:7b", "llama3.2:latest") as server:
        said = advice(server.port)
        assert server.asked == ["GET /api/tags"]
    assert (
        f"`MIRRORCHAT_CHAT_URL=http://127.0.0.1:{server.port} MIRRORCHAT_CHAT_MODEL=qwen2.5:7b scripts/serve`" in said
    )
    assert "\n" not in said


def test_without_a_model_it_says_how_to_get_one() -> None:
    with OllamaServer() as server:
        assert "`ollama pull qwen2.5`, then `MIRRORCHAT_CHAT_URL=" in advice(server.port)
    with OllamaServer("bge-m3:latest", family="bert") as server:
        assert "`ollama pull qwen2.5`" in advice(server.port)


@pytest.mark.parametrize(
    "settings", [Settings(chatgpt_apis=(ChatApi("http://192.0.2.1/v1"),)), Settings(chat_source="chatgpt_apis")]
)
def test_where_something_is_set_nobody_is_asked(settings: Settings) -> None:
    with OllamaServer("qwen2.5:7b") as server:
        assert advice(server.port, settings=settings) == ""
        assert server.asked == []


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "http://127.0.0.1", ""])
def test_its_own_variable_says_where_it_listens(host: str) -> None:
    with OllamaServer("qwen2.5:7b") as server:
        assert f"http://127.0.0.1:{server.port} " in advice(server.port, host)


@pytest.mark.parametrize("host", ["192.0.2.1", "ollama.example", "http://[::"])
def test_another_machine_is_not_asked(host: str) -> None:
    """Its port is that of a server on this machine: whoever ignored the host would find it."""
    with OllamaServer("qwen2.5:7b") as server:
        advice(server.port, host)
        assert server.asked == []


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with OllamaServer("qwen2.5:7b") as server:
        assert advice(server.port)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert advice(port) == ""


@contextmanager
def answering(write: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a server for one connection, which `write` gets. Return its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.recv(65_536)
                    write(connection)
                except OSError:  # the client has left
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join(10)


def whole(body: Any, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n\r\n{json.dumps(body)}".encode()


@pytest.mark.parametrize(
    "answer",
    [
        whole({"models": [{"name": "qwen2.5:7b"}]}, "404 Not Found"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n\xff",
        *map(whole, ([], {}, {"models": None}, {"models": ["a"]}, {"models": [{}]}, {"models": [{"name": 5}]}, "x", 1)),
        whole({"models": [{"name": "qwen2.5:7b", "details": "x"}]}),
    ],
)
def test_another_server_is_no_ollama(answer: bytes) -> None:
    with answering(lambda connection: connection.sendall(answer)) as port:
        assert advice(port) == ""


@pytest.mark.parametrize("name", ["a`id`", "a;reboot", "$(id)", "a b", "", "-rf", "名字", "a\nb", "x" * 300])
def test_a_name_that_a_shell_would_read_is_never_shown(name: str) -> None:
    with OllamaServer(name, "qwen2.5:7b") as server:
        assert "MIRRORCHAT_CHAT_MODEL=qwen2.5:7b scripts/serve`" in advice(server.port)


def test_a_slow_server_is_not_waited_for() -> None:
    def drip(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    with answering(drip) as port:
        started = time.monotonic()
        assert advice(port) == ""
        assert time.monotonic() - started < LIMIT_S + 1.0  # 0.3 s on an idle machine


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 1_000_000)

    with answering(pour) as port:
        assert advice(port) == ""
