"""Chat completions: passed on to the chat APIs with the same fallback, and spoken where audio is asked for."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from support.chat_server import (
    DONE,
    Exchange,
    answer,
    body,
    chunked_stream,
    delta,
    hang_before_headers,
    status,
    truncated,
)
from support.checks import wait_for
from support.openai_scene import MODEL, OTHER_MODEL, QUESTION, QUESTION_FILE, Scene, heard, heard_pcm, is_loud
from support.running_server import RunningServer

ASK: list[Any] = [{"role": "user", "content": "What colour is the sky?"}]
AUDIO: dict[str, Any] = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "pcm16"}}
RECORDING = base64.b64encode(QUESTION_FILE.read_bytes()).decode()
SPOKEN_ASK: list[Any] = [
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": RECORDING, "format": "wav"}}]}
]


@pytest.fixture
def scene(openai_scene: Scene) -> Iterator[Scene]:
    """The scene with two chat APIs that answer, and have not been asked yet."""
    for chat, text in zip(openai_scene.chats, ("The sky is blue.", "The second one answers."), strict=True):
        chat.behaviour = answer(text)
        chat.requests.clear()
    yield openai_scene


@pytest.fixture
def client(scene: Scene) -> OpenAI:
    return scene.client()


def ask(client: OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "mirrorchat", "messages": ASK} | fields)


def event(choice: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """Return an event of OpenAI's stream with anything in it."""
    chunk = {"object": "chat.completion.chunk", "choices": [choice] if choice else []} | fields
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_an_answer_is_passed_on(scene: Scene, client: OpenAI) -> None:
    completion = ask(client)
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "The sky is blue.",
        "stop",
    )
    assert (completion.object, completion.model) == ("chat.completion", "mirrorchat") and completion.created > 1e9
    (request,) = scene.chats[0].requests
    assert request.messages == ASK and request.body["model"] == MODEL and request.body["stream"] is True


def test_an_answer_is_streamed(client: OpenAI) -> None:
    chunks = list(ask(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(texts) > 2 and "".join(texts) == "The sky is blue."
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


def test_what_the_client_asks_for_is_passed_on(scene: Scene, client: OpenAI) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
    ]
    fields = {"temperature": 0.3, "max_completion_tokens": 50, "stop": ["x"], "seed": 7, "top_p": 0.5, "user": "u"}
    ask(client, messages=messages, **fields, extra_body={"colour": "blue"})
    sent = scene.chats[0].requests[0].body
    assert {name: sent[name] for name in fields} == fields and "colour" not in sent
    assert sent["messages"] == [messages[0], {"role": "user", "content": "One.\nTwo."}, messages[2]]
    assert sent["stream_options"] == {"include_usage": True}
    list(ask(client, stream=True))
    assert "stream_options" not in scene.chats[0].requests[1].body


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://169.254.169.254/latest/meta-data/", "http://pictures.example/", "file:///etc"],
)
def test_a_url_that_leads_inside_is_not_passed_on(scene: Scene, client: OpenAI, url: str) -> None:
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, messages=[{"role": "user", "content": [part]}], stream=stream)
        assert caught.value.param == "messages" and caught.value.code == "invalid_value"
    assert scene.chats[0].requests == []
    part["image_url"] = {"url": "https://pictures.example/cat.png"}
    ask(client, messages=[{"role": "user", "content": [part]}])
    assert scene.chats[0].requests[0].body["messages"][0]["content"] == [part]


def test_calls_of_tools_come_back(scene: Scene, client: OpenAI) -> None:
    def call(**function: str) -> dict[str, Any]:
        return {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function}]}, "finish_reason": None}

    begin = call(name="look_up", arguments="")
    begin["delta"]["tool_calls"][0] |= {"id": "call_1", "type": "function"}
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    scene.chats[0].behaviour = chunked_stream(
        event(begin), event(call(arguments='{"city":')), event(call(arguments=' "Paris"}')), event(end), DONE
    )
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    (choice,) = ask(client, tools=[tool], tool_choice="auto").choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (made,) = choice.message.tool_calls
    assert (made.id, made.function.name, json.loads(made.function.arguments)) == (
        "call_1",
        "look_up",
        {"city": "Paris"},
    )
    assert scene.chats[0].requests[0].body["tools"] == [tool]
    chunks = list(ask(client, tools=[tool], stream=True))
    parts = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert "".join(part.function.arguments for part in parts) == '{"city": "Paris"}'


