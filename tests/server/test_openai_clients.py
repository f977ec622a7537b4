"""Programs that people point at the server: each sends the requests that it sends anywhere, and gets what it reads.

docs/clients.md says how to set them up.
"""

import asyncio
import io
import json
import urllib.request
import wave
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from support.chat_server import answer, chunked_stream, delta
from support.client_requests import BOUNDARY, HOST, LENGTH, Answer, node_form, node_json, python_json, send
from support.openai_scene import KEY_A, MODEL, QUESTION, QUESTION_FILE, Scene, heard, heard_pcm, is_loud
from support.running_server import RunningServer

BEARER = f"Bearer {KEY_A}"
RECORDING = QUESTION_FILE.read_bytes()
JSON = ("Content-Type", "application/json")
KEY = ("Authorization", BEARER)
AIOHTTP = [
    ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate"), ("User-Agent", "Python/3.11 aiohttp/3.14.5"),
]  # fmt: skip
AXIOS = [("Accept-Encoding", "gzip, compress, deflate, br"), ("Host", HOST), ("Connection", "keep-alive")]
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "switch", "arguments": '{"on": true}'}}


@pytest.fixture
def scene(openai_scene: Scene) -> Iterator[Scene]:
    for chat in openai_scene.chats:
        chat.behaviour = answer("The sky is blue.")
        chat.requests.clear()
    yield openai_scene


def ignored(response: Answer | requests.Response) -> str | None:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return headers.get("x-mirrorchat-ignored")


def check_mp3(response: Answer) -> None:
    assert (response.status, response.headers["content-type"]) == (200, "audio/mpeg"), response.body
    assert response.body[:3] == b"ID3" or response.body[0] == 0xFF
    assert is_loud(heard(response.body))


def enrolled(scene: Scene) -> str:
    """Enrol a voice and return its id."""
    voice = scene.client().audio.voices.create(name="Me", audio_sample=QUESTION_FILE, consent="")
    return voice.id


# Open WebUI


def test_open_webui_lists_voices_and_models(embedded_server: RunningServer) -> None:
    """It asks without a key, and reads `id` and `name` of each entry."""
    base = f"{embedded_server.url}/v1"
    voices = requests.get(f"{base}/audio/voices", timeout=10)
    voices.raise_for_status()
    assert {voice["id"]: voice["name"] for voice in voices.json().get("voices", [])} == {"default": "default"}
    models = requests.get(f"{base}/audio/models", timeout=10)
    models.raise_for_status()
    ids = [model["id"] for model in models.json().get("models", [])]
    assert ids[0] == "mirrorchat" and any("eSpeak" in each for each in ids) and len(ids) == 2


def test_open_webui_lists_the_voices_of_a_key(scene: Scene) -> None:
    for path in ("/audio/voices", "/audio/models"):
        assert requests.get(f"{scene.base_url}{path}", timeout=10).status_code == 401  # it then lists OpenAI's
    voice_id = enrolled(scene)
    try:
        listed = scene.send("GET", "/audio/voices").json()
        assert listed["voices"] == [{"id": "default", "name": "default"}, {"id": voice_id, "name": "Me"}]
        assert [each["id"] for each in listed["data"]] == ["default", voice_id]  # as OpenAI's own clients read them
        spoken = open_webui_speech(scene, model="tts-1", voice=voice_id)
        check_mp3(spoken)
        assert spoken.headers["x-mirrorchat-voice"].startswith("tint") and ignored(spoken) == "model"
    finally:
        scene.client().audio.voices.delete(voice_id)


def open_webui_speech(scene: Scene, **fields: str) -> Answer:
    headers = [("Host", HOST), JSON, KEY, ("X-OpenWebUI-User-Name", "Mia%20L"), *AIOHTTP, ("Content-Length", LENGTH)]
    body = {"input": "Hello from the other side.", "voice": fields.pop("voice"), **fields}
    return send(f"{scene.base_url}/audio/speech", "POST", headers, python_json(body))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"voice": "alloy", "model": "tts-1"}, "model, voice"),
        ({"voice": "af_heart", "model": "kokoro"}, "model, voice"),
        ({"voice": "", "model": "mirrorchat"}, None),
        ({"voice": "default", "model": "mirrorchat", "lang_code": "a", "response_format": "mp3"}, "lang_code"),
    ],
)
def test_open_webui_reads_aloud(scene: Scene, fields: dict[str, str], told: str | None) -> None:
    spoken = open_webui_speech(scene, **fields)
    check_mp3(spoken)
    assert spoken.headers["x-mirrorchat-voice"].startswith("neutral") and ignored(spoken) == told


