"""Speech over HTTP: every format is heard again, speed changes the time and not the pitch, failures are seen."""

import base64
import functools
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import requests
from openai import OpenAI
from support.checks import wait_for
from support.openai_scene import KEY_A, QUESTION_FILE, Scene, heard, heard_pcm, is_loud
from support.stream_client import read_until

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer
from mirrorchat.embedded.voice_tint import VoiceTint
from mirrorchat.engines import Language

TEXT = "The answer is blue. Here is a second sentence, which is spoken after the first one."
FORMATS = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
    "pcm": "audio/pcm",
}  # fmt: skip


@pytest.fixture
def client(openai_scene: Scene) -> OpenAI:
    return openai_scene.client()


def say(client: OpenAI, **fields: Any) -> bytes:
    options = {"model": "tts-1", "input": TEXT, "voice": "alloy"} | fields
    return client.audio.speech.create(**options).content


@functools.cache
def spoken(base_url: str) -> Audio:
    """Return TEXT as the server says it, to compare with."""
    client = OpenAI(base_url=base_url, api_key=KEY_A)
    return heard_pcm(say(client, response_format="pcm"))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_heard_as_speech_of_the_same_length(openai_scene: Scene, client: OpenAI, name: str) -> None:
    response = client.audio.speech.with_raw_response.create(
        model="tts-1", input=TEXT, voice="default", response_format=name  # type: ignore[arg-type]
    )  # fmt: skip
    assert response.headers["content-type"].startswith(FORMATS[name])
    assert response.headers["x-mirrorchat-voice"].startswith("neutral")
    audio = heard_pcm(response.content) if name == "pcm" else heard(response.content)
    assert is_loud(audio)
    assert audio.duration_s == pytest.approx(spoken(openai_scene.base_url).duration_s, abs=0.15)


def test_the_words_are_those_of_the_text(openai_scene: Scene) -> None:
    recognizer = EmbeddedRecognizer()
    try:
        audio = spoken(openai_scene.base_url)
        words = recognizer.recognize(audio, Language.ENGLISH, context=Context()).text.lower().split()
    finally:
        recognizer.close()
    assert {"answer", "second", "first"} & set(words), words


def test_reasoning_in_the_text_is_not_spoken(openai_scene: Scene, client: OpenAI) -> None:
    said = say(client, response_format="pcm", input=f"<think>A zebra. Then another.</think>{TEXT}<|im_end|>")
    assert np.array_equal(heard_pcm(said).samples, spoken(openai_scene.base_url).samples)


@pytest.mark.parametrize("speed", [0.5, 1.5, 2.0])
def test_speed_changes_the_time_and_not_the_pitch(openai_scene: Scene, client: OpenAI, speed: float) -> None:
    fast, plain, tint = (
        heard_pcm(say(client, response_format="pcm", speed=speed)),
        spoken(openai_scene.base_url),
        VoiceTint(),
    )
    assert plain.duration_s / fast.duration_s == pytest.approx(speed, rel=0.03)
    before, after = tint.profile(plain), tint.profile(fast)
    assert before is not None and after is not None
    assert np.exp(after.f0_mean - before.f0_mean) == pytest.approx(1.0, abs=0.05)


def test_the_language_is_that_of_the_script_unless_it_is_named(client: OpenAI) -> None:
    def say_in(text: str, **named: str) -> bytes:
        return say(client, input=text, response_format="pcm", extra_body=named)

    chinese = say_in("今天天气很好。")
    assert is_loud(heard_pcm(chinese)) and chinese == say_in("今天天气很好。", language="zh")
    assert say_in("2026.") == say_in("2026.", language="en-US") != say_in("2026.", language="zh")


def test_speech_comes_as_it_is_made(client: OpenAI) -> None:
    long = " ".join([TEXT] * 6)
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", input=long, voice="default", response_format="pcm"
    ) as response:
        sizes = [len(piece) for piece in response.iter_bytes()]
    assert len(sizes) > 6 and sum(sizes) > 2 * 24_000 * 20


