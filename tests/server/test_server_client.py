"""What the command line makes of servers: of whole answers, of broken ones, and of hostile ones."""

import base64
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.answering_server import AnsweringServer, Got, event, events_head, reply, reply_json
from support.command_line import run

from mirrorchat.audio.encoders import WavEncoder
from mirrorchat.audio.samples import Audio, to_pcm16
from mirrorchat.cli.client import server_client, server_speech, server_turn
from mirrorchat.cli.client.server_client import ServerClient
from mirrorchat.cli.client.server_speech import recognize_on_server, speech_from_server
from mirrorchat.cli.client.server_turn import ask_server
from mirrorchat.cli.client.turn import TurnCompleted, TurnEvent, TurnRequest
from mirrorchat.engines import Language, VoiceKind
from mirrorchat.errors import ServerFailed
from mirrorchat.turn.events import SpokenAudio, TextDelta

REQUEST = TurnRequest(b"RIFF", Language.ENGLISH, Language.CHINESE, "Hi", "one, two", "an id")
SOUND = np.sin(np.arange(24_000, dtype=np.float32) / 20) * np.float32(0.5)
VOICE = {"kind": "tint", "reason": "moved"}
DONE = event("done", {"reply": "Well.", "voice": VOICE, "engines": {"chat": {"name": "chat", "model": "m"}}})


def pcm(samples: Any = SOUND) -> str:
    return base64.b64encode(to_pcm16(samples).astype("<i2").tobytes()).decode()


def audio(**other: object) -> bytes:
    data = {"index": 0, "sentence": "Well.", "format": "pcm_s16le", "sample_rate": 24_000, "audio": pcm()}
    return event("audio", data | other)


def asked(*pieces: bytes) -> list[TurnEvent]:
    """Return the events of a turn, which a server answers with `pieces`."""
    with AnsweringServer(lambda got: iter(pieces)) as server, ServerClient(server.url) as client:
        return list(ask_server(client, REQUEST))


def test_a_turn_comes_as_the_server_says_it() -> None:
    def answer(got: Got) -> Iterator[bytes]:
        yield events_head() + b": MirrorChat\n\n" + event("unheard_of", [1]) + event("text", {"delta": "Well."})
        yield audio() + DONE

    with AnsweringServer(answer) as server, ServerClient(server.url, "the-key") as client:
        text, spoken, completed = ask_server(client, REQUEST)
    assert text == TextDelta("Well.")
    assert isinstance(spoken, SpokenAudio) and np.abs(spoken.audio.samples - SOUND).max() < 1e-4
    assert isinstance(completed, TurnCompleted)
    assert completed.voice.kind is VoiceKind.TINT and completed.session_id == ""
    got = server.got[0]
    assert (got.method, got.path, got.headers["authorization"]) == ("POST", "/process_audio", "Bearer the-key")
    for name, value in (
        ("language", "english"),
        ("reply_language", "chinese"),
        ("text", "Hi"),
        ("session_id", "an id"),
    ):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in got.body


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([events_head() + audio()], "broke off"),
        (
            [events_head() + event("error", {"error": {"message": "no\x1b[2J words", "code": "no_words"}})],
            "no [2J words",
        ),
        ([events_head() + event("error", "so there")], "cannot be read"),
        ([events_head() + b"event: text\ndata: {{{\n\n"], "cannot be read"),
        ([events_head() + b"event: text\ndata: " + b"[" * 100_000 + b"\n\n"], "cannot be read"),
        ([events_head() + event("text", {"delta": 7})], "cannot be read"),
        ([events_head() + audio(sample_rate=10**400)], "cannot be read"),
        ([events_head() + audio(sample_rate=0)], "cannot be read"),
        ([events_head() + audio(format="mp3")], "cannot be read"),
        ([events_head() + audio(audio="!!!")], "cannot be read"),
        ([events_head() + audio(audio="QQ==")], "cannot be read"),
        ([events_head() + event("voice", {"kind": "angel", "reason": ""})], "cannot be read"),
        ([reply(b"<p>Please sign in</p>", kind="text/html")], "broke off"),
        ([reply(b"", "302 Found", "text/html", "Location: http://127.0.0.1:1/")], "status 302"),
        ([reply(b"x" * 100_000, "500 Failed")], "status 500"),
        ([reply(b"[" * 60_000, "500 Failed")], "status 500"),
        (
            [reply_json({"error": {"message": "busy", "code": "server_busy"}}, "503 Busy", "Retry-After: 7")],
            "after 7 s",
        ),
        ([reply_json({"error": {"message": "key?", "code": "k"}}, "401 No")], "set MIRRORCHAT_API_KEY"),
        ([reply(b"", "200 OK", "text/event-stream", "Content-Encoding: gzip")], "compresses"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "connection failed"),
        ([b""], "connection failed"),
    ],
)
def test_what_is_no_whole_answer_is_told(pieces: list[bytes], said: str) -> None:
    with pytest.raises(ServerFailed) as caught:
        asked(*pieces)
    assert said in caught.value.message and "\x1b" not in caught.value.message


def test_what_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_turn, "EVENT_LIMIT_CHARS", 100_000)
    monkeypatch.setattr(server_turn, "SPEECH_LIMIT_S", 5.0)
    endless = {
        "cannot be read": b"x" * 65_536,  # a line
        "too long": audio(),
        "is too long": event("text", {"delta": "word " * 10_000}),
    }
    for said, piece in endless.items():
        with pytest.raises(ServerFailed, match=said):
            asked(events_head(), *itertools.repeat(piece, 1000))
    monkeypatch.setattr(server_client, "ANSWER_LIMIT_S", 0.0)
    with pytest.raises(ServerFailed, match="takes longer"):
        asked(events_head(), *itertools.repeat(b": still working\n\n", 1000))


