"""`api_aliases`: names of other servers are followed and said, or refused by name; ignored fields are said."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from support.chat_server import answer
from support.openai_scene import KEY_A, KEY_B, MODEL, QUESTION, QUESTION_FILE, Scene, heard, is_loud, open_scene

HELLO: dict[str, Any] = {"model": "mirrorchat", "input": "Hello.", "voice": "default"}
ASK: list[Any] = [{"role": "user", "content": "What colour is the sky?"}]
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def strict_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene with `api_aliases` off, and with a page of another origin."""
    with open_scene(tmp_path_factory.mktemp("strict"), api_aliases=False, cors_origins=[PAGE]) as scene:
        yield scene


@pytest.fixture
def scene(openai_scene: Scene) -> Scene:
    for chat, text in zip(openai_scene.chats, ("The sky is blue.", "The second one answers."), strict=True):
        chat.behaviour = answer(text)
        chat.requests.clear()
    return openai_scene


def speak(scene: Scene, **fields: Any) -> requests.Response:
    return scene.send("POST", "/audio/speech", json=HELLO | fields)


def hear(scene: Scene, **fields: str) -> requests.Response:
    with QUESTION_FILE.open("rb") as file:
        return scene.send("POST", "/audio/transcriptions", files={"file": file}, data=fields)


def chat(scene: Scene, **fields: Any) -> requests.Response:
    return scene.send("POST", "/chat/completions", json={"model": "mirrorchat", "messages": ASK} | fields)


def ignored(response: requests.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return response.headers.get("X-MirrorChat-Ignored", "").split(", ")


# On


@pytest.mark.parametrize(
    "model", ["kokoro", "tts-1-hd", "gpt-4o-mini-tts", "speaches-ai/Kokoro-82M-v1.0-ONNX", "x" * 999]
)
def test_a_model_of_another_server_speaks(scene: Scene, model: str) -> None:
    assert ignored(speak(scene, model=model)) == ["model"]


@pytest.mark.parametrize("model", ["whisper-1", "whisper-large-v3", "Systran/faster-whisper-small", "large-v3-turbo"])
def test_a_model_of_another_server_hears(scene: Scene, model: str) -> None:
    heard_words = hear(scene, model=model)
    assert ignored(heard_words) == ["model"] and heard_words.json()["text"] == QUESTION


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["gpt-4o", "qwen3:8b", "claude-sonnet-4"])
def test_a_model_of_another_server_answers(scene: Scene, model: str, stream: bool) -> None:
    answered = chat(scene, model=model, stream=stream)
    assert ignored(answered) == ["model"]
    assert [request.body["model"] for request in scene.chats[0].requests] == [MODEL]  # the first API of the list
    assert scene.chats[1].requests == []


def test_own_names_are_followed(scene: Scene) -> None:
    for listed in scene.send("GET", "/audio/models").json()["models"]:
        assert ignored(speak(scene, model=listed["id"])) == [""]
    assert ignored(chat(scene, model=MODEL)) == [""]
    assert ignored(speak(scene, model=None)) == ignored(speak(scene, model="")) == [""]


def test_a_model_of_another_stage_is_a_mistake(scene: Scene) -> None:
    hears = next(each["id"] for each in scene.send("GET", "/models").json()["data"] if each["stage"] == "recognizer")
    speaks = scene.send("GET", "/audio/models").json()["models"][-1]["id"]
    for refused in (
        speak(scene, model=hears), speak(scene, model="whisper-1"), speak(scene, model=MODEL),
        hear(scene, model=speaks), hear(scene, model="tts-1"), chat(scene, model=speaks), chat(scene, model="tts-1"),
    ):  # fmt: skip
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("voice", ["af_heart", "Nova", "en-US-AriaNeural", "en_US-lessac-medium", {"id": "bm_george"}])
def test_a_stock_voice_means_the_neutral_one(scene: Scene, voice: Any) -> None:
    spoken = speak(scene, voice=voice)
    assert ignored(spoken) == ["voice"] and spoken.headers["X-MirrorChat-Voice"].startswith("neutral")
    assert is_loud(heard(spoken.content))


@pytest.mark.parametrize("wrong", [0, False, [], {}, ["af_heart"], {"id": ""}])
def test_a_voice_that_is_no_name_is_refused(scene: Scene, wrong: Any) -> None:
    refused = speak(scene, voice=wrong)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "voice")


@pytest.mark.parametrize("missing", [{"voice": None}, {"voice": ""}])
def test_without_a_voice_the_neutral_one_speaks(scene: Scene, missing: dict[str, Any]) -> None:
    spoken = speak(scene, **missing)
    assert ignored(spoken) == [""] and spoken.headers["X-MirrorChat-Voice"].startswith("neutral")


def test_a_stock_voice_speaks_a_chats_answer(scene: Scene) -> None:
    spoken = chat(scene, modalities=["text", "audio"], audio={"voice": "af_heart", "format": "wav"})
    assert ignored(spoken) == ["voice"] and spoken.json()["choices"][0]["message"]["audio"]["data"]