def test_open_webui_hears(scene: Scene) -> None:
    def ask(data: dict[str, str]) -> requests.Response:
        return requests.post(
            url=f"{scene.base_url}/audio/transcriptions",
            headers={"Authorization": BEARER},
            files={"file": ("0b2e.wav", io.BytesIO(RECORDING))},
            data=data,
            timeout=60,
        )

    older = ask({"model": "whisper-1", "language": "en"})
    assert older.json()["text"] == QUESTION
    newer = ask({"model": "Systran/faster-whisper-small", "response_format": "verbose_json",
                 "timestamp_granularities[]": "segment"})  # fmt: skip
    assert newer.json()["text"] == QUESTION and ignored(newer) == "model"
    (segment,) = newer.json()["segments"]
    assert {"id", "start", "end", "text"} <= segment.keys()
    # A language that is not heard here: it asks again without it.
    assert ask({"model": "whisper-1", "language": "tlh"}).status_code == 400
    assert ask({"model": "whisper-1"}).json()["text"] == QUESTION


def test_open_webui_chats(scene: Scene) -> None:
    models = send(f"{scene.base_url}/models", "GET", [("Host", HOST), KEY, *AIOHTTP])
    listed = [model["id"] for model in json.loads(models.body)["data"]]
    assert listed[0] == "mirrorchat" and MODEL in listed
    messages = [{"role": "user", "content": "What colour is the sky?"}]
    body: dict[str, Any] = {"stream": True, "model": "mirrorchat", "messages": messages}
    headers = [("Host", HOST), KEY, JSON, *AIOHTTP, ("Content-Length", LENGTH)]
    streamed = send(f"{scene.base_url}/chat/completions", "POST", headers, python_json(body))
    assert streamed.headers["content-type"].startswith("text/event-stream")  # it passes this stream on as it is
    events = [line.removeprefix(b"data: ") for line in streamed.body.splitlines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(each.get("content", "") for each in deltas) == "The sky is blue."
    # The title of the chat: another model of a hosted API, and a field that belongs to its own interface.
    title = {"model": "gpt-4.1-nano", "messages": messages, "stream": False, "max_completion_tokens": 1000,
             "metadata": {"task": "title_generation", "chat_id": "c1"}}  # fmt: skip
    whole = send(f"{scene.base_url}/chat/completions", "POST", headers, python_json(title))
    assert json.loads(whole.body)["choices"][0]["message"]["content"] == "The sky is blue."
    assert ignored(whole) == "metadata, model"
    assert scene.chats[0].requests[-1].body["model"] == MODEL  # the first API of the list is asked


# Home Assistant


def test_home_assistants_own_integration_speaks_and_hears(scene: Scene) -> None:
    """`openai_conversation` has no field for a URL; OPENAI_BASE_URL in its environment points its client here."""

    async def ask() -> tuple[bytes, str]:
        async with openai.AsyncOpenAI(api_key=KEY_A, base_url=scene.base_url, max_retries=0) as client:
            assert (await client.with_options(timeout=10.0).models.list()).data
            async with client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts",
                voice="marin",
                input="The light is on.",
                instructions="None",  # str() of a prompt that nobody wrote
                speed=1.0,
                response_format="mp3",
            ) as response:
                assert response.headers["x-mirrorchat-ignored"] == "instructions, model, voice"
                spoken = b"".join([chunk async for chunk in response.iter_bytes()])
            transcript = await client.audio.transcriptions.create(
                model="gpt-4o-mini-transcribe",
                file=("a.wav", RECORDING),
                response_format="json",
                language="en",
                prompt="The following conversation is a smart home user talking to Home Assistant.",
            )
        return spoken, transcript.text

    spoken, text = asyncio.run(ask())
    assert is_loud(heard(spoken)) and text == QUESTION


@pytest.mark.parametrize(("response_format", "streams"), [("mp3", False), ("opus", True)])
def test_openai_tts_for_home_assistant(scene: Scene, response_format: str, streams: bool) -> None:
    payload = {"model": "gpt-4o-mini-tts", "input": "The light is on.", "voice": "shimmer",
               "response_format": response_format, "speed": 1.0, "instructions": "Speak warmly.",
               "exaggeration": 0.5}  # fmt: skip
    headers = {"Content-Type": "application/json", "User-Agent": "HomeAssistant-OpenAI-TTS", "Authorization": BEARER}
    url = f"{scene.base_url}/audio/speech"
    if streams:
        ordered = [("Host", HOST), *headers.items(), *AIOHTTP[:2], ("Content-Length", LENGTH)]
        response = send(url, "POST", ordered, python_json(payload))
        spoken, named = response.body, ignored(response)
    else:
        request = urllib.request.Request(url, data=json.dumps(payload).encode(), headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=30) as reply:
            spoken, named = reply.read(), reply.headers["X-MirrorChat-Ignored"]
    assert is_loud(heard(spoken)) and named == "instructions, exaggeration, model, voice"


