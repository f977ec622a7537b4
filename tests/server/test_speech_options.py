"""The options of speech over HTTP, and the voices that come with XTTS: by name, in every list, and nobody's clone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from support.checks import check_error
from support.openai_scene import KEY_A, KEY_B, QUESTION_FILE, Scene, heard, heard_pcm, open_scene

from mirrorchat.turn.enrolled_voices import EnrolledVoices, Part

SENTENCE = "Here is a sentence that is said faster and slower."
SPEAKERS = ["Claribel Dervla", "Ana Florence", "Eugenio Mataracı"]
SAMPLING: dict[str, Any] = {"temperature": 0.5, "top_k": 20, "top_p": 0.9, "repetition_penalty": 3.0}
WRONG: list[tuple[str, Any]] = [
    ("speed", 0.2), ("speed", 4.1), ("speed", "fast"), ("speed", "nan"), ("speed", []), ("speed", True),
    ("temperature", 0), ("temperature", 2.01), ("temperature", "inf"), ("temperature", {}),
    ("top_k", -1), ("top_k", 1001), ("top_k", 2.5), ("top_k", 1 << 70),
    ("top_p", 0), ("top_p", 1.01), ("repetition_penalty", 0.9), ("repetition_penalty", 21),
]  # fmt: skip


@pytest.fixture(scope="module")
def set_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server whose settings speed its speech up."""
    with open_scene(tmp_path_factory.mktemp("set"), speech_speed=2.0) as scene:
        yield scene


def speak(scene: Scene, text: str = SENTENCE, **fields: Any) -> requests.Response:
    body = {"model": "mirrorchat", "input": text, "voice": "default", "response_format": "pcm"}
    response = scene.send("POST", "/audio/speech", json=body | fields)
    assert response.status_code == 200, response.text
    return response


def seconds(response: requests.Response) -> float:
    return heard_pcm(response.content).duration_s


def ask(scene: Scene, **fields: Any) -> requests.Response:
    with QUESTION_FILE.open("rb") as file:
        return requests.post(
            f"{scene.server.url}/process_audio",
            headers={"Authorization": f"Bearer {KEY_A}"},
            files={"audio": file},
            data={"language": "english", "text": "Hello there."} | fields,
            timeout=60,
        )


def ignored(response: requests.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [name for name in response.headers.get("X-MirrorChat-Ignored", "").split(", ") if name]


# Any synthesizer


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_out_of_bounds_is_refused_by_name(openai_scene: Scene, name: str, value: Any) -> None:
    body = {"model": "tts-1", "input": "Hello.", "voice": "default", name: value}
    check_error(openai_scene.send("POST", "/audio/speech", json=body), 400, "invalid_value", name)
    if not isinstance(value, list | dict | bool):
        check_error(ask(openai_scene, **{name: value}), 400, "invalid_value", name)


def test_a_synthesizer_without_sampling_says_what_it_ignores(openai_scene: Scene) -> None:
    assert ignored(speak(openai_scene, **SAMPLING, speed=1.5)) == list(SAMPLING)
    assert ignored(ask(openai_scene, top_p="0.5", speed="1.5")) == ["top_p"]
    assert ignored(ask(openai_scene, temperature="0.5", stream="true")) == ["temperature"]
    assert ignored(ask(openai_scene)) == []


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}, {"stream": "true", "response_format": "mp3"}])
def test_an_answer_is_spoken_at_a_speed(openai_scene: Scene, fields: dict[str, str]) -> None:
    slow, fast = (heard(ask(openai_scene, **fields, speed=speed).content).duration_s for speed in ("0.5", "2"))
    assert slow / fast == pytest.approx(4.0, rel=0.1)


def test_the_settings_speed_holds_unless_a_request_names_one(openai_scene: Scene, set_scene: Scene) -> None:
    plain = seconds(speak(openai_scene))
    assert plain / seconds(speak(set_scene)) == pytest.approx(2.0, rel=0.1)
    assert plain / seconds(speak(set_scene, speed=1.0)) == pytest.approx(1.0, rel=0.02)
    assert plain / seconds(speak(set_scene, speed=0.5)) == pytest.approx(0.5, rel=0.1)


# XTTS


@pytest.fixture
def scene(weights_scene: Scene) -> Iterator[Scene]:
    yield weights_scene
    for voice in weights_scene.send("GET", "/audio/voices").json()["data"]:
        if voice["type"] == "audio_sample":
            weights_scene.send("DELETE", f"/audio/voices/{voice['id']}")