def test_what_an_answer_took_is_said_where_the_api_says_it(scene: Scene, client: OpenAI) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    scene.chats[0].behaviour = chunked_stream(delta("Blue."), delta(None, "length"), event(usage=usage), DONE)
    completion = ask(client)
    assert completion.usage.total_tokens == 11 and completion.choices[0].finish_reason == "length"
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 11
    assert all(chunk.usage is None for chunk in ask(client, stream=True))


def test_an_api_that_does_not_stream_is_heard_too(scene: Scene, client: OpenAI) -> None:
    message = {"role": "assistant", "content": "Blue \U0001f600."}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {"total_tokens": 3}}
    scene.chats[0].behaviour = body(json.dumps(whole).encode())
    assert ask(client).choices[0].message.content == "Blue \U0001f600."
    assert ask(client).usage.total_tokens == 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True)) == "Blue \U0001f600."


@pytest.mark.parametrize("failing", [status(500), chunked_stream(delta(None, "stop"), DONE), body(b"{}")])
def test_the_next_api_answers_where_one_fails(scene: Scene, client: OpenAI, failing: Any) -> None:
    scene.chats[0].behaviour = failing
    assert ask(client).choices[0].message.content == "The second one answers."
    scene.chats[0].behaviour = truncated("The sky")  # nobody has had any of it yet
    assert ask(client).choices[0].message.content == "The second one answers."


def test_a_stream_that_breaks_off_ends_in_an_error(scene: Scene, client: OpenAI) -> None:
    scene.chats[0].behaviour = truncated("The sky")
    stream, texts = ask(client, stream=True), list[str]()
    with pytest.raises(openai.APIError, match="broke off"):
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert scene.chats[1].requests == []


def test_where_no_api_answers_each_is_named(scene: Scene, client: OpenAI) -> None:
    for chat in scene.chats:
        chat.behaviour = status(500)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match=r"API 1 .* API 2") as raised:
            ask(client, stream=stream)
        assert (raised.value.status_code, raised.value.code) == (502, "no_chat_api")


def test_an_apis_own_model_can_be_named(scene: Scene, client: OpenAI) -> None:
    assert ask(client, model=OTHER_MODEL).choices[0].message.content == "The second one answers."
    assert scene.chats[0].requests == []
    scene.chats[1].behaviour = status(500)
    with pytest.raises(openai.InternalServerError):
        ask(client, model=OTHER_MODEL)  # and no other answers in its place
    assert ask(client, model="gpt-4o-mini").choices[0].message.content == "The sky is blue."
    with pytest.raises(openai.NotFoundError, match=MODEL):
        ask(client, model="tts-1")


def test_a_hang_up_ends_the_chat(scene: Scene, client: OpenAI) -> None:
    scene.chats[0].behaviour = hang_before_headers
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=3).chat.completions.create(model="mirrorchat", messages=ASK)
    wait_for(lambda: bool(scene.chats[0].requests) and scene.chats[0].requests[0].closed_early.is_set())
    scene.wait_until_idle()


