"""What ends a streamed answer: callers who hang up or do not read, SIGTERM; and nginx in between."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
from support.chat_server import Behaviour, ChatServer, answer, hang_after
from support.checks import wait_for
from support.nginx import Nginx, needs_nginx
from support.running_server import RunningServer, ask_when_free, changed_conf
from support.speech import say, say_wav
from support.stream_client import Gate, Received, ask_streamed, broken_when_open, events_of, named, post_raw, read_until
from werkzeug.test import EnvironBuilder

from mirrorchat.app import create_app
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.settings import Settings

FIRST, SECOND = "The first sentence is here. ", "And here is the second one."
SENTENCE = "This is one of very many sentences, and nobody would ever listen to all of them. "
LONG = SENTENCE * 15  # about 70 s of speech
GONE = "status=200 outcome=client_gone"  # in a stream


@pytest.fixture(scope="module")
def running_chat() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture
def chat(running_chat: ChatServer) -> ChatServer:
    """Return a chat server that nobody has asked yet."""
    running_chat.requests.clear()
    return running_chat


@pytest.fixture(scope="module")
def server(running_chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    # Without signs of life, a hang-up is noticed by the watch of the connection and not by a write that fails.
    change = "import mirrorchat.turn.helper_threads\n\nmirrorchat.turn.helper_threads.KEEP_ALIVE_S = 600.0\nbind = "
    conf = changed_conf(tmp_path_factory.mktemp("conf"), "bind = ", change)
    folder, apis = tmp_path_factory.mktemp("server"), [running_chat.api()]
    with RunningServer(folder, gunicorn_conf=conf, max_turns=1, chat_cooldown_s=0.0, chatgpt_apis=apis) as running:
        yield running


class Gone:
    """Counts the callers that the server's log says have gone in a stream."""

    def __init__(self, server: RunningServer, mark: str = GONE) -> None:
        self._server, self._mark = server, mark
        self._before = server.log.count(mark)

    def wait(self) -> None:
        """Wait until one more has gone."""
        wait_for(lambda: self._server.log.count(self._mark) > self._before)


def assert_free(server: RunningServer, chat: ChatServer) -> None:
    """Wait until the one slot is free, which an answer to somebody else shows."""
    chat.behaviour = answer("Here I am.")
    assert ask_when_free(server.url, say_wav("yes"), "english", text="Hi").status_code == 200


def long_question() -> bytes:
    """Return 30 s of speech: its recognition takes a while."""
    speech = say("What is the best way to learn a language, and how long does it take?")
    return encode_wav(Audio(np.tile(speech.samples, 8), speech.sample_rate))


