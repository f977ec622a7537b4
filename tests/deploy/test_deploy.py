"""deploy/: real nginx in front of real gunicorn, on loopback."""

import io
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest
import requests
from support.chat_server import ChatServer, answer, hang_before_headers
from support.checks import check_error, connected, wait_for, waiting
from support.nginx import Nginx, needs_nginx
from support.running_server import GUNICORN_CONF, RunningServer, ask, ask_when_free, free_port
from support.speech import say, say_wav
from support.stream_client import Gate

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio


@pytest.fixture(scope="module")
def nginx(embedded_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), embedded_server.port) as proxy:
        yield proxy


def ten_megabytes() -> bytes:
    """Return a recording of 10 MB: speech, then noise, 60 s in all."""
    speech = say("good morning to all of you my dear friends").resample(88_200).samples
    noise = np.random.default_rng(0).standard_normal(int(88_200 * 59.5) - len(speech)).astype(np.float32) * 0.01
    return encode_wav(Audio(np.concatenate([speech, noise]), 88_200))


def webm_opus(audio: Audio) -> bytes:
    """Return `audio` as a browser's MediaRecorder writes it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        samples = audio.resample(48_000).samples
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(each for file in children for child in file.read_text().split() for each in family(int(child)))]


def written_bytes(*roots: int) -> int:
    """Return how many bytes the processes below `roots` have written to files on disk so far."""
    total = 0
    for pid in (pid for root in roots for pid in family(root)):
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        total += int(fields["write_bytes"])
    return total


@needs_nginx
def test_a_ten_megabyte_upload_is_answered_and_touches_no_disk(
    nginx: Nginx, embedded_server: RunningServer, tmp_path: Path
) -> None:
    upload = ten_megabytes()
    assert 10_000_000 < len(upload) < 12 * 1024 * 1024
    processes = (nginx.process.pid, embedded_server.process.pid)
    before = written_bytes(*processes)
    response = ask(nginx.url, upload, "english", text="Is this heard?")
    assert response.status_code == 200, response.text
    assert written_bytes(*processes) - before < 100_000  # log lines
    with Nginx(tmp_path, embedded_server.port, **{"client_body_buffer_size 12m;": ""}) as spooling:
        # the measure itself is sound: nginx as it comes does write the upload to disk, and it shows
        before = written_bytes(spooling.process.pid)
        assert ask(spooling.url, upload, "english", text="Is this heard?").status_code == 200
        assert written_bytes(spooling.process.pid) - before > 10_000_000


@needs_nginx
def test_a_browser_recording_is_answered_through_nginx(nginx: Nginx) -> None:
    response = ask(nginx.url, webm_opus(say("What is the best way to learn a language?", "en-us+f2")), "english")
    assert response.status_code == 200, response.text
    assert "learn" in response.headers["X-MirrorChat-Transcript"]


@needs_nginx
def test_long_headers_pass(nginx: Nginx) -> None:
    response = ask(nginx.url, say_wav("hello there"), "chinese", text="这是一个很长的问题" * 25)
    assert response.status_code == 200, response.text
    assert len(response.headers["X-MirrorChat-Transcript"]) > 1400
    assert len(response.headers["X-MirrorChat-Reply"]) > 1400


@needs_nginx
def test_errors_of_the_server_pass_and_nginxs_own_have_the_same_shape(nginx: Nginx, tmp_path: Path) -> None:
    check_error(ask(nginx.url, b"<html></html>" * 100, "english"), 415, "unsupported_audio", "audio")
    too_large = ask(nginx.url, bytes(13 * 1024 * 1024), "english")
    assert too_large.status_code == 413
    assert too_large.json()["error"]["code"] == "upload_too_large"
    with Nginx(tmp_path, free_port()) as alone:
        check_not_running(ask(alone.url, b"x", "english"))


def check_not_running(response: requests.Response) -> None:
    """Check nginx's response in the name of a server that does not run."""
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.headers["Content-Type"] == "application/json" and response.headers["Retry-After"] == "5"


@needs_nginx
def test_a_server_that_stays_silent_is_504_and_a_hang_up_frees_its_place(tmp_path: Path) -> None:
    with (
        ChatServer(hang_before_headers) as chat,
        RunningServer(tmp_path, max_turns=1, chatgpt_apis=[chat.api()]) as server,
        Nginx(tmp_path, server.port, **{"proxy_read_timeout 120s;": "proxy_read_timeout 2s;"}) as proxy,
    ):
        response = ask(proxy.url, say_wav("hello"), "english", text="Hi")
        assert (response.status_code, response.json()["error"]["code"]) == (504, "gateway_timeout")
        assert chat.requests[0].closed_early.wait(10)  # nginx hung up, so the turn was ended
        wait_for(lambda: "status=499 " in server.log)
        chat.behaviour = answer("Here I am.")
        assert ask_when_free(proxy.url, say_wav("hello"), "english", text="Hi").status_code == 200


