"""Voices over HTTP: who enrolled one has it, nobody else knows of it, and nothing is kept that was not asked for."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support.openai_scene import KEY_B, QUESTION_FILE, Scene, heard_pcm, is_loud
from support.speech import noise_wav, say_wav

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.encoders import encode_wav


@pytest.fixture
def scene(openai_scene: Scene) -> Iterator[Scene]:
    assert openai_scene.files() == []
    yield openai_scene
    for key in (None, KEY_B):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for voice in openai_scene.send("GET", "/audio/voices", headers=headers).json()["data"][1:]:
            openai_scene.send("DELETE", f"/audio/voices/{voice['id']}", headers=headers)


def enrol(scene: Scene, name: str = "Anna", **fields: str) -> Any:
    with QUESTION_FILE.open("rb") as file:
        response = scene.send("POST", "/audio/voices", files={"file": file}, data={"name": name} | fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_voice_is_enrolled_used_listed_and_deleted(scene: Scene) -> None:
    client = scene.client()
    voice = client.audio.voices.create(name="Anna", audio_sample=QUESTION_FILE, consent="cons_1234")
    assert (voice.object, voice.name, voice.type) == ("audio.voice", "Anna", "audio_sample")
    assert scene.files() == [f"{voice.id}.voice"]
    kept = (scene.voices_dir / f"{voice.id}.voice").read_bytes()
    assert len(kept) < 20_000 and b"RIFF" not in kept  # no audio
    listed = scene.send("GET", "/audio/voices").json()["data"]
    assert [each["id"] for each in listed] == ["default", voice.id]
    assert scene.send("GET", f"/audio/voices/{voice.id}").json() == listed[1]
    assert scene.send("GET", "/audio/voices/anna").json() == listed[1]

    def say(voice: Any) -> bytes:
        options = {"model": "tts-1", "input": "Hello there, my friend.", "response_format": "pcm"}
        return client.audio.speech.create(voice=voice, **options).content  # type: ignore[arg-type]

    own = say("Anna")
    assert is_loud(heard_pcm(own)) and own == say(voice.id) == say({"id": voice.id})
    assert own != say("default") == say("alloy")
    assert client.audio.voices.delete(voice.id).deleted
    assert scene.files() == []
    with pytest.raises(openai.NotFoundError, match="there are default") as raised:
        say("Anna")
    assert raised.value.param == "voice"


def test_a_voice_is_its_keys_alone(scene: Scene) -> None:
    voice = enrol(scene)
    other, headers = scene.client(KEY_B), {"Authorization": f"Bearer {KEY_B}"}
    assert len(scene.send("GET", "/audio/voices", headers=headers).json()["data"]) == 1
    assert scene.send("GET", f"/audio/voices/{voice['id']}", headers=headers).status_code == 404
    assert scene.send("DELETE", f"/audio/voices/{voice['id']}", headers=headers).status_code == 404
    for named in ("Anna", voice["id"]):
        with pytest.raises(openai.NotFoundError) as raised:
            other.audio.speech.create(model="tts-1", input="Hello.", voice=named)
        assert raised.value.message.count("Anna") == (named == "Anna")  # what was asked for, and not what there is
    with pytest.raises(openai.NotFoundError):
        other.audio.voices.delete(voice["id"])
    theirs = other.audio.voices.create(name="Anna", audio_sample=QUESTION_FILE, consent="")
    assert theirs.id != voice["id"] and len(scene.files()) == 2
    assert scene.send("GET", f"/audio/voices/{voice['id']}").status_code == 200


def test_the_sample_is_kept_where_it_is_asked_for(scene: Scene) -> None:
    voice = enrol(scene, keep_sample="true")
    assert voice["sample_kept"] is True
    sample = encode_wav(decode(QUESTION_FILE.read_bytes(), limit_s=60.0))
    assert sample in (scene.voices_dir / f"{voice['id']}.voice").read_bytes()
    scene.send("DELETE", f"/audio/voices/{voice['id']}")
    assert scene.files() == []


def test_using_speech_leaves_nothing_on_disk(scene: Scene) -> None:
    client = scene.client()
    client.audio.transcriptions.create(model="whisper-1", file=QUESTION_FILE)
    client.audio.speech.create(model="tts-1", input="Hello.", voice="default")
    assert scene.files() == []


def test_a_name_is_taken_once(scene: Scene) -> None:
    enrol(scene)
    with pytest.raises(openai.ConflictError) as raised:
        scene.client().audio.voices.create(name="anna", audio_sample=QUESTION_FILE, consent="")
    assert raised.value.code == "voice_exists" and len(scene.files()) == 1


@pytest.mark.parametrize("name", ["default", "Alloy", "", "x" * 65, "voice_mine", "a\tb"])
def test_names_that_mean_something_else_are_refused(scene: Scene, name: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        scene.client().audio.voices.create(name=name, audio_sample=QUESTION_FILE, consent="")
    assert raised.value.param == "name" and scene.files() == []


def test_a_recording_without_a_voice_is_refused(scene: Scene) -> None:
    client = scene.client()
    for data in (noise_wav(2.0), say_wav("Hi.")):
        with pytest.raises(openai.UnprocessableEntityError) as raised:
            client.audio.voices.create(name="Anna", audio_sample=("a.wav", data), consent="")
        assert (raised.value.code, raised.value.param) == ("no_voice", "audio_sample")
    with pytest.raises(openai.APIStatusError) as unread:
        client.audio.voices.create(name="Anna", audio_sample=("a.wav", b"nothing"), consent="")
    assert (unread.value.status_code, unread.value.param) == (415, "audio_sample")
    with pytest.raises(openai.BadRequestError) as missing:
        client.audio.voices.create(name="Anna", prompt="a warm voice", type="prompt")
    assert missing.value.param in ("audio_sample", "type")
    assert scene.files() == []


def test_a_voice_of_another_model_is_named(scene: Scene) -> None:
    voice = enrol(scene)
    path = scene.voices_dir / f"{voice['id']}.voice"
    path.write_bytes(path.read_bytes().replace(b'"embedded", "model": "WORLD', b'"xtts", "model": "HELLO', 1))
    with pytest.raises(openai.ConflictError, match=r"xtts \(HELLO voice tint 2\)") as raised:
        scene.client().audio.speech.create(model="tts-1", input="Hello.", voice="Anna")
    assert (raised.value.code, raised.value.param) == ("voice_of_another_model", "voice")
    with pytest.raises(openai.ConflictError) as raised:
        scene.client().chat.completions.create(
            model="mirrorchat",
            messages=[{"role": "user", "content": "Hello."}],
            modalities=["text", "audio"],
            audio={"voice": "Anna", "format": "wav"},
        )
    assert raised.value.param == "audio.voice"
    assert scene.client().audio.voices.delete(voice["id"]).deleted