def test_extended_openai_conversation(scene: Scene) -> None:
    """It asks for the models first, then for answers that may call its functions."""
    scene.chats[0].behaviour = chunked_stream(tool_call(), delta(None, "tool_calls"))
    tool: Any = {"type": "function", "function": {"name": "switch", "parameters": {"type": "object"}}}
    messages: list[Any] = [{"role": "system", "content": "You manage a home."}, {"role": "user", "content": "Light on"}]

    async def ask() -> tuple[Any, Any]:
        async with openai.AsyncOpenAI(api_key=KEY_A, base_url=scene.base_url, max_retries=0) as client:
            async for _ in await client.models.list(timeout=10):
                break
            sampling: dict[str, Any] = {"top_p": 1, "temperature": 0.5, "max_completion_tokens": 150}
            options = {"model": "gpt-4o-mini", "user": None, "tools": [tool], "tool_choice": "auto"} | sampling
            first = await client.chat.completions.create(messages=messages, **options)
            message = first.choices[0].message
            result = {"role": "tool", "tool_call_id": "call_1", "name": "switch", "content": "done"}
            scene.chats[0].behaviour = answer("The light is on.")
            again = [*messages, message.model_dump(exclude_none=True), result]
            return first, await client.chat.completions.create(messages=again, **options)

    first, second = asyncio.run(ask())
    assert first.choices[0].finish_reason == "tool_calls"
    assert first.choices[0].message.tool_calls[0].function.name == "switch"
    assert second.choices[0].message.content == "The light is on."
    sent = scene.chats[0].requests[1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]


def test_extended_openai_conversation_without_tools(scene: Scene) -> None:
    """With "Use Tools" off, which older versions have as their default, it sends and reads the older form."""
    parts = [{"name": "switch", "arguments": ""}, {"arguments": '{"on":'}, {"arguments": " true}"}]
    events = [delta_event({"function_call": part}) for part in parts]
    scene.chats[0].behaviour = chunked_stream(*events, delta(None, "function_call"))
    functions: Any = [{"name": "switch", "parameters": {"type": "object"}}]
    messages: Any = [{"role": "user", "content": "Light on"}]
    completion = scene.client().chat.completions.create(
        model="gpt-4o-mini", messages=messages, max_tokens=150, top_p=1, temperature=0.5, user="01J",
        functions=functions, function_call="auto",
    )  # fmt: skip
    (choice,) = completion.choices
    assert choice.finish_reason == "function_call" and choice.message.content is None
    assert choice.message.function_call is not None and choice.message.function_call.name == "switch"
    assert json.loads(choice.message.function_call.arguments) == {"on": True}
    assert {"functions": functions, "function_call": "auto"}.items() <= scene.chats[0].requests[0].body.items()


def tool_call() -> bytes:
    return delta_event({"role": "assistant", "tool_calls": [CALL]})


def delta_event(fields: dict[str, Any]) -> bytes:
    choice = {"index": 0, "delta": fields, "finish_reason": None}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


@pytest.mark.parametrize("model", ["whisper-large-v3-turbo", "mirrorchat"])
def test_openai_whisper_cloud_for_home_assistant(scene: Scene, model: str) -> None:
    response = requests.post(
        f"{scene.base_url}/audio/transcriptions",
        headers={"Authorization": BEARER},
        files={"file": ("audio.wav", io.BytesIO(RECORDING), "audio/wav")},
        data={"model": model, "language": "en", "temperature": 0, "prompt": "", "response_format": "json"},
        timeout=60,
    )
    assert response.json().get("text", "") == QUESTION
    assert ignored(response) == ("temperature" if model == "mirrorchat" else "temperature, model")


def test_openai_stt_for_home_assistant(scene: Scene) -> None:
    """Each part of its form has a type of its own, as aiohttp writes it."""
    boundary = "5f0e8d1f9f4b4a0a8d6f0e2f6b8f0c11"
    fields = {"model": "whisper-1", "language": "en", "prompt": "", "temperature": "0", "response_format": "json"}
    head = "Content-Type: {}\r\nContent-Disposition: form-data; name={}\r\n\r\n"
    parts = [head.format("audio/wav", '"file"; filename="whisper_audio.wav"').encode() + RECORDING]
    parts += [
        (head.format("text/plain; charset=utf-8", f'"{name}"') + value).encode() for name, value in fields.items()
    ]
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts) + f"--{boundary}--\r\n".encode()
    kind = ("Content-Type", f"multipart/form-data; boundary={boundary}")
    headers = [("Host", HOST), KEY, *AIOHTTP, ("Content-Length", LENGTH), kind]
    response = send(f"{scene.base_url}/audio/transcriptions", "POST", headers, body)
    assert json.loads(response.body)["text"] == QUESTION