@pytest.mark.parametrize(
    "wrong", ['"temperature": "0.5"', '"max_tokens": 1.5', '"seed": 1e999', '"seed": "1"', '"logit_bias": {"5": 1e999}']
)
def test_numbers_that_no_api_takes_are_refused_here(scene: Scene, wrong: str) -> None:
    body = f'{{"model": "mirrorchat", "messages": [{{"role": "user", "content": "Hi"}}], {wrong}}}'
    response = scene.send("POST", "/chat/completions", data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and scene.chats[0].requests == scene.chats[1].requests == []


# With sound


def test_a_recording_is_recognised_first(scene: Scene, client: OpenAI) -> None:
    ask(client, messages=[{"role": "system", "content": "Be brief."}, *SPOKEN_ASK])
    assert scene.chats[0].requests[0].messages[1] == {"role": "user", "content": QUESTION}


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus", "aac", "pcm16"])
def test_an_answer_is_spoken(scene: Scene, client: OpenAI, form: str) -> None:
    completion = ask(client, modalities=["text", "audio"], audio={"voice": "alloy", "format": form})
    audio = completion.choices[0].message.audio
    assert audio.transcript == "The sky is blue." and audio.id and audio.expires_at > 1e9
    data = base64.b64decode(audio.data)
    sound = heard_pcm(data) if form == "pcm16" else heard(data)
    assert is_loud(sound) and 0.8 < sound.duration_s < 4.0


def test_an_answer_is_spoken_in_an_enrolled_voice_as_it_comes(scene: Scene, client: OpenAI) -> None:
    voice = client.audio.voices.create(name="Anna", audio_sample=QUESTION_FILE, consent="")

    def spoken(voice: object) -> bytes:
        chunks = list(
            ask(
                client,
                messages=SPOKEN_ASK,
                modalities=["text", "audio"],
                audio={"voice": voice, "format": "pcm16"},
                stream=True,
            )
        )
        sounds = [chunk.choices[0].delta.audio for chunk in chunks if chunk.choices[0].delta.audio]
        assert "".join(sound.transcript or "" for sound in sounds) == "The sky is blue."
        assert len({sound.id for sound in sounds}) == 1 and chunks[-1].choices[0].finish_reason == "stop"
        return b"".join(base64.b64decode(sound.data) for sound in sounds if sound.data)

    try:
        own = spoken({"id": voice.id})
        assert is_loud(heard_pcm(own)) and own == spoken("Anna") != spoken("default")
    finally:
        client.audio.voices.delete(voice.id)


def test_a_spoken_answer_that_breaks_off_is_started_over_unless_it_was_heard(scene: Scene, client: OpenAI) -> None:
    scene.chats[0].behaviour = truncated("The sky is very blue. And")
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
    assert ask(client, **spoken).choices[0].message.audio.transcript == "The second one answers."
    spoken["audio"] = {"voice": "default", "format": "pcm16"}
    with pytest.raises(openai.APIError, match="broke off"):
        list(ask(client, **spoken, stream=True))


def sound_part(**fields: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": fields}]}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"), ({"messages": []}, "messages"), ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages"), ({"messages": ["x"]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages"),
        ({"messages": sound_part(data="!!", format="wav")}, "messages"), ({"messages": sound_part()}, "messages"),
        ({"n": 2}, "n"), ({"logprobs": True}, "logprobs"), ({"store": True}, "store"),
        (AUDIO | {"functions": [{"name": "f"}]}, "functions"), ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"), ({"stream": "maybe"}, "stream"), ({"stream_options": 1}, "stream_options"),
        ({"modalities": ["smell"]}, "modalities"), ({"modalities": ["audio"]}, "audio"),
        (AUDIO | {"audio": {"format": "wav"}}, "audio.voice"),
        (AUDIO | {"audio": {"voice": "x", "format": "au"}}, "audio.format"),
        (AUDIO | {"stream": True, "audio": {"voice": "default", "format": "mp3"}}, "audio.format"),
        (AUDIO | {"tools": [{"type": "function"}]}, "tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(scene: Scene, fields: dict[str, Any], param: str) -> None:
    response = scene.send("POST", "/chat/completions", json={"model": "mirrorchat", "messages": ASK} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert scene.chats[0].requests == []


def test_a_voice_or_words_that_are_not_there_cost_no_question(scene: Scene, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, modalities=["text", "audio"], audio={"voice": "nobody", "format": "wav"})
    assert missing.value.param == "audio.voice"
    noise = base64.b64encode(QUESTION_FILE.read_bytes()[:44] + b"\x00\x10" * 16_000).decode()
    with pytest.raises(openai.UnprocessableEntityError):
        ask(client, messages=sound_part(data=noise, format="wav"))
    with pytest.raises(openai.APIStatusError) as unread:
        ask(client, messages=sound_part(data="AAAA", format="mp3"))
    assert (unread.value.status_code, unread.value.param) == (415, "messages")
    assert scene.chats[0].requests == []


def test_hostile_apis_do_no_harm(scene: Scene, client: OpenAI) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.head()
        while True:
            exchange.chunk(delta("x" * 20_000))

    calls = {"index": 0, "delta": {"tool_calls": [5, {"index": "x", "function": [], "id": 7}]}, "finish_reason": None}
    scene.chats[0].behaviour = chunked_stream(event(calls), event(calls), delta(None, "stop"), DONE)
    assert ask(client).choices[0].finish_reason == "stop"
    scene.chats[0].behaviour = endless
    assert ask(client).choices[0].message.content == "The second one answers."


def test_the_parrot_answers_where_no_api_is_set(embedded_server: RunningServer) -> None:
    client = OpenAI(base_url=f"{embedded_server.url}/v1", api_key="none", max_retries=0)
    text = ask(client, model="parrot").choices[0].message.content
    assert "No chat API is set" in text and "What colour is the sky?" in text
    chunks = list(ask(client, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