def test_what_looks_like_an_own_voice_is_never_replaced(scene: Scene) -> None:
    """Neither ids of another key, nor those of deleted voices, nor names that people choose."""
    client = scene.client()
    voice = client.audio.voices.create(name="af_mine", audio_sample=QUESTION_FILE, consent="")
    try:
        spoken = speak(scene, voice="af_mine")  # one's own voice wins over a name of that form
        assert ignored(spoken) == [""] and spoken.headers["X-MirrorChat-Voice"].startswith("tint")
        other = {"Authorization": f"Bearer {KEY_B}"}
        refused = scene.send("POST", "/audio/speech", json=HELLO | {"voice": voice.id}, headers=other)
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "voice")
        path = scene.voices_dir / f"{voice.id}.voice"
        path.write_bytes(path.read_bytes()[:-40])
        damaged = speak(scene, voice="af_mine")
        assert damaged.status_code == 404 and "damaged" in damaged.json()["error"]["message"]
    finally:
        client.audio.voices.delete(voice.id)
    for name in (voice.id, "voice_1", "voice_mine", "Anna", {"id": voice.id}):
        refused = speak(scene, voice=name)
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "voice"), name
        assert "there are default" in refused.json()["error"]["message"]


# Off


def test_other_names_are_refused_by_name(strict_scene: Scene) -> None:
    client = strict_scene.client()
    for model in ("kokoro", "tts-1", "gpt-4o-mini-tts"):
        with pytest.raises(openai.NotFoundError, match=model) as raised:
            client.audio.speech.create(model=model, input="Hello.", voice="default")
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert "there are mirrorchat, " in raised.value.message and "tts-1" not in raised.value.message
    with pytest.raises(openai.NotFoundError, match="whisper-1"):
        client.audio.transcriptions.create(model="whisper-1", file=QUESTION_FILE)
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    with pytest.raises(openai.NotFoundError, match="tts-1-hd"):
        client.models.retrieve("tts-1-hd")
    assert [chat.requests for chat in strict_scene.chats] == [[], []]


@pytest.mark.parametrize("voice", ["nova", "af_heart", "en-US-AriaNeural"])
def test_other_voices_are_refused_by_name(strict_scene: Scene, voice: str) -> None:
    with pytest.raises(openai.NotFoundError, match=voice) as raised:
        strict_scene.client().audio.speech.create(model="mirrorchat", input="Hello.", voice=voice)
    assert raised.value.param == "voice" and "there are default" in raised.value.message


def test_a_missing_voice_is_refused(strict_scene: Scene) -> None:
    for missing in ({"voice": None}, {"voice": ""}):
        refused = speak(strict_scene, **missing)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "voice")


def test_own_names_still_work(strict_scene: Scene) -> None:
    strict_scene.chats[0].behaviour = answer("Blue.")
    assert ignored(speak(strict_scene)) == ignored(hear(strict_scene, model="mirrorchat", language="en")) == [""]
    assert ignored(chat(strict_scene, model=MODEL)) == [""]


# Ignored fields


@pytest.mark.parametrize(
    "fields",
    [
        {"instructions": "Whisper."},
        {"lang_code": "a", "volume_multiplier": 1.0, "return_download_link": True, "download_format": "wav"},
        {"normalization_options": {"normalize": True}, "sample_rate": 24000},
        {"exaggeration": 0.5, "cfg_weight": 0.5, "ref_text": "Hello.", "backend": "coqui"},
    ],
)
@pytest.mark.parametrize("name", ["openai_scene", "strict_scene"])
def test_fields_without_effect_are_named(name: str, fields: dict[str, Any], request: pytest.FixtureRequest) -> None:
    assert ignored(speak(request.getfixturevalue(name), **fields)) == list(fields)


def test_fields_that_ask_for_nothing_are_not_named(scene: Scene) -> None:
    nothing: dict[str, Any] = {
        "instructions": "",
        "lang_code": None,
        "return_download_link": False,
        "normalization_options": {},
    }
    followed = {"stream_format": "audio", "response_format": "wav", "speed": 1.0, "language": "en", "stream": True}
    assert ignored(speak(scene, **nothing, **followed)) == [""]


def test_fields_of_recordings_and_chats_are_named_too(scene: Scene) -> None:
    assert ignored(hear(scene, vad_filter="true", hotwords="Anna", temperature="0")) == [
        "vad_filter", "hotwords", "temperature"
    ]  # fmt: skip
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20, "metadata": {"session_id": "s"}}
    assert ignored(chat(scene, **extra)) == list(extra)
    assert not extra.keys() & scene.chats[0].requests[0].body.keys()


def test_hostile_names_of_fields_stay_out_of_the_header(scene: Scene) -> None:
    hostile: dict[str, Any] = {"a\r\nSet-Cookie: x": 1, "ключ": 1, "": 1, "x" * 500: 1, "a,b": 1, "fine": 1}
    assert ignored(speak(scene, **hostile)) == ["fine"]
    assert ignored(speak(scene, **{f"field_{number}": 1 for number in range(500)})) == [
        f"field_{number}" for number in range(16)
    ]


def test_pages_of_other_origins_can_read_the_header(strict_scene: Scene) -> None:
    headers = {"Origin": PAGE, "Authorization": f"Bearer {KEY_A}"}
    response = strict_scene.send("POST", "/audio/speech", json=HELLO | {"instructions": "Sing."}, headers=headers)
    assert ignored(response) == ["instructions"]
    assert "X-MirrorChat-Ignored" in response.headers["Access-Control-Expose-Headers"].split(", ")