def test_xtts_follows_every_option(scene: Scene) -> None:
    plain = speak(scene)
    assert ignored(speak(scene, **SAMPLING, speed=1.5)) == []
    assert ignored(ask(scene, **SAMPLING, speed="1.5")) == []
    assert speak(scene).content == plain.content
    others: list[dict[str, Any]] = [{"temperature": 2.0}, {"top_k": 1}, {"top_p": 0.01}, {"repetition_penalty": 1.0}]
    for option in others:
        assert speak(scene, **option).content != plain.content, option


def test_the_voices_of_the_model_are_listed_and_spoken_in(scene: Scene) -> None:
    listed = scene.send("GET", "/audio/voices").json()
    built_in = [voice for voice in listed["data"] if voice["type"] == "built_in"]
    assert sorted(voice["name"] for voice in built_in) == sorted(SPEAKERS)
    assert all(voice["id"] == voice["name"] and voice["object"] == "audio.voice" for voice in built_in)
    assert [(voice["id"], voice["name"]) for voice in listed["data"]] == [
        (voice["id"], voice["name"]) for voice in listed["voices"]
    ]
    sounds = set()
    for name in SPEAKERS:
        assert scene.send("GET", f"/audio/voices/{name}").json() in built_in
        for voice in (name, f" {name.lower()} ", {"id": name}):
            spoken = speak(scene, "Hello.", voice=voice)
            label = spoken.headers["X-MirrorChat-Voice"]
            assert label.startswith(f"neutral; the built-in voice {name[:14]}") and ignored(spoken) == []
        sounds.add(spoken.content)
    assert len(sounds) == len(SPEAKERS)
    assert speak(scene, "Hello.", voice=SPEAKERS[0]).content == speak(scene, "Hello.").content  # the neutral one


def test_a_chat_is_answered_in_a_voice_of_the_model(scene: Scene) -> None:
    body = {
        "model": "mirrorchat", "messages": [{"role": "user", "content": "Hello."}], "modalities": ["text", "audio"],
        "audio": {"voice": "ana florence", "format": "wav"},
    }  # fmt: skip
    assert scene.send("POST", "/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize("name", ["Ana Florence", " ana FLORENCE ", "Claribel Dervla", "Eugenio Mataracı"])
def test_nobody_enrols_or_deletes_under_such_a_name(scene: Scene, name: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        scene.client().audio.voices.create(name=name, audio_sample=QUESTION_FILE, consent="")
    assert raised.value.param == "name"
    deleted = scene.send("DELETE", f"/audio/voices/{name}")
    assert "comes with the model" in check_error(deleted, 400, "invalid_value", "voice")


def test_a_voice_that_was_enrolled_before_the_model_came_takes_its_place(scene: Scene) -> None:
    voice = scene.client().audio.voices.create(name="Somebody", audio_sample=QUESTION_FILE, consent="")
    store = EnrolledVoices(Path(scene.voices_dir))
    (kept,) = (each for each in store._all() if each.id == voice.id)
    data = store._read_part(kept.id, 0)
    older = store.enrol(kept.owner, "Ana Florence", [Part(*kept.models[0], data)])
    names = [each["name"] for each in scene.send("GET", "/audio/voices").json()["voices"]]
    assert names.count("Ana Florence") == 1
    spoken = speak(scene, "Hello.", voice="Ana Florence")
    assert spoken.headers["X-MirrorChat-Voice"].startswith("clone")
    assert spoken.content == speak(scene, "Hello.", voice=older.id).content
    others = {"Authorization": f"Bearer {KEY_B}"}
    body = {"model": "tts-1", "input": "Hello.", "voice": "Ana Florence"}
    spoken = scene.send("POST", "/audio/speech", json=body, headers=others)
    assert spoken.headers["X-MirrorChat-Voice"].startswith("neutral")
    assert scene.send("DELETE", "/audio/voices/ana florence").json()["id"] == older.id
    assert scene.send("GET", "/audio/voices/ana florence").json()["type"] == "built_in"


def test_an_unknown_voice_is_told_of_them(scene: Scene) -> None:
    with pytest.raises(openai.NotFoundError, match=r"there are default, .*Ana Florence") as raised:
        scene.client().audio.speech.create(model="tts-1", input="Hello.", voice="Ana")
    assert raised.value.param == "voice"


def test_without_the_model_its_names_are_those_of_another_server(openai_scene: Scene) -> None:
    assert [voice["type"] for voice in openai_scene.send("GET", "/audio/voices").json()["data"]] == ["default"]
    assert ignored(speak(openai_scene, voice="Ana Florence")) == ["voice"]