def test_wyoming_openai_bridges_to_home_assistant(scene: Scene) -> None:
    """It tries what other servers have, takes this one for OpenAI, reads wav while it comes, and hears in a stream."""
    for path in ("/v1/test", "/v1/readyz", "/health"):
        probe = requests.get(f"{scene.server.url}{path}", timeout=10)
        assert probe.status_code in (401, 404)

    async def ask() -> tuple[bytes, str, list[str]]:
        async with openai.AsyncOpenAI(api_key=KEY_A, base_url=scene.base_url, max_retries=0) as client:
            async with client.audio.speech.with_streaming_response.create(
                model="tts-1", voice="nova", input="The light is on.", response_format="wav"
            ) as response:
                wav = b"".join([chunk async for chunk in response.iter_bytes(chunk_size=2048)])
            file = io.BytesIO(RECORDING)
            file.name = "recording.wav"
            plain = await client.audio.transcriptions.create(
                file=file, model="whisper-1", response_format="json", extra_body={"vad_filter": False}
            )
            file.seek(0)
            stream = await client.audio.transcriptions.create(
                file=file, model="gpt-4o-transcribe", response_format="json", stream=True
            )
            deltas = [event.delta async for event in stream if event.type == "transcript.text.delta"]
        return wav, plain.text, deltas

    wav, text, deltas = asyncio.run(ask())
    assert wav[:4] == b"RIFF" and (wave_rate(wav), is_loud(heard_pcm(wav[44:]))) == (24_000, True)
    assert text == "".join(deltas) == QUESTION


def wave_rate(data: bytes) -> int:
    with wave.open(io.BytesIO(data)) as file:
        rate: int = file.getframerate()
        return rate


# LibreChat


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "tts-1", "voice": "alloy"}, "model, voice"),
        ({"model": "kokoro", "voice": "bf_emma", "backend": "coqui"}, "backend, model, voice"),
        ({"model": "en-us-amy-low.onnx", "backend": "piper"}, "backend, model"),  # its provider "localai": no voice
        ({"model": "mirrorchat", "voice": "default"}, None),
    ],
)
def test_librechat_reads_aloud(scene: Scene, fields: dict[str, str], told: str | None) -> None:
    agent, length = ("User-Agent", "axios/1.21.1"), ("Content-Length", LENGTH)
    headers = [("Accept", "application/json, text/plain, */*"), JSON, KEY, agent, length, *AXIOS]
    body = node_json({"input": "Hello, “world”. Wie geht's?", **fields})
    spoken = send(f"{scene.base_url}/audio/speech", "POST", headers, body)
    check_mp3(spoken)  # the browser gets it as audio/mpeg, whatever the server says
    assert ignored(spoken) == told


@pytest.mark.parametrize("language", [None, "en"])
def test_librechat_hears(scene: Scene, language: str | None) -> None:
    """Its form comes in chunks, since it does not know how long the recording is."""
    kind = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    agent, chunks = ("User-Agent", "axios/1.21.1"), ("Transfer-Encoding", "chunked")
    headers = [("Accept", "application/json, text/plain, */*"), kind, KEY, agent, *AXIOS, chunks]
    fields = {"model": "whisper-1"} | ({"language": language} if language else {})
    form = node_form(RECORDING, "audio.wav", "audio/wave", fields)
    response = send(f"{scene.base_url}/audio/transcriptions", "POST", headers, form)
    assert response.status == 200, response.body
    assert json.loads(response.body)["text"].strip() == QUESTION


# SillyTavern


@pytest.mark.parametrize("voice", ["alloy", "am_michael", "default"])
def test_sillytavern_reads_aloud(scene: Scene, voice: str) -> None:
    """Its server sends what the page asked it for, and hands on the mp3."""
    headers = node_fetch_headers(BEARER)
    fields = {
        "input": "*She waves.* Hello there!",
        "response_format": "mp3",
        "voice": voice,
        "speed": 1,
        "model": "tts-1",
    }
    spoken = send(f"{scene.base_url}/audio/speech", "POST", headers, node_json(fields))
    check_mp3(spoken)
    assert ignored(spoken) == ("model" if voice == "default" else "model, voice")


def node_fetch_headers(authorization: str) -> list[tuple[str, str]]:
    return [
        ("accept", "*/*"), ("accept-encoding", "gzip, deflate, br"), ("authorization", authorization),
        ("content-length", LENGTH), ("content-type", "application/json"), ("user-agent", "node-fetch"),
        ("Host", HOST), ("Connection", "keep-alive"),
    ]  # fmt: skip


def test_sillytavern_without_a_key(embedded_server: RunningServer) -> None:
    fields = {"input": "Hello there!", "response_format": "mp3", "voice": "nova", "speed": 1.5, "model": "tts-1"}
    url = f"{embedded_server.url}/v1/audio/speech"
    check_mp3(send(url, "POST", node_fetch_headers("Bearer "), node_json(fields)))
