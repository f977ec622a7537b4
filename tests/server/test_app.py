"""The server as a caller sees it: a real gunicorn, real sockets, the embedded engines."""

import base64
import io
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import numpy as np
import pytest
import requests
import soundfile
from support.chat_server import ChatServer, answer, hang_before_headers
from support.checks import check_error, check_wav, connected, wait_for, waiting
from support.places import QUESTION
from support.running_server import RunningServer, ask_when_free, changed_conf
from support.speech import noise_wav, say_wav
from support.stream_client import Gate

from mirrorchat.app import create_app
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.server.form import HOTWORD_LIMIT_CHARS, HOTWORDS_LIMIT, TEXT_LIMIT_CHARS
from mirrorchat.settings import Settings

SECRET = "a-secret-of-the-server-0123456789"


def silence_wav(seconds: float) -> bytes:
    return encode_wav(Audio(np.zeros(int(16_000 * seconds), np.float32), 16_000))


def nan_wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(16_000, np.nan, np.float32), 16_000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_health(embedded_server: RunningServer) -> None:
    assert requests.get(f"{embedded_server.url}/healthz", timeout=5).json() == {"status": "alive"}


def test_readiness_names_each_engine_its_model_and_device(embedded_server: RunningServer) -> None:
    engines = requests.get(f"{embedded_server.url}/readyz", timeout=5).json()["engines"]
    assert set(engines) == {"recognizer.zh", "recognizer.en", "chat", "synthesizer.zh", "synthesizer.en"}
    assert engines["recognizer.en"]["name"] == "embedded"
    assert "pocketsphinx" in engines["recognizer.en"]["model"]
    assert "whisper-base" in engines["recognizer.en"]["reason"]  # the next tier
    assert engines["chat"]["name"] == "parrot"
    for stage in engines:
        assert f"{stage} " in embedded_server.log  # what runs is said at startup too


def test_an_english_question_is_answered(embedded_server: RunningServer) -> None:
    response = embedded_server.ask(QUESTION.read_bytes(), "english")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "audio/wav"
    assert response.headers["Content-Disposition"] == "attachment; filename=response.wav"
    assert len(response.headers["X-Request-Id"]) == 32
    check_wav(response.content)
    transcript = unquote(response.headers["X-MirrorChat-Transcript"])
    assert transcript == "What is the best way to learn a language"
    assert transcript in unquote(response.headers["X-MirrorChat-Reply"])  # the parrot
    assert "recognizer=embedded/pocketsphinx" in response.headers["X-MirrorChat-Engines"]
    assert "chat=parrot" in response.headers["X-MirrorChat-Engines"]
    assert response.headers["X-MirrorChat-Voice"].partition(";")[0] == "tint"
    stages = [entry.partition(";")[0] for entry in response.headers["Server-Timing"].split(", ")]
    assert sorted(stages) == ["answer", "decode", "recognize", "speak", "total", "voice"]


def test_json_has_all_of_it(embedded_server: RunningServer) -> None:
    answer = embedded_server.ask_json(say_wav("hello there my friend"), "ENGLISH", text="Is it late?")
    told = {
        "transcript",
        "language",
        "reply",
        "finish_reason",
        "unspoken",
        "voice",
        "engines",
        "timings",
        "session_id",
        "reference",
    }
    assert set(answer) == told | {"audio"}
    assert answer["transcript"] == "Is it late?"
    assert "Is it late?" in answer["reply"]
    assert answer["voice"]["kind"] == "tint"
    assert answer["engines"]["recognizer"]["name"] == "none"
    assert answer["timings"]["total_s"] > answer["timings"]["speak_s"] > 0
    check_wav(base64.b64decode(answer["audio"]))


def test_typed_chinese_is_answered_in_mandarin(embedded_server: RunningServer) -> None:
    answer = embedded_server.ask_json(say_wav("你好，今天天气怎么样", "cmn+f2"), "zh-CN", text="今天星期几？")
    assert answer["transcript"] == "今天星期几？"
    assert "今天星期几" in answer["reply"] and "没有" in answer["reply"]
    check_wav(base64.b64decode(answer["audio"]))


def test_spoken_chinese_needs_wenet_and_the_error_says_how(embedded_server: RunningServer) -> None:
    response = embedded_server.ask(say_wav("你好", "cmn+f2"), "chinese")
    message = check_error(response, 503, "model_not_installed", "language")
    assert str(embedded_server.folder / "models" / "wenet-zh") in message
    assert "run .venv/bin/mirrorchat models install small" in message


