"""What callers get of a chat API that reasons, is at its rate limit, or sends odd forms, on a running server."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from openai import InternalServerError, OpenAI
from support.chat_server import (
    DONE,
    Behaviour,
    ChatServer,
    Exchange,
    answer,
    body,
    chunked_stream,
    delta,
    reasoning,
    status,
)
from support.checks import check_error
from support.running_server import RunningServer, conf_that_admits_all
from support.speech import say_wav
from support.stream_client import ask_streamed, events_of, named

ASK: list[Any] = [{"role": "user", "content": "Why are there tides?"}]
REPLY = "The moon pulls the water."
THOUGHT = "zebra"  # a word of the reasoning


class Scene:
    """A server with one chat API."""

    def __init__(self, server: RunningServer, chat: ChatServer) -> None:
        self.server, self.chat = server, chat
        self.openai = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)

    def ask(self, **fields: str) -> requests.Response:
        return self.server.ask(say_wav("hello there"), "english", **{"text": "Why?", **fields})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("chat")
    with (
        ChatServer() as chat,
        RunningServer(
            folder, gunicorn_conf=conf_that_admits_all(folder), chatgpt_apis=[chat.api()], chat_cooldown_s=0.0
        ) as server,
    ):
        yield Scene(server, chat)


def whole(content: str) -> Behaviour:
    return body(b'{"choices": [{"message": {"content": "%s"}}]}' % content.encode())


THINKING: list[Behaviour] = [
    answer(f"<think>A {THOUGHT}. Then another.</think>{REPLY}"),
    chunked_stream(reasoning(f"A {THOUGHT}. "), delta(REPLY, "stop"), DONE),
    answer(
        f"<|channel|>analysis<|message|>{THOUGHT}.<|end|><|start|>assistant<|channel|>final<|message|>{REPLY}<|return|>"
    ),
    answer(f"Okay, the user sent a {THOUGHT}. Then another.\n</think>\n\n{REPLY}<|im_end|>"),
    whole(f"A {THOUGHT}. Then another.</think>{REPLY}"),
]


@pytest.mark.parametrize("behaviour", THINKING)
def test_reasoning_is_never_heard_shown_or_remembered(scene: Scene, behaviour: Behaviour) -> None:
    scene.chat.behaviour = behaviour
    wav = scene.ask()
    assert unquote(wav.headers["X-MirrorChat-Reply"]) == REPLY
    whole_answer = scene.ask(response_format="json", session_id=wav.headers["X-MirrorChat-Session"])
    assert whole_answer.json()["reply"] == REPLY
    remembered = [message["content"] for message in scene.chat.requests[-1].messages[1:]]
    assert remembered == ["Why?", REPLY, "Why?"]
    events = named(events_of(ask_streamed(scene.server.url, None, response_format="sse", text="Why?")))
    assert THOUGHT not in str([event.data for event in events if event.name != "audio"])
    assert {event.data["sentence"] for event in events if event.name == "audio"} == {REPLY}


@pytest.mark.parametrize("behaviour", THINKING)
def test_reasoning_is_not_passed_on_to_clients_of_openais_api(scene: Scene, behaviour: Behaviour) -> None:
    scene.chat.behaviour = behaviour
    create: Any = scene.openai.chat.completions.create
    message = create(model="mirrorchat", messages=ASK).choices[0].message
    assert message.content.strip() == REPLY and THOUGHT not in message.model_dump_json()
    chunks = list(create(model="mirrorchat", messages=ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == REPLY
    assert THOUGHT not in "".join(chunk.model_dump_json() for chunk in chunks)
    audio = {"voice": "default", "format": "wav"}
    spoken = create(model="mirrorchat", messages=ASK, modalities=["text", "audio"], audio=audio).choices[0].message
    assert spoken.audio.transcript == REPLY and len(base64.b64decode(spoken.audio.data)) > 20_000


def test_an_api_that_omits_the_opening_tag_is_asked_again_while_nobody_has_heard_anything(scene: Scene) -> None:
    """The beginning looks like an answer; in this process the API has not shown yet that it omits the tag."""
    scene.chat.behaviour = answer(REPLY)
    scene.ask()
    asked = len(scene.chat.requests)
    scene.chat.behaviour = answer(f"A {THOUGHT} is meant.</think>{REPLY}")
    assert scene.ask(response_format="json").json()["reply"] == REPLY
    assert len(scene.chat.requests) == asked + 2
    assert scene.ask(response_format="json").json()["reply"] == REPLY
    assert len(scene.chat.requests) == asked + 3


@pytest.mark.parametrize("header", ["7", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_rate_limit_of_the_chat_api_is_503_with_its_retry_after(scene: Scene, header: str) -> None:
    scene.chat.behaviour = status(429, f"Retry-After: {header}")
    expected = "7" if header == "7" else "300"
    for refused in (scene.ask(), scene.ask(response_format="json"), ask_streamed(scene.server.url, text="Why?")):
        assert "429" in check_error(refused, 503, "chat_rate_limited")
        assert refused.headers["Retry-After"] == expected
    for fields in (
        {},
        {"stream": True},
        {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}},
    ):
        asked = {"model": "mirrorchat", "messages": ASK, **fields}
        refused = requests.post(f"{scene.server.url}/v1/chat/completions", json=asked, timeout=60)
        assert "429" in check_error(refused, 503, "chat_rate_limited")
        assert refused.headers["Retry-After"] == expected
    create: Any = scene.openai.chat.completions.create
    with pytest.raises(InternalServerError) as caught:
        create(model="mirrorchat", messages=ASK)
    assert caught.value.status_code == 503


def test_the_words_of_the_chat_api_reach_the_caller(scene: Scene) -> None:
    scene.chat.behaviour = body('{"code": 401, "msg": "令牌已过期"}'.encode())
    assert "令牌已过期" in check_error(scene.ask(), 502, "no_chat_api")


def test_a_refusal_is_spoken_and_remembered(scene: Scene) -> None:
    refusal = b'data: {"choices": [{"delta": {"content": null, "refusal": "I cannot help with that."}}]}\n\n'
    scene.chat.behaviour = chunked_stream(refusal, delta(None, "stop"), DONE)
    first = scene.ask()
    assert unquote(first.headers["X-MirrorChat-Reply"]) == "I cannot help with that." and len(first.content) > 20_000
    scene.ask(session_id=first.headers["X-MirrorChat-Session"])
    assert scene.chat.requests[-1].messages[2]["content"] == "I cannot help with that."


def test_an_answer_that_is_too_long_to_be_spoken_ends_at_its_length(scene: Scene) -> None:
    scene.chat.behaviour = whole("Tides." + " " * 20_000 + "The end.")
    assert scene.ask(response_format="json").json()["finish_reason"] == "length"
    create: Any = scene.openai.chat.completions.create
    audio = {"voice": "default", "format": "pcm16"}
    spoken = {"model": "mirrorchat", "messages": ASK, "modalities": ["text", "audio"], "audio": audio}
    assert create(**spoken).choices[0].finish_reason == "length"
    assert list(create(**spoken, stream=True))[-1].choices[0].finish_reason == "length"


def test_calls_of_tools_without_an_index_reach_clients_of_openais_api_apart(scene: Scene) -> None:
    parts = [{"id": name, "function": {"name": name, "arguments": f'{{"of": "{name}"}}'}} for name in ("low", "high")]
    events = [json.dumps({"choices": [{"delta": {"tool_calls": [part]}}]}).encode() for part in parts]
    scene.chat.behaviour = chunked_stream(*(b"data: %s\n\n" % event for event in events), delta(None, "tool_calls"))
    asked: dict[str, Any] = {
        "model": "mirrorchat",
        "messages": ASK,
        "tools": [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("low", "high")],
    }
    messages = [scene.openai.chat.completions.create(**asked).choices[0].message]
    with scene.openai.chat.completions.stream(**asked) as stream:
        messages.append(stream.get_final_completion().choices[0].message)
    for message in messages:
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
        assert calls == [("low", "low", '{"of": "low"}'), ("high", "high", '{"of": "high"}')]


def test_the_word_after_a_long_silence_is_heard(scene: Scene) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(kind="text/plain")
        exchange.wait(3.0)
        exchange.chunk(delta(REPLY, "stop") + DONE)
        exchange.end()

    scene.chat.behaviour = behave
    assert scene.ask(response_format="json").json()["reply"] == REPLY
