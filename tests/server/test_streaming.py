"""Streamed answers as a caller hears them: a real gunicorn, real sockets, the embedded engines."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import requests
import soundfile
from support.chat_server import ChatServer, answer, status, truncated
from support.checks import check_error, wait_for
from support.running_server import RunningServer, ask_when_free
from support.speech import noise_wav, say_wav
from support.stream_client import Gate, Received, ask_streamed, broken_when_open, events_of, named

from mirrorchat.audio.samples import Samples

FIRST, SECOND = "The first sentence is here. ", "And here is the second one."
FORMATS = ("wav", "pcm", "opus", "mp3")
TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm; rate=24000; channels=1",
    "opus": "audio/ogg; codecs=opus",
    "mp3": "audio/mpeg",
}


class Talk:
    """A server with one place, and the chat that answers it."""

    def __init__(self, server: RunningServer, chat: ChatServer) -> None:
        self.server, self.chat = server, chat
        self.url = server.url

    def says(self, text: str) -> None:
        self.chat.behaviour = answer(text)

    def wait_until_free(self) -> None:
        """Wait until the one place is free again: a caller who is answered shows it."""
        self.says("All is well.")
        assert ask_when_free(self.url, say_wav("hello"), "english", text="Hi").status_code == 200


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    with (
        ChatServer() as chat,
        RunningServer(
            tmp_path_factory.mktemp("talk"), max_turns=1, max_waiting=0, chat_cooldown_s=0.0, chatgpt_apis=[chat.api()]
        ) as server,
    ):
        yield Talk(server, chat)


def decode(data: bytes, name: str) -> Samples:
    """Return the samples of a streamed answer at 24 kHz, float32 (n,)."""
    if name == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    if name == "wav":
        return np.asarray(soundfile.read(io.BytesIO(data), dtype="float32")[0])
    with av.open(io.BytesIO(data), "r") as file:
        to_24_khz = av.AudioResampler("flt", "mono", 24_000)
        frames = [part for frame in file.decode(audio=0) for part in to_24_khz.resample(frame)]
        samples = [part.to_ndarray().reshape(-1) for part in [*frames, *to_24_khz.resample(None)]]
        return np.concatenate(samples).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_sounds_like_the_whole_answer(talk: Talk, name: str) -> None:
    talk.says(FIRST + SECOND)
    whole = ask_when_free(talk.url, say_wav("hello there"), "english", text="Hi")
    assert whole.headers["Content-Length"] == str(len(whole.content))
    expected = decode(whole.content, "wav")
    response = ask_when_streamed(talk, response_format=name)
    assert response.headers["Content-Type"] == TYPES[name]
    assert response.headers["Transfer-Encoding"] == "chunked"
    heard = decode(response.content, name)
    if name in ("wav", "pcm"):
        np.testing.assert_array_equal(heard, expected)
    else:
        assert abs(len(heard) - len(expected)) < 0.1 * 24_000
        correlation = np.correlate(np.pad(heard, (0, 2400)), expected, "valid").max()
        assert correlation > 0.95 * float(np.linalg.norm(heard) * np.linalg.norm(expected))


def ask_when_streamed(talk: Talk, *, accept: str = "*/*", **fields: str) -> requests.Response:
    """Ask again while the place is taken: helpers of a turn that just ended hold it a moment longer."""
    while (response := ask_streamed(talk.url, None, accept=accept, **fields)).status_code == 503:
        assert response.json()["error"]["code"] == "server_busy"
    return response


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("audio/ogg", "opus"),
        ("audio/ogg; codecs=opus", "opus"),
        ("audio/mpeg, audio/ogg;q=0.5", "mp3"),
        ("audio/pcm", "pcm"),
        ("audio/*", "wav"),
        ("video/mp4", "wav"),
        ("audio/ogg;q=0, */*", "wav"),
    ],
)
def test_accept_chooses_the_format(talk: Talk, accept: str, kind: str) -> None:
    talk.says(FIRST)
    response = ask_when_streamed(talk, accept=accept)
    assert response.headers["Content-Type"] == TYPES[kind]
    assert len(response.content) > 1000


def test_the_field_stands_above_accept(talk: Talk) -> None:
    talk.says(FIRST)
    assert ask_when_streamed(talk, accept="audio/mpeg", response_format="PCM").headers["Content-Type"] == TYPES["pcm"]


def test_what_cannot_be_chosen_is_refused_by_name(talk: Talk) -> None:
    unknown = ask_streamed(talk.url, response_format="flac")
    assert "opus" in check_error(unknown, 400, "invalid_value", "response_format")
    check_error(ask_streamed(talk.url, stream="maybe"), 400, "invalid_value", "stream")
    not_streamed = ask_streamed(talk.url, stream="false", response_format="opus")
    assert "stream=true" in check_error(not_streamed, 400, "invalid_value", "response_format")


def test_without_stream_the_answer_is_one_exact_wav(talk: Talk) -> None:
    talk.says(FIRST)
    response = ask_when_streamed(talk, stream="0", accept="audio/ogg")
    assert response.headers["Content-Type"] == "audio/wav"
    assert int.from_bytes(response.content[4:8], "little") == len(response.content) - 8
    assert ask_when_streamed(talk, stream="0", response_format="json").json()["transcript"] == "Hi"


@pytest.mark.parametrize("name", FORMATS)
def test_audio_comes_while_the_chat_still_writes(talk: Talk, name: str) -> None:
    gate = Gate(FIRST + "And", SECOND.removeprefix("And"))
    talk.wait_until_free()
    talk.chat.behaviour = gate.behave
    response = ask_when_streamed(talk, response_format=name)
    pieces = response.iter_content(None)
    begin = next(pieces)
    assert len(begin) > 1000 and not gate.ended.is_set()
    gate.opened.set()
    assert len(decode(begin + b"".join(pieces), name)) > 24_000
    assert gate.ended.is_set()


def test_the_headers_of_audio_say_what_is_known(talk: Talk) -> None:
    gate = Gate(FIRST + "And", SECOND.removeprefix("And"))
    talk.wait_until_free()
    talk.chat.behaviour = gate.behave
    response = ask_when_streamed(talk)
    gate.opened.set()
    assert response.headers["X-MirrorChat-Transcript"] == "Hi"
    assert response.headers["X-MirrorChat-Reply"].startswith("The%20first%20sentence")
    assert response.headers["X-MirrorChat-Cut"] == "reply"
    assert response.headers["X-MirrorChat-Voice"].partition(";")[0] in ("tint", "neutral")
    assert "synthesizer=embedded" in response.headers["X-MirrorChat-Engines"]
    assert response.headers["X-MirrorChat-Sample-Rate"] == "24000"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Server-Timing"].startswith("decode;dur=")
    assert len(response.headers["X-Request-Id"]) == 32
    assert response.content


def test_events_tell_all_of_the_turn(talk: Talk) -> None:
    talk.says(FIRST + SECOND)
    whole = decode(ask_when_free(talk.url, say_wav("hello there"), "english", text="Hi").content, "wav")
    response = ask_when_streamed(talk, accept="text/event-stream")
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["X-Accel-Buffering"] == "no"
    events = named(events_of(response))
    kinds = [event.name for event in events]
    assert kinds[0] == "transcript" and kinds[-2:] == ["timings", "done"]
    assert kinds.index("voice") < kinds.index("audio")
    assert events[0].data == {"text": "Hi", "language": "english"}
    assert "".join(event.data["delta"] for event in events if event.name == "text") == FIRST + SECOND
    spoken = [event.data for event in events if event.name == "audio"]
    assert {(piece["index"], piece["sentence"]) for piece in spoken} == {(0, FIRST.strip()), (1, SECOND)}
    assert {(piece["format"], piece["sample_rate"]) for piece in spoken} == {("pcm_s16le", 24_000)}
    pcm = b"".join(base64.b64decode(piece["audio"]) for piece in spoken)
    np.testing.assert_array_equal(decode(pcm, "pcm"), whole)
    assert {"decode_s", "voice_s", "answer_s", "speak_s", "total_s"} <= set(events[-2].data)
    done = events[-1].data
    assert done["reply"] == FIRST + SECOND
    assert done["voice"]["kind"] in ("tint", "neutral") and done["engines"]["synthesizer"]["name"] == "embedded"


def test_events_come_one_by_one_and_say_when_there_are_none(talk: Talk) -> None:
    gate = Gate(FIRST + "And", SECOND.removeprefix("And"))
    talk.wait_until_free()
    talk.chat.behaviour = gate.behave
    events = events_of(ask_when_streamed(talk, response_format="sse"))
    assert next(events) == "MirrorChat"
    assert next(events) == Received("transcript", {"text": "Hi", "language": "english"})
    while not isinstance(event := next(events), Received) or event.name != "audio":
        pass
    assert next(events) == "still working"  # only the chat keeps it waiting now
    assert not gate.ended.is_set()
    gate.opened.set()
    assert named(events)[-1].name == "done"


def test_failures_before_any_audio_keep_their_status(talk: Talk) -> None:
    talk.wait_until_free()
    url, audio = talk.url, say_wav("hello there")
    check_error(ask_streamed(url, b"<html></html>" * 100), 415, "unsupported_audio", "audio")
    check_error(ask_streamed(url, noise_wav(0.1), response_format="sse"), 422, "audio_too_short", "audio")
    check_error(ask_streamed(url, noise_wav(3.0), text=""), 422, "no_words", "audio")
    check_error(ask_streamed(url, audio, language="klingon"), 400, "invalid_value", "language")
    talk.chat.behaviour = status(500)
    assert "HTTP 500" in check_error(ask_when_streamed(talk), 502, "no_chat_api")
    gate = Gate("The first words", " are the last.")
    talk.chat.behaviour = gate.behave
    with ask_when_streamed(talk, response_format="sse") as answered:
        check_error(ask_streamed(url), 503, "server_busy")
        gate.opened.set()
        assert named(events_of(answered))[-1].name == "done"


def test_an_answer_that_breaks_off_unheard_is_started_over(tmp_path: Path) -> None:
    with (
        ChatServer(truncated("It is ", "half ")) as broken,
        ChatServer(answer(FIRST)) as whole,
        RunningServer(tmp_path, chat_cooldown_s=0.0, chatgpt_apis=[broken.api(), whole.api()]) as server,
    ):
        response = ask_streamed(server.url)
        assert response.status_code == 200 and len(response.content) > 24_000
        assert response.headers["X-MirrorChat-Reply"].startswith("The%20first")  # the half one is forgotten
        last = named(events_of(ask_streamed(server.url, response_format="sse")))[-1]
        assert (last.name, last.data["error"]["code"]) == ("error", "chat_interrupted")  # its text was passed on


@pytest.mark.parametrize("name", FORMATS)
def test_a_failure_after_the_first_audio_breaks_the_transfer_off(talk: Talk, name: str) -> None:
    gate = Gate("", "")
    talk.wait_until_free()
    talk.chat.behaviour = broken_when_open(gate, FIRST + "And")
    response = ask_when_streamed(talk, response_format=name)
    assert response.status_code == 200
    pieces = response.iter_content(None)
    assert next(pieces)
    gate.opened.set()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(pieces)
    wait_for(lambda: "status=200 outcome=chat_interrupted" in talk.server.log)


def test_a_failure_of_events_is_an_event(talk: Talk) -> None:
    gate = Gate("", "")
    gate.opened.set()
    talk.wait_until_free()
    talk.chat.behaviour = broken_when_open(gate, FIRST + "And")
    last = named(events_of(ask_when_streamed(talk, response_format="events")))[-1]
    assert last.name == "error"
    assert set(last.data["error"]) == {"message", "type", "param", "code"}
    assert last.data["error"]["code"] == "chat_interrupted"