@needs_nginx
def test_a_client_that_hangs_up_in_its_upload_disturbs_nobody(nginx: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", nginx.port)) as client:
        client.sendall(b"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc")
    assert requests.get(f"{nginx.url}/readyz", timeout=5).status_code == 200


@needs_nginx
def test_slow_clients_hold_no_thread(nginx: Nginx) -> None:
    head = b"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc"
    idle = [socket.create_connection(("127.0.0.1", nginx.port)) for _ in range(30)]
    try:
        for client in idle:
            client.sendall(head)
        assert ask(nginx.url, say_wav("hello there"), "english", text="Hi").status_code == 200
    finally:
        for client in idle:
            client.close()


@needs_nginx
def test_nginx_logs_nothing_about_the_caller(nginx: Nginx) -> None:
    requests.get(f"{nginx.url}/healthz?private=zebra", timeout=5)
    requests.delete(f"{nginx.url}/sessions/a-secret-session", timeout=5)
    requests.get(f"{nginx.url}/a-secret-place", timeout=5)
    wait_for(lambda: "/healthz" in (nginx.folder / "mirrorchat.log").read_text())
    wait_for(lambda: " GET other 404 " in (nginx.folder / "mirrorchat.log").read_text())
    assert "secret" not in (nginx.folder / "mirrorchat.log").read_text()
    logs = "".join(file.read_text(errors="replace") for file in nginx.folder.glob("*.log"))
    assert "zebra" not in logs and "127.0.0.1" not in logs and "python-requests" not in logs


@needs_nginx
@pytest.mark.parametrize("requested_before", [False, True])
def test_after_sigterm_a_new_question_through_nginx_is_told_at_once(tmp_path: Path, requested_before: bool) -> None:
    gate = Gate("It is", " done.")
    with (
        ChatServer(gate.behave) as chat,
        RunningServer(tmp_path, chatgpt_apis=[chat.api()]) as server,
        Nginx(tmp_path, server.port) as proxy,
        gate.open_at_the_end(),
    ):
        if requested_before:  # nginx then keeps a connection
            assert requests.get(f"{proxy.url}/healthz", timeout=5).status_code == 200
        thread = Thread(target=ask, args=(proxy.url, say_wav("hello"), "english"), kwargs={"text": "Hi"})
        thread.start()
        wait_for(lambda: bool(chat.requests))
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping: 1 turns may finish" in server.log)
        for _ in range(6):
            asked = time.monotonic()
            told = ask(proxy.url, say_wav("hello"), "english", text="Hi")
            assert time.monotonic() - asked < 3.0
            check_error(told, 503, "shutting_down")
            assert told.headers["Retry-After"]
            time.sleep(0.5)
        gate.opened.set()
        thread.join()
        assert server.process.wait(20) == 0
        check_not_running(ask(proxy.url, say_wav("hello"), "english", text="Hi"))


@needs_nginx
def test_without_gunicorns_master_the_worker_tells_its_callers_and_ends(tmp_path: Path) -> None:
    gate = Gate("It is", " done.")
    with (
        ChatServer(gate.behave) as chat,
        RunningServer(tmp_path, chatgpt_apis=[chat.api()]) as server,
        Nginx(tmp_path, server.port) as proxy,
        ThreadPoolExecutor(2) as pool,
        gate.open_at_the_end(),
    ):
        running = pool.submit(ask, proxy.url, say_wav("hello"), "english", text="Hi")
        wait_for(lambda: bool(chat.requests))
        worker = server.worker_pid
        server.process.kill()
        wait_for(lambda: "stopping: 1 turns may finish" in server.log)
        check_error(ask(proxy.url, say_wav("hello"), "english", text="Hi"), 503, "shutting_down")
        gate.opened.set()
        assert running.result().status_code == 200
        wait_for(lambda: not _is_running(worker), 20)
        check_not_running(ask(proxy.url, say_wav("hello"), "english", text="Hi"))


@needs_nginx
def test_who_asks_while_the_worker_is_killed_is_told_or_answered(tmp_path: Path) -> None:
    with (
        ChatServer(hang_before_headers) as chat,
        RunningServer(tmp_path, chatgpt_apis=[chat.api()]) as server,
        Nginx(tmp_path, server.port) as proxy,
        ThreadPoolExecutor(8) as pool,
    ):
        cut = pool.submit(ask, proxy.url, say_wav("hello"), "english", text="Hi")
        wait_for(lambda: bool(chat.requests))
        chat.behaviour = answer("Here I am.")
        killed = server.worker_pid
        os.kill(killed, signal.SIGKILL)
        later = [pool.submit(ask, proxy.url, say_wav("hello"), "english", text="Hi") for _ in range(4)]
        check_not_running(cut.result())
        for response in [each.result() for each in later]:
            assert response.status_code in (200, 503), response.text
            assert response.status_code == 200 or (response.json()["error"] and response.headers["Retry-After"])
        server.wait_until_ready()
        assert server.worker_pid != killed


def test_a_running_answer_is_finished_after_sigterm(tmp_path: Path) -> None:
    gate = Gate("It is", " done.")
    with (
        ChatServer(gate.behave) as chat,
        RunningServer(tmp_path, chatgpt_apis=[chat.api()]) as server,
        gate.open_at_the_end(),
    ):
        responses: list[requests.Response] = []
        thread = Thread(target=lambda: responses.append(server.ask(say_wav("hello"), "english", text="Hi")))
        thread.start()
        wait_for(lambda: bool(chat.requests))
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping: 1 turns may finish" in server.log)
        gate.opened.set()
        thread.join()
        assert responses[0].status_code == 200
        assert server.process.wait(20) == 0


def test_after_sigterm_who_waits_is_told_and_who_is_answered_is_not_cut(tmp_path: Path) -> None:
    gate = Gate("It is", " done.")
    with (
        ChatServer(gate.behave) as chat,
        RunningServer(tmp_path, max_turns=1, chatgpt_apis=[chat.api()]) as server,
        gate.open_at_the_end(),
    ):
        responses: dict[str, requests.Response] = {}

        def call(name: str) -> None:
            responses[name] = server.ask(say_wav("hello"), "english", text="Hi")

        threads = [Thread(target=call, args=(name,)) for name in ("running", "waiting")]
        threads[0].start()
        wait_for(lambda: bool(chat.requests))
        threads[1].start()
        wait_for(lambda: waiting(server.url) == 1)
        server.process.send_signal(signal.SIGTERM)
        threads[1].join()
        assert "running" not in responses  # who waits is told at once
        check_error(responses["waiting"], 503, "shutting_down")
        assert responses["waiting"].headers["Retry-After"]
        gate.opened.set()
        threads[0].join()
        assert responses["running"].status_code == 200
        assert server.process.wait(20) == 0


def test_there_are_threads_for_all_who_are_answered_or_wait(tmp_path: Path) -> None:
    with RunningServer(tmp_path, max_turns=1, max_waiting=60, turn_deadline_s=600.0) as server:
        idle = [connected(server.port) for _ in range(50)]
        try:
            assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200
        finally:
            for client in idle:
                client.close()


def test_an_answer_that_takes_too_long_after_sigterm_ends_with_an_error_of_ours(tmp_path: Path) -> None:
    hasty = tmp_path / "gunicorn.conf.py"
    text = GUNICORN_CONF.read_text(encoding="utf-8")
    assert "TURN_GRACE_S = 25.0" in text and "graceful_timeout = 30" in text
    hasty.write_text(text.replace("TURN_GRACE_S = 25.0", "TURN_GRACE_S = 1.0"), encoding="utf-8")
    with (
        ChatServer(hang_before_headers) as chat,
        RunningServer(tmp_path, gunicorn_conf=hasty, chatgpt_apis=[chat.api()]) as server,
    ):
        responses: list[requests.Response] = []
        thread = Thread(target=lambda: responses.append(server.ask(say_wav("hello"), "english", text="Hi")))
        thread.start()
        wait_for(lambda: bool(chat.requests))
        server.process.send_signal(signal.SIGTERM)
        thread.join()
        check_error(responses[0], 503, "shutting_down")
        assert responses[0].headers["Retry-After"]
        assert server.process.wait(20) == 0


def test_the_child_processes_die_with_the_worker(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        children = family(server.worker_pid)[1:]
        assert children, "eSpeak NG runs in a process of its own"
        os.kill(server.worker_pid, signal.SIGKILL)
        wait_for(lambda: not any(_is_running(pid) for pid in children))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
