"""What callers get of answers that are not plain sentences, on every route of a running server."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import requests
import soundfile
from openai import OpenAI
from support.chat_server import (
    DONE,
    Behaviour,
    ChatServer,
    Exchange,
    answer,
    chunked_stream,
    delta,
    in_turn,
    reasoning,
    status,
    truncated,
)
from support.checks import check_error
from support.command_line import environment, run
from support.places import QUESTION
from support.running_server import UNLUCKY, RunningServer, conf_that_admits_all
from support.speech import say_wav
from support.stream_client import Gate, Received, ask_streamed, events_of, named

FIRST, LAST = "Here is the first sentence.", "This is the last sentence."
ASK: list[Any] = [{"role": "user", "content": "What is it?"}]
AUDIO: dict[str, Any] = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
PCM16 = AUDIO | {"audio": {"voice": "default", "format": "pcm16"}}


class Talk:
    """A server with two chat APIs, of which the second is asked when the first fails."""

    def __init__(self, server: RunningServer, first: ChatServer, second: ChatServer) -> None:
        self.server, self.first, self.second = server, first, second
        self.openai = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)

    def answers(self, first: Behaviour, second: Behaviour | None = None) -> None:
        self.first.behaviour, self.second.behaviour = first, second or status(500)

    def ask(self, **fields: str) -> requests.Response:
        return self.server.ask(say_wav("hello there"), "english", **{"text": "Hi", **fields})

    def events(self, **fields: str) -> list[Received]:
        return named(events_of(ask_streamed(self.server.url, None, response_format="sse", **fields)))


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    folder = tmp_path_factory.mktemp("odd")
    with (
        ChatServer() as first,
        ChatServer() as second,
        RunningServer(
            folder,
            gunicorn_conf=conf_that_admits_all(folder),
            chatgpt_apis=[first.api(model="first"), second.api(model="second")],
            chat_cooldown_s=0.0,
        ) as server,
    ):
        yield Talk(server, first, second)


def seconds(wav: bytes) -> float:
    """Return the length of a wav that sounds like speech."""
    samples, rate_hz = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert np.abs(samples).max() > 0.1
    return len(samples) / int(rate_hz)


def of(events: list[Received], name: str) -> list[dict[str, Any]]:
    return [event.data for event in events if event.name == name]


# Without a word to speak

WORDLESS = {"😀👍": "only emoji", "...": "no words", "```sh\nls -l\n```": "only code", "---": "no words"}


@pytest.mark.parametrize("reply", WORDLESS)
def test_a_reply_without_words_is_an_answer(talk: Talk, reply: str) -> None:
    talk.answers(answer(reply))
    wav = talk.ask()
    assert wav.status_code == 200 and 1.0 < seconds(wav.content) < 6.0
    assert unquote(wav.headers["X-MirrorChat-Reply"]) == reply
    whole = talk.ask(response_format="json").json()
    assert whole["reply"] == reply and whole["unspoken"] == []
    events = talk.events()
    assert {WORDLESS[reply] in each["sentence"] for each in of(events, "audio")} == {True}
    assert events[-1].name == "done" and events[-1].data["reply"] == reply
    for name in ("wav", "pcm", "opus", "mp3"):
        streamed = ask_streamed(talk.server.url, response_format=name)
        assert streamed.status_code == 200 and len(streamed.content) > 4000


def test_a_reply_without_words_is_an_answer_for_clients_of_openai_and_the_command(talk: Talk, tmp_path: Path) -> None:
    talk.answers(answer("😀👍"))
    ask: Any = talk.openai.chat.completions.create
    audio = ask(model="mirrorchat", messages=ASK, **AUDIO).choices[0].message.audio
    assert audio.transcript == "😀👍" and seconds(base64.b64decode(audio.data)) > 1.0
    chunks = list(ask(model="mirrorchat", messages=ASK, stream=True, **PCM16))
    sounds = [chunk.choices[0].delta.audio for chunk in chunks if chunk.choices[0].delta.audio]
    assert "".join(sound.transcript or "" for sound in sounds) == "😀👍"
    assert len(b"".join(base64.b64decode(sound.data) for sound in sounds if sound.data)) > 48_000
    env = environment(tmp_path, MIRRORCHAT_SERVER=talk.server.url)
    for place in ([], ["--config", str(talk.server.config)]):  # on the server, and with engines of its own
        out = tmp_path / "answer.wav"
        done = run("ask", str(QUESTION), "--text", "Hi", "--out", str(out), *place, env=env)
        assert (done.returncode, done.stdout.decode()) == (0, "😀👍\n"), done.stderr
        assert seconds(out.read_bytes()) > 1.0


def test_a_session_remembers_the_reply_itself(talk: Talk) -> None:
    talk.answers(answer("🙂"))
    session = talk.ask().headers["X-MirrorChat-Session"]
    assert talk.ask(session_id=session).status_code == 200
    assert [message["content"] for message in talk.first.requests[-1].messages[1:]] == ["Hi", "🙂", "Hi"]


# No API answers


def test_that_no_api_answers_is_heard_before_the_error(talk: Talk) -> None:
    talk.answers(answer("It is."))
    session = talk.ask().headers["X-MirrorChat-Session"]
    talk.answers(status(500))
    events = talk.events(session_id=session)
    names = [event.name for event in events]
    assert names[-1] == "error" and names.index("audio") < names.index("error") and names.count("voice") == 1
    assert len({(each["index"], each["sentence"]) for each in of(events, "audio")}) == 1
    assert "No chat service" in of(events, "audio")[0]["sentence"] and of(events, "text") == []
    assert events[-1].data["error"]["code"] == "no_chat_api"
    chinese = of(talk.events(reply_language="zh"), "audio")
    assert "聊天服务" in chinese[0]["sentence"]
    talk.answers(answer("It is again."))
    assert talk.ask(session_id=session).status_code == 200  # as if nothing had been asked in between
    contents = [message["content"] for message in talk.first.requests[-1].messages[1:]]
    assert contents == ["Hi", "It is.", "Hi"]


def test_where_nothing_is_streamed_that_no_api_answers_is_a_status(talk: Talk) -> None:
    talk.answers(status(500))
    check_error(talk.ask(), 502, "no_chat_api")
    check_error(talk.ask(response_format="json"), 502, "no_chat_api")
    check_error(ask_streamed(talk.server.url, response_format="opus"), 502, "no_chat_api")
    for fields in ({}, AUDIO, PCM16 | {"stream": True}):
        body = {"model": "mirrorchat", "messages": ASK, **fields}
        check_error(requests.post(f"{talk.server.url}/v1/chat/completions", json=body, timeout=60), 502, "no_chat_api")


# A sentence that fails, an answer that breaks off


def test_a_defect_in_one_sentence_ends_no_other(talk: Talk) -> None:
    talk.answers(answer(f"{FIRST} An {UNLUCKY} one follows it. {LAST}"))
    events = talk.events()
    (failed,) = of(events, "sentence_failed")
    assert (failed["index"], failed["sentence"]) == (1, f"An {UNLUCKY} one follows it.")
    assert failed["error"]["code"] == "internal_error" and events[-1].name == "done"
    assert {each["sentence"] for each in of(events, "audio")} == {FIRST, LAST}
    whole = talk.ask(response_format="json").json()
    assert whole["unspoken"] == [failed] and seconds(base64.b64decode(whole["audio"])) > 2.0
    wav = talk.ask()
    assert unquote(wav.headers["X-MirrorChat-Unspoken"]) == failed["sentence"] and seconds(wav.content) > 2.0
    stream = ask_streamed(talk.server.url, response_format="pcm").iter_content(None)
    heard = bytearray()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):  # nobody takes it for the whole answer
        for piece in stream:
            heard += piece
    assert len(heard) == len(wav.content) - 44
    assert "one follows" not in talk.server.log and "unexpected RecursionError" in talk.server.log


def test_a_defect_in_one_sentence_is_told_to_clients_of_openai(talk: Talk) -> None:
    failed = f"An {UNLUCKY} one follows it."
    text = f"{FIRST} {failed} {LAST}"
    talk.answers(answer(text))
    url, body = f"{talk.server.url}/v1/chat/completions", {"model": "mirrorchat", "messages": ASK}
    whole = requests.post(url, json=body | AUDIO, timeout=60)
    assert unquote(whole.headers["X-MirrorChat-Unspoken"]) == failed
    assert seconds(base64.b64decode(whole.json()["choices"][0]["message"]["audio"]["data"])) > 2.0
    lines = requests.post(url, json=body | PCM16 | {"stream": True}, timeout=60).text.strip().split("\n\n")
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
    heard = [json.loads(line[6:])["choices"][0]["delta"].get("audio", {}).get("data", "") for line in lines[:-1]]
    assert len(b"".join(map(base64.b64decode, heard))) > 96_000
    speech = {"model": "tts-1", "input": text, "voice": "default", "response_format": "pcm"}
    response = requests.post(f"{talk.server.url}/v1/audio/speech", json=speech, timeout=60, stream=True)
    data = bytearray()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        for piece in response.iter_content(None):
            data += piece
    assert len(data) > 96_000


def test_an_answer_of_which_nothing_can_be_spoken_is_a_failure(talk: Talk) -> None:
    talk.answers(answer(f"{UNLUCKY} words."))
    for response in (talk.ask(), ask_streamed(talk.server.url)):
        assert response.status_code == 500 and response.json()["error"]["code"] == "internal_error"
    assert [event.name for event in talk.events()][-3:] == ["sentence_failed", "timings", "done"]


def test_the_whole_sentences_of_an_answer_that_breaks_off_are_heard(talk: Talk) -> None:
    talk.answers(truncated(f"{FIRST} And it goes on. But ", "then"))
    events = talk.events()
    assert list(dict.fromkeys(each["sentence"] for each in of(events, "audio"))) == [FIRST, "And it goes on."]
    assert events[-1].data["error"]["code"] == "chat_interrupted"


def test_reasoning_that_was_taken_for_an_answer_is_taken_back(talk: Talk, tmp_path: Path) -> None:
    shown = "Their question is about the sky. An easy one. "

    def unmarked() -> None:
        """Send reasoning without its tag, once; then answers that are none."""
        gate = Gate(shown, f"</think>{FIRST}")
        gate.opened.set()
        talk.answers(in_turn(gate.behave, answer(FIRST)))

    unmarked()
    events = talk.events()
    over = events.index(Received("started_over", {}))
    assert "".join(each["delta"] for each in of(events[over:], "text")) == FIRST == events[-1].data["reply"]
    assert {each["sentence"] for each in of(events[over:], "audio")} == {FIRST}
    unmarked()
    out = tmp_path / "answer.wav"
    env = environment(tmp_path, MIRRORCHAT_SERVER=talk.server.url)
    done = run("ask", str(QUESTION), "--text", "Hi", "--json", "--out", str(out), env=env)
    assert json.loads(done.stdout)["reply"] == FIRST and b"reasoning" in done.stderr
    assert seconds(out.read_bytes()) == pytest.approx(json.loads(done.stdout)["audio_s"], abs=0.01)
    unmarked()
    body = {"model": "mirrorchat", "messages": ASK, "stream": True}
    text = requests.post(f"{talk.server.url}/v1/chat/completions", json=body, timeout=60).text
    assert '"code": "reasoning_sent"' in text.strip().split("\n\n")[-1]  # OpenAI's API can take nothing back
    talk.answers(answer(FIRST))
    assert talk.ask().status_code == 200


def test_reasoning_that_was_heard_as_an_answer_breaks_the_audio_off(talk: Talk) -> None:
    gate = Gate("Their question is about the sky. An easy one. ", f"</think>{FIRST}")
    talk.answers(in_turn(gate.behave, answer(FIRST)))
    with gate.open_at_the_end():
        pieces = ask_streamed(talk.server.url, response_format="pcm").iter_content(None)
        assert next(pieces)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(pieces)
    assert talk.ask().status_code == 200  # after which the others' answers are no reasoning


# Which API answered, and how the answer ended


def test_the_api_that_answered_is_named(talk: Talk) -> None:
    talk.answers(truncated("Half an"), answer(f"{FIRST} {LAST}"))
    second = f"second@127.0.0.1:{talk.second.port}"
    wav = talk.ask()
    assert f"chat=chat/{second} " in wav.headers["X-MirrorChat-Engines"]
    assert "first@" not in wav.headers["X-MirrorChat-Engines"]
    assert talk.ask(response_format="json").json()["engines"]["chat"] == {"name": "chat", "model": second, "tier": ""}
    streamed = ask_streamed(talk.server.url)
    assert f"chat=chat/{second} " in streamed.headers["X-MirrorChat-Engines"]
    talk.answers(status(500), answer(f"{FIRST} {LAST}"))
    for fields in ({}, {"stream": True}, AUDIO, PCM16 | {"stream": True}):
        body = {"model": "mirrorchat", "messages": ASK, **fields}
        response = requests.post(f"{talk.server.url}/v1/chat/completions", json=body, timeout=60)
        assert f"chat=chat/{second} " in response.headers["X-MirrorChat-Engines"]
    assert talk.events()[-1].data["engines"]["chat"]["model"] == second


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_off_says_so(talk: Talk, reason: str, tmp_path: Path) -> None:
    talk.answers(chunked_stream(delta("It begins. And it"), delta(None, reason), DONE))
    assert talk.ask().headers["X-MirrorChat-Finish-Reason"] == reason
    assert talk.ask(response_format="json").json()["finish_reason"] == reason
    done = talk.events()[-1]
    assert (done.name, done.data["finish_reason"]) == ("done", reason)
    ask: Any = talk.openai.chat.completions.create
    for fields in ({}, AUDIO):
        assert ask(model="mirrorchat", messages=ASK, **fields).choices[0].finish_reason == reason
    env = environment(tmp_path, MIRRORCHAT_SERVER=talk.server.url)
    for place in ([], ["--config", str(talk.server.config)]):
        said = run("ask", str(QUESTION), "--text", "Hi", "--json", *place, env=env)
        assert said.returncode == 0 and json.loads(said.stdout)["finish_reason"] == reason
        assert {"length": b"length limit", "content_filter": b"filter"}[reason] in said.stderr


def test_a_whole_answer_says_that_it_stopped(talk: Talk) -> None:
    talk.answers(answer(FIRST))
    assert "X-MirrorChat-Finish-Reason" not in talk.ask().headers
    assert talk.ask(response_format="json").json()["finish_reason"] == "stop"


# Thinking


def thinks(exchange: Exchange) -> None:
    """Reason for three seconds, then answer."""
    exchange.head()
    for _ in range(6):
        exchange.wait(0.5)
        exchange.chunk(reasoning("Hmm, a zebra. "))
    exchange.chunk(delta(FIRST) + delta(None, "stop") + DONE)
    exchange.end()


def test_a_model_that_thinks_keeps_the_stream_alive(talk: Talk) -> None:
    talk.answers(thinks)
    received = list(events_of(ask_streamed(talk.server.url, response_format="sse")))
    events = named(iter(received))
    names = [event.name for event in events]
    assert names.count("thinking") == 1 and names.index("thinking") < names.index("text")
    began = received.index(Received("thinking", {}))
    assert "still working" in received[began : received.index(next(e for e in events if e.name == "text"))]
    assert "zebra" not in repr(events) and events[-1].data["reply"] == FIRST


@pytest.mark.parametrize("spoken", [False, True])
def test_a_client_of_openai_waits_while_the_model_thinks(talk: Talk, spoken: bool) -> None:
    talk.answers(thinks)
    body = {"model": "mirrorchat", "messages": ASK, "stream": True, **(PCM16 if spoken else {})}
    response = requests.post(f"{talk.server.url}/v1/chat/completions", json=body, timeout=60, stream=True)
    lines = [line for line in response.iter_lines() if line]
    assert b": still working" in lines and lines[-1] == b"data: [DONE]"
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines[:-1] if line.startswith(b"data: ")]
    texts = [delta.get("audio", {}).get("transcript") if spoken else delta.get("content") for delta in deltas]
    assert "".join(text or "" for text in texts) == FIRST and b"zebra" not in b"".join(lines)