def test_the_reply_may_be_in_the_other_language(embedded_server: RunningServer) -> None:
    answer = embedded_server.ask_json(say_wav("hello there"), "en", reply_language="zh", text="Good morning")
    assert "Mandarin" in answer["engines"]["synthesizer"]["model"] or answer["audio"]
    refused = embedded_server.ask(say_wav("hello there"), "en", reply_language="french")
    assert "chinese" in check_error(refused, 400, "invalid_value", "reply_language")


def test_a_long_transcript_is_cut_in_its_header_and_flagged(embedded_server: RunningServer) -> None:
    text = "这是一个很长的问题" * 25
    response = embedded_server.ask(say_wav("hello there"), "chinese", text=text)
    assert response.status_code == 200, response.text
    header = response.headers["X-MirrorChat-Transcript"]
    assert 1500 - 9 < len(header) <= 1500
    assert text.startswith(unquote(header, errors="strict"))
    assert response.headers["X-MirrorChat-Cut"] == "transcript, reply"
    assert embedded_server.ask_json(say_wav("hello there"), "chinese", text=text)["transcript"] == text


def test_missing_and_unknown_fields_list_the_choices(embedded_server: RunningServer) -> None:
    url = f"{embedded_server.url}/process_audio"
    wav = say_wav("hello there")
    assert "audio" in check_error(requests.post(url, data={"language": "en"}, timeout=5), 400, "missing_field", "audio")
    as_text = requests.post(url, files={"language": (None, "en"), "audio": (None, "abc")}, timeout=5)
    assert "file" in check_error(as_text, 400, "invalid_value", "audio")
    no_language = requests.post(url, files={"audio": wav}, timeout=5)
    assert "chinese, english or auto" in check_error(no_language, 400, "missing_field", "language")
    message = check_error(embedded_server.ask(wav, "klingon"), 400, "invalid_value", "language")
    assert "chinese" in message and "english" in message and "zh-CN" in message and len(message) < 150
    check_error(embedded_server.ask(wav, "english", text="x" * (TEXT_LIMIT_CHARS + 1)), 400, "invalid_value", "text")
    check_error(requests.post(url, data=b"{}", headers={"Content-Type": "application/json"}, timeout=5), 400,
                "missing_field", "audio")  # fmt: skip


def test_not_found_and_wrong_method_have_our_shape(embedded_server: RunningServer) -> None:
    check_error(requests.get(f"{embedded_server.url}/nowhere", timeout=5), 404, "not_found")
    wrong = requests.get(f"{embedded_server.url}/process_audio", timeout=5)
    check_error(wrong, 405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]


@pytest.mark.parametrize(
    ("audio", "status", "code"),
    [
        (lambda: b"", 422, "audio_too_short"),
        (lambda: b"<html>not audio</html>" * 100, 415, "unsupported_audio"),
        (lambda: noise_wav(0.2), 422, "audio_too_short"),
        (lambda: silence_wav(2.0), 422, "silent_audio"),
        (nan_wav, 422, "non_finite_audio"),
        (lambda: noise_wav(3.0), 422, "no_words"),
        (lambda: noise_wav(61.0), 413, "audio_too_long"),
    ],
    ids=["empty", "html", "short", "silent", "nan", "noise", "long"],
)
def test_unusable_audio(embedded_server: RunningServer, audio: Callable[[], bytes], status: int, code: str) -> None:
    check_error(embedded_server.ask(audio(), "english"), status, code, "audio")


@pytest.mark.parametrize(
    "hotwords", ["word\n" * (HOTWORDS_LIMIT + 1), "w" * (HOTWORD_LIMIT_CHARS + 1)], ids=["too many", "too long"]
)
def test_unusable_hot_words(embedded_server: RunningServer, hotwords: str) -> None:
    refused = embedded_server.ask(QUESTION.read_bytes(), "english", hotwords=hotwords)
    assert "at most 200 words of at most 64 characters" in check_error(refused, 400, "invalid_value", "hotwords")


def test_an_upload_over_the_limit_gets_its_answer(embedded_server: RunningServer) -> None:
    message = check_error(embedded_server.ask(bytes(20_000_000), "english"), 413, "upload_too_large", "audio")
    assert "12 MiB" in message


def test_a_chunked_upload_over_the_limit_is_refused(embedded_server: RunningServer) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
        for _ in range(200):
            yield bytes(100_000)
        yield b'\r\n--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nenglish\r\n--b--\r\n'

    response = requests.post(
        f"{embedded_server.url}/process_audio",
        data=body(),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
        timeout=30,
    )
    check_error(response, 413, "upload_too_large", "audio")