def test_nothing_that_a_server_sends_moves_the_cursor(tmp_path: Any) -> None:
    hostile = events_head() + event("transcript", {"text": "\x1b[2Jyou", "language": "english"})
    hostile += event("text", {"delta": "a\x1b]0;title\x07b\r\x9bc\n"}) + audio() + DONE
    with AnsweringServer(lambda got: iter([hostile])) as server:
        (tmp_path / "question").write_bytes(b"anything: the server does not look")
        done = run("ask", str(tmp_path / "question"), env={"MIRRORCHAT_SERVER": server.url, "LANG": "C.UTF-8"})
    assert (done.returncode, done.stdout.decode()) == (0, "a ]0;title b  c\n\n")


# Recognition and speech


def routes(**answers: bytes) -> Any:
    """Return an answer for AnsweringServer: by the last part of the path, or `delete`."""

    def answer(got: Got) -> Iterator[bytes]:
        yield answers[got.method.lower() if got.method == "DELETE" else got.path.rpartition("/")[2]]

    return answer


def wav(samples: Any = SOUND) -> bytes:
    encoder = WavEncoder(24_000)
    return encoder.start() + encoder.encode(samples)


def test_words_with_their_times_are_heard() -> None:
    found = {"text": "hello there", "duration": 1.5, "words": [{"word": "hello", "start": 0.1, "end": 0.4}]}
    with AnsweringServer(routes(transcriptions=reply_json(found))) as server, ServerClient(server.url) as client:
        heard = recognize_on_server(client, b"sound", Language.ENGLISH, timed=True)
    token = {"text": "hello", "start": 0.1, "end": 0.4, "confidence": None}
    assert heard["text"] == "hello there" and heard["tokens"] == [token]
    assert b'name="language"\r\n\r\nen\r\n' in server.got[0].body and b"verbose_json" in server.got[0].body


def test_a_recogniser_that_knows_no_times_is_asked_without() -> None:
    refusal = reply_json({"error": {"message": "no", "code": "unsupported_parameter"}}, "400 Bad")

    def answer(got: Got) -> Iterator[bytes]:
        yield refusal if b"granularities" in got.body else reply_json({"text": "hello"})

    with AnsweringServer(answer) as server, ServerClient(server.url) as client:
        assert recognize_on_server(client, b"sound", Language.ENGLISH, timed=True)["text"] == "hello"


@pytest.mark.parametrize("found", [[], {}, {"text": 7}, {"text": "x", "words": [1]}, {"text": "x", "duration": "long"}])
def test_what_is_no_transcript_is_told(found: object) -> None:
    with (
        AnsweringServer(routes(transcriptions=reply_json(found))) as server,
        ServerClient(server.url) as client,
        pytest.raises(ServerFailed, match="does not answer as"),
    ):
        recognize_on_server(client, b"sound", Language.ENGLISH, timed=False)


def test_speech_comes_in_a_voice_that_is_deleted_afterwards() -> None:
    answers = {
        "voices": reply_json({"id": "voice_1"}),
        "speech": reply(wav(), "200 OK", "audio/wav", "X-MirrorChat-Voice: clone; 2.0 s of speech"),
        "delete": reply_json({"deleted": True}),
    }
    with (
        AnsweringServer(routes(**answers)) as server,
        ServerClient(server.url) as client,
        speech_from_server(client, "Hello there.", b"sample", Language.ENGLISH) as (voice, pieces),
    ):
        samples = np.concatenate([piece.samples for piece in pieces])
    assert voice.kind is VoiceKind.CLONE and np.abs(samples - SOUND).max() < 1e-3
    assert [(got.method, got.path.removeprefix("/v1/audio")) for got in server.got] == [
        ("POST", "/voices"),
        ("POST", "/speech"),
        ("DELETE", "/voices/voice_1"),
    ]


def test_a_long_text_is_said_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_speech, "INPUT_LIMIT_CHARS", 40)
    text = "This is the first sentence of it. And here is the second sentence."
    with (
        AnsweringServer(routes(speech=reply(wav(), kind="audio/wav"))) as server,
        ServerClient(server.url) as client,
        speech_from_server(client, text, None, Language.ENGLISH) as (_, pieces),
    ):
        assert sum(len(piece.samples) for piece in pieces) == 2 * len(SOUND)
    assert len(server.got) == 2 and all(b'"voice": "default"' in got.body for got in server.got)


@pytest.mark.parametrize(
    "sound", [b"", b"RI", b"ID3 is no wav", wav()[:30], b"RIFF\xff\xff\xff\xffWAVEjunk\xff\xff\xff\x7f" + b"x" * 9000,
              wav()[:22] + b"\x02" + wav()[23:]],
)  # fmt: skip
def test_what_is_no_speech_is_told_and_the_voice_is_deleted(sound: bytes) -> None:
    answers = {
        "voices": reply_json({"id": "a/b"}),
        "speech": reply(sound, kind="audio/wav"),
        "delete": reply_json({"deleted": True}),
    }
    with (
        AnsweringServer(routes(**answers)) as server,
        ServerClient(server.url) as client,
        pytest.raises(ServerFailed, match="wav"),
        speech_from_server(client, "Hello.", b"sample", Language.ENGLISH) as (_, pieces),
    ):
        assert all(isinstance(piece, Audio) for piece in pieces)
    assert server.got[-1].path == "/v1/audio/voices/a%2Fb"