def test_events_hold_the_same_speech(openai_scene: Scene) -> None:
    fields = {"model": "gpt-4o-mini-tts", "input": TEXT, "voice": "default", "response_format": "pcm"}
    response = openai_scene.send("POST", "/audio/speech", json=fields | {"stream_format": "sse"}, stream=True)
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"

    events = [json.loads(line.removeprefix(b"data: ")) for line in response.iter_lines() if line.startswith(b"data: ")]
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    assert events[-1]["type"] == "speech.audio.done" and set(events[-1]["usage"]) >= {"input_tokens", "total_tokens"}
    audio = heard_pcm(b"".join(base64.b64decode(event["audio"]) for event in events[:-1]))
    np.testing.assert_array_equal(audio.samples, spoken(openai_scene.base_url).samples)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"), ({"input": "x" * 4097}, "input"), ({"input": 5}, "input"), ({"input": "?!"}, "input"),
        ({"input": "```\nprint(1)\n```"}, "input"), ({"voice": " "}, "voice"), ({"voice": 7}, "voice"),
        ({"voice": {"name": "x"}}, "voice"), ({"speed": 0.2}, "speed"),
        ({"speed": 4.1}, "speed"), ({"speed": "fast"}, "speed"), ({"speed": True}, "speed"),
        ({"response_format": "midi"}, "response_format"), ({"stream_format": "morse"}, "stream_format"),
        ({"language": "fr"}, "language"), ({"model": 3}, "model"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(openai_scene: Scene, fields: dict[str, Any], param: str) -> None:
    body = {"model": "tts-1", "input": "Hello.", "voice": "default"} | fields
    response = openai_scene.send("POST", "/audio/speech", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_unknown_fields_and_nulls_are_ignored(openai_scene: Scene) -> None:
    body = {"model": "tts-1", "input": "Hello.", "voice": "default", "speed": None, "instructions": None, "colour": 1}
    assert openai_scene.send("POST", "/audio/speech", json=body).status_code == 200


def test_a_hang_up_ends_the_speech(openai_scene: Scene) -> None:
    openai_scene.wait_until_idle()

    body = json.dumps({"input": " ".join([TEXT] * 40), "voice": "default", "response_format": "wav"}).encode()
    head = (
        f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY_A}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", openai_scene.server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        read_until(connection, b"RIFF")
    openai_scene.wait_until_idle()
    assert "route=openai.speech status=200 outcome=client_gone" in openai_scene.server.log


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_a_failure_in_the_middle_is_seen(openai_scene: Scene, stream_format: str) -> None:
    body = {
        "input": " ".join([TEXT] * 40),
        "voice": "default",
        "response_format": "wav",
        "stream_format": stream_format,
    }
    with openai_scene.send("POST", "/audio/speech", json=body, stream=True) as response:
        assert response.status_code == 200
        pieces = response.iter_content(None)
        first = next(pieces)
        with speech_killed(openai_scene.server.worker_pid):
            if stream_format == "audio":
                with pytest.raises(requests.exceptions.ChunkedEncodingError):
                    list(pieces)
            else:
                last = (first + b"".join(pieces)).strip().rpartition(b"\n\n")[2]
                assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "synthesis_failed"
    url = f"{openai_scene.server.url}/readyz"
    wait_for(lambda: requests.get(url, timeout=10).ok)  # one of the processes was killed while it started
    assert say(openai_scene.client(), input="Hello.")


@contextmanager
def speech_killed(worker_pid: int) -> Iterator[None]:
    """Stop eSpeak NG's processes, so that the next sentence waits for one.

    A second later kill them, and those that take their place: a sentence is tried once more.
    """
    pids, over = speech_processes(worker_pid), Event()
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def kill() -> None:
        over.wait(1.0)
        while not over.wait(0.01):
            with suppress(OSError):  # it has ended
                for pid in speech_processes(worker_pid):
                    os.kill(pid, signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


def speech_processes(worker_pid: int) -> list[int]:
    """Return the processes of eSpeak NG that belong to the server's worker."""
    return [
        int(child)
        for task in Path(f"/proc/{worker_pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if b"espeak_worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_xtts_speaks_in_an_enrolled_voice(weights_scene: Scene) -> None:
    client = weights_scene.client()
    voice = client.audio.voices.create(name="Anna", audio_sample=QUESTION_FILE, consent="")
    response = client.audio.speech.with_raw_response.create(
        model="mirrorchat", input="Hello.", voice="Anna", response_format="flac"
    )
    assert response.headers["x-mirrorchat-voice"].startswith("clone")
    assert heard(response.content).duration_s > 0.3
    assert heard(say(client, input="Hello.")).duration_s > 0.3  # in the default voice
    assert "xtts" in weights_scene.send("GET", f"/audio/voices/{voice.id}").json()["models"][0]


def test_half_a_character_is_refused(openai_scene: Scene) -> None:
    body = b'{"model": "tts-1", "voice": "default", "input": "\\ud800 hello there"}'
    response = openai_scene.send("POST", "/audio/speech", data=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