def test_a_body_that_breaks_off_disturbs_nobody(embedded_server: RunningServer) -> None:
    head = b"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection(("127.0.0.1", embedded_server.port)) as client:
        client.sendall(head + b"Content-Length: 1000\r\n\r\n--b\r\n")
    assert requests.get(f"{embedded_server.url}/healthz", timeout=5).status_code == 200


def test_the_voice_follows_the_asker(embedded_server: RunningServer) -> None:
    short = embedded_server.ask(say_wav("yes"), "english", text="What is this?")
    assert short.headers["X-MirrorChat-Voice"].startswith("neutral; ")
    assert "1 s is needed" in short.headers["X-MirrorChat-Voice"]


def test_keys_are_asked_for_and_never_logged(tmp_path: Path) -> None:
    with RunningServer(tmp_path, api_keys=["another-key-0123456789", SECRET]) as server:
        refused = requests.post(f"{server.url}/process_audio", files={"audio": b"x" * 3_000_000}, timeout=10)
        check_error(refused, 401, "invalid_api_key")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        for header in (f"Bearer {SECRET}x", f"Basic {SECRET}", "Bearer ", "Bearer \xe9"):
            answer = requests.get(f"{server.url}/engines", headers={"Authorization": header}, timeout=5)
            assert answer.status_code == 401
        for path in ("/healthz", "/readyz"):
            assert requests.get(f"{server.url}{path}", timeout=5).status_code == 200
        assert (
            requests.get(f"{server.url}/engines", headers={"Authorization": f"Bearer {SECRET}"}, timeout=5).status_code
            == 200
        )
        assert SECRET not in server.log


def test_a_question_waits_for_the_engines_and_readiness_does_not(tmp_path: Path) -> None:
    with RunningServer(tmp_path, wait=False) as server, ThreadPoolExecutor(8) as pool:
        wait_until_alive(server)
        questions = [pool.submit(server.ask, say_wav("hello there"), "english", text="Hi") for _ in range(4)]
        response = requests.get(f"{server.url}/readyz", timeout=5)
        check_error(response, 503, "not_ready")
        assert response.headers["Retry-After"]
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        assert [question.result().status_code for question in questions] == [200] * 4
        lines = server.log.splitlines()
        assert [line for line in lines if "route=" not in line][-1].endswith(f" INFO open {server.url}")


def test_a_question_waits_ten_seconds_at_most(tmp_path: Path) -> None:
    conf = changed_conf(tmp_path, "bind = ", f"{LOADS_FOR_EVER}\nbind = ")
    with RunningServer(tmp_path, wait=False, gunicorn_conf=conf, max_turns=1, max_waiting=1) as server:
        wait_until_alive(server)
        with ThreadPoolExecutor(8) as pool:
            asked = time.monotonic()
            questions = [pool.submit(server.ask, say_wav("hello"), "english", text="Hi") for _ in range(3)]
            answered = {}
            for question in as_completed(questions):
                check_error(question.result(), 503, "not_ready")
                assert question.result().headers["Retry-After"]
                answered[question] = time.monotonic() - asked
            at_once, *waited = sorted(answered.values())
            assert at_once < 5.0  # no more threads wait than turns may run and wait
            assert all(10.0 <= seconds < 15.0 for seconds in waited)
            unknown = requests.post(f"{server.url}/no-such-route", timeout=5)  # waits for nothing
            check_error(unknown, 404, "not_found")
            last = pool.submit(server.ask, say_wav("hello"), "english", text="Hi")
            time.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)
            stopped = time.monotonic()
            check_error(last.result(), 503, "shutting_down")
            assert time.monotonic() - stopped < 5.0


LOADS_FOR_EVER = """
import time

import mirrorchat.server.runtime

mirrorchat.server.runtime.build_engines = lambda settings: time.sleep(600)
"""


def wait_until_alive(server: RunningServer) -> None:
    while True:
        try:
            assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
            return
        except requests.ConnectionError:
            assert server.process.poll() is None, server.log
            time.sleep(0.01)


def test_an_engine_that_cannot_start_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    with RunningServer(tmp_path, wait=False, recognizer={"chinese": "wenet"}) as server:
        assert server.process.wait(60) == 3
        assert "cannot start" in server.log and "final.zip" in server.log and "wenet-zh" in server.log