STAGES: dict[str, tuple[Behaviour, bytes]] = {
    "chat": (hang_after("The first words"), b"event: text"),
    "speech": (answer(LONG), b"event: audio"),
    "between sentences": (hang_after(FIRST + "And"), b"event: audio"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_hang_up_frees_the_slot_and_the_chat(server: RunningServer, chat: ChatServer, stage: str) -> None:
    chat.behaviour, mark = STAGES[stage]
    gone = Gone(server)
    with post_raw(server.port, say_wav("yes"), language="en", text="Hi", stream="1", response_format="sse") as client:
        read_until(client, mark)
    if stage != "speech":
        assert chat.requests[0].closed_early.wait(30)
    gone.wait()
    assert_free(server, chat)


def test_a_hang_up_in_recognition_asks_no_chat(server: RunningServer, chat: ChatServer) -> None:
    gone = Gone(server)
    with post_raw(server.port, long_question(), language="en", stream="1", response_format="sse") as client:
        read_until(client, b": MirrorChat")
    gone.wait()
    assert not chat.requests
    assert_free(server, chat)


@pytest.mark.parametrize("heard", [False, True])
def test_a_hang_up_in_audio_frees_the_slot_and_the_chat(server: RunningServer, chat: ChatServer, heard: bool) -> None:
    chat.behaviour = hang_after(FIRST + "And" if heard else "The first words")
    gone = Gone(server, GONE if heard else "status=499 ")
    with post_raw(server.port, say_wav("yes"), language="en", text="Hi", stream="1") as client:
        if heard:
            read_until(client, b"RIFF")
        else:
            wait_for(lambda: bool(chat.requests))
    assert chat.requests[0].closed_early.wait(30)
    gone.wait()
    assert_free(server, chat)


def test_hang_ups_leave_no_thread(server: RunningServer, chat: ChatServer) -> None:
    def hang_up() -> None:
        chat.behaviour = hang_after(FIRST + "And")
        gone = Gone(server)
        with post_raw(
            server.port, say_wav("yes"), language="en", text="Hi", stream="1", response_format="sse"
        ) as client:
            read_until(client, b"event: audio")
        gone.wait()

    def threads() -> int:
        return len(os.listdir(f"/proc/{server.worker_pid}/task"))

    hang_up()
    before, times = threads(), 30
    for _ in range(times):
        hang_up()
    wait_for(lambda: threads() < before + times)  # the pool of helpers may still grow, to 20 for this one slot
    assert_free(server, chat)


def test_a_caller_who_does_not_read_holds_no_slot_and_is_disconnected(chat: ChatServer, tmp_path: Path) -> None:
    change = "import mirrorchat.server.timed_socket\n\nmirrorchat.server.timed_socket.SEND_DEADLINE_S = 6.0\nbind = "
    conf = changed_conf(tmp_path, "bind = ", change)
    with RunningServer(tmp_path, max_turns=1, gunicorn_conf=conf, chatgpt_apis=[chat.api()]) as server:
        chat.behaviour = answer(LONG)
        fields = {"language": "en", "text": "Hi", "stream": "1", "response_format": "sse"}
        with post_raw(server.port, say_wav("yes"), receive_buffer=4096, **fields) as silent:
            wait_for(lambda: bool(chat.requests))
            assert_free(server, chat)
            assert GONE not in server.log  # it is still being sent: the buffers between us are full
            wait_for(lambda: f"{GONE} note=not_read_in_time" in server.log, 20)
            silent.settimeout(20)
            assert read_until_end(silent).count(b"event: done") == 0
        assert "Traceback" not in server.log


def read_until_end(client: socket.socket) -> bytes:
    """Read what is left of a connection."""
    data = bytearray()
    try:
        while piece := client.recv(65_536):
            data += piece
    except ConnectionError:
        pass
    return bytes(data)


@pytest.mark.parametrize("form", ["sse", "wav"])
def test_a_response_that_is_never_iterated_over_frees_its_slot(tmp_path: Path, form: str) -> None:
    app = create_app(Settings(models_dir=tmp_path, max_turns=1))
    runtime = app.extensions["mirrorchat"]
    try:
        assert runtime.wait_until_loaded(60)
        fields = {"language": "en", "text": "Hi", "stream": "1", "response_format": form}
        audio = (BytesIO(say_wav("yes")), "a.wav")
        with closing(EnvironBuilder("/process_audio", method="POST", data=fields | {"audio": audio})) as builder:
            body = app.wsgi_app(builder.get_environ(), lambda status, headers, error=None: lambda data: None)
            body.close()  # type: ignore[attr-defined]  # PEP 3333: servers call it when there is one
        wait_for(lambda: runtime.admission.running == 0)
    finally:
        runtime.close()


def test_a_stream_that_ends_in_time_is_finished_after_sigterm(chat: ChatServer, tmp_path: Path) -> None:
    gate = Gate(FIRST + "And", SECOND.removeprefix("And"))
    chat.behaviour = gate.behave
    with RunningServer(tmp_path, chatgpt_apis=[chat.api()]) as server:
        pieces = ask_streamed(server.url).iter_content(None)
        begin = next(pieces)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping: 1 turns may finish" in server.log)
        gate.opened.set()
        assert len(b"".join(pieces)) > 24_000 and begin
        assert server.process.wait(20) == 0


def test_a_stream_that_takes_too_long_after_sigterm_ends_with_an_error(chat: ChatServer, tmp_path: Path) -> None:
    conf = changed_conf(tmp_path, "TURN_GRACE_S = 25.0", "TURN_GRACE_S = 1.0")
    chat.behaviour = hang_after(FIRST + "And")
    with RunningServer(tmp_path, gunicorn_conf=conf, chatgpt_apis=[chat.api()]) as server:
        events = events_of(ask_streamed(server.url, response_format="sse"))
        pieces = ask_streamed(server.url).iter_content(None)
        assert next(pieces) and next(events)
        server.process.send_signal(signal.SIGTERM)
        last = named(events)[-1]
        assert (last.name, last.data["error"]["code"]) == ("error", "shutting_down")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(pieces)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log


@needs_nginx
def test_nginx_passes_events_and_audio_on_as_they_come(
    server: RunningServer, chat: ChatServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_free(server, chat)
    with Nginx(tmp_path_factory.mktemp("nginx"), server.port) as proxy:
        gate = Gate("Yes", f". {FIRST}{SECOND}")
        chat.behaviour = gate.behave
        events = events_of(ask_streamed(proxy.url, response_format="sse"))
        assert next(events) == "MirrorChat"
        while next(events) != Received("text", {"delta": "Yes"}):  # small, and nothing large pushes it on
            pass
        assert not gate.ended.is_set()
        gate.opened.set()
        assert named(events)[-1].name == "done"
        check_audio_through(proxy, server, chat)


def check_audio_through(proxy: Nginx, server: RunningServer, chat: ChatServer) -> None:
    """Assert that nginx passes on audio early, a transfer that breaks off, and a hang-up."""
    assert_free(server, chat)
    gate = Gate("", "")
    chat.behaviour = broken_when_open(gate, FIRST + "And")
    pieces = ask_streamed(proxy.url, response_format="opus").iter_content(None)
    assert next(pieces)
    gate.opened.set()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(pieces)
    assert_free(server, chat)
    chat.behaviour = hang_after(FIRST + "And")
    gone = Gone(server)
    with post_raw(proxy.port, say_wav("yes"), language="en", text="Hi", stream="1") as client:
        read_until(client, b"RIFF")
    assert chat.requests[-1].closed_early.wait(30)
    gone.wait()