def test_bad_settings_end_the_server_in_one_line(tmp_path: Path) -> None:
    with RunningServer(tmp_path, wait=False, max_turn=3) as server:
        assert server.process.wait(30) != 0
        assert server.log.strip().endswith("unknown setting 'max_turn'; did you mean 'max_turns'?")
        assert "Traceback" not in server.log


def test_one_caller_too_many_is_told_when_to_come_back(tmp_path: Path) -> None:
    gate = Gate("I am", " slow.")
    with (
        ChatServer(gate.behave) as chat,
        RunningServer(tmp_path, max_turns=1, max_waiting=0, chatgpt_apis=[chat.api()]) as server,
        ThreadPoolExecutor(1) as pool,
        gate.open_at_the_end(),
    ):
        first = pool.submit(server.ask, say_wav("hello"), "english", text="Hi")
        wait_for(lambda: bool(chat.requests))
        busy = server.ask(say_wav("hello"), "english", text="Hi")
        check_error(busy, 503, "server_busy")
        assert 1 <= int(busy.headers["Retry-After"]) <= 60
        gate.opened.set()
        assert first.result().status_code == 200
        freed = ask_when_free(server.url, say_wav("hello"), "english", text="Hi")
        assert freed.status_code == 200


def test_callers_queue_and_a_hang_up_leaves_the_queue(tmp_path: Path) -> None:
    with (
        ChatServer(hang_before_headers) as chat,
        RunningServer(tmp_path, max_turns=1, max_waiting=2, chatgpt_apis=[chat.api()]) as server,
    ):
        with connected(server.port) as first:
            wait_for(lambda: len(chat.requests) == 1)
            chat.behaviour = answer("It is your turn.")
            with connected(server.port), connected(server.port):
                wait_for(lambda: waiting(server.url) == 2)
                full = server.ask(say_wav("hello"), "english", text="Hi")
                check_error(full, 503, "server_busy")
            wait_for(lambda: waiting(server.url) == 0)
            answers: list[requests.Response] = []
            thread = Thread(target=lambda: answers.append(server.ask(say_wav("hello"), "english", text="Hi")))
            thread.start()
            wait_for(lambda: waiting(server.url) == 1)
            first.close()
            thread.join()
        assert answers[0].status_code == 200
        assert len(chat.requests) == 2  # of those who left the queue nothing was asked
        assert "queue_ms=" in server.log and server.log.count("outcome=client_gone") == 3


def test_a_turn_past_its_deadline_ends_with_504(tmp_path: Path) -> None:
    with (
        ChatServer(hang_before_headers) as chat,
        RunningServer(tmp_path, turn_deadline_s=2.0, max_turns=1, chatgpt_apis=[chat.api()]) as server,
    ):
        check_error(server.ask(say_wav("hello"), "english", text="Hi"), 504, "deadline_exceeded")
        freed = ask_when_free(server.url, say_wav("hello"), "english", text="Hi")
        check_error(freed, 504, "deadline_exceeded")


def test_a_caller_who_hangs_up_frees_the_slot_and_the_chat(tmp_path: Path) -> None:
    with (
        ChatServer(hang_before_headers) as chat,
        RunningServer(tmp_path, max_turns=1, chatgpt_apis=[chat.api()]) as server,
    ):
        with connected(server.port):
            wait_for(lambda: bool(chat.requests))
        assert chat.requests[0].closed_early.wait(10)
        wait_for(lambda: "status=499 " in server.log)


def test_a_defect_of_ours_says_nothing_internal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings(models_dir=tmp_path))
    runtime = app.extensions["mirrorchat"]
    try:
        assert runtime.wait_until_loaded(60)

        said = " ".join(["what", "the", "caller", "said"])  # a traceback shows source lines, which are ours

        def defect() -> str:
            raise KeyError(said)

        app.add_url_rule("/defect", view_func=defect)
        response = app.test_client().get("/defect")
    finally:
        runtime.close()
    assert response.status_code == 500
    error = response.get_json()["error"]
    assert error["type"] == "server_error" and error["code"] == "internal_error"
    assert response.headers["X-Request-Id"] in error["message"]
    assert "KeyError" in caplog.text and "in defect" in caplog.text
    assert said not in caplog.text + response.get_data(as_text=True)


def test_nothing_of_the_caller_is_logged(embedded_server: RunningServer) -> None:
    embedded_server.ask(say_wav("hello"), "english", text="a very private zebra")
    embedded_server.ask(b"private bytes" * 100, "english", text="a very private zebra")
    assert "zebra" not in embedded_server.log and "private" not in embedded_server.log
    assert json.dumps(embedded_server.log).count("process_audio") >= 2
