"""OpenAI's API as its official Python client uses it: models, transcriptions, errors; and its client for Node."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import tiny_wenet_speech
from openai import OpenAI
from support.chat_server import answer
from support.openai_scene import KEY_A, MODEL, OTHER_MODEL, QUESTION, QUESTION_FILE, Scene
from support.places import DATA
from support.speech import noise_wav, say

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio

NODE_SCRIPT = DATA / "openai_client.mjs"


@pytest.fixture
def client(openai_scene: Scene) -> OpenAI:
    return openai_scene.client()


# Models


def test_what_is_loaded_is_listed(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert ids[0] == "mirrorchat" and len(ids) == len(set(ids))
    assert {MODEL, OTHER_MODEL} < set(ids)
    assert any("pocketsphinx" in model_id for model_id in ids) and any("eSpeak" in model_id for model_id in ids)
    for model_id in [*ids, "whisper-1", "tts-1-hd", "gpt-4o-mini-tts"]:
        assert client.models.retrieve(model_id).id == model_id


def test_a_model_that_is_not_there_is_named(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model") as raised:
        client.models.retrieve("no-such-model")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="tts-1"):
        client.audio.speech.create(model="whisper-1", input="Hello.", voice="default")
    with pytest.raises(openai.NotFoundError, match="whisper-1"):
        client.audio.transcriptions.create(model="tts-1", file=QUESTION_FILE)


# Transcriptions


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-mini-transcribe", "mirrorchat", "pocketsphinx-5.1.1"])
def test_a_recording_is_transcribed(client: OpenAI, model: str) -> None:
    if model.startswith("pocketsphinx"):
        model = next(each.id for each in client.models.list() if each.id.startswith("pocketsphinx"))
    heard = client.audio.transcriptions.create(model=model, file=QUESTION_FILE, language="en", temperature=0)
    assert heard.text == QUESTION
    assert heard.usage is not None and heard.usage.type == "duration" and heard.usage.seconds == 3


def test_each_format_says_the_same(client: OpenAI) -> None:
    def ask(response_format: str) -> Any:
        return client.audio.transcriptions.create(
            model="whisper-1", file=QUESTION_FILE, response_format=response_format  # type: ignore[call-overload]
        )  # fmt: skip

    assert ask("text") == f"{QUESTION}\n"
    assert ask("srt").splitlines()[0] == "1" and ask("srt").splitlines()[2] == QUESTION
    assert ask("vtt").startswith("WEBVTT\n\n00:00:0") and QUESTION in ask("vtt")
    verbose = ask("verbose_json")
    assert (verbose.text, verbose.language, verbose.duration) == (QUESTION, "english", pytest.approx(2.04, abs=0.1))
    (segment,) = verbose.segments
    assert segment.text == QUESTION and 0 <= segment.start < segment.end <= 2.3


def test_a_transcript_is_streamed(client: OpenAI) -> None:
    events = list(client.audio.transcriptions.create(model="whisper-1", file=QUESTION_FILE, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].text == QUESTION  # type: ignore[union-attr]


def test_a_long_recording_is_streamed_piece_by_piece(client: OpenAI) -> None:
    sentence = say("What is the best way to learn a language?", "en-us+m3").resample(16_000)
    pause = np.zeros(16_000, np.float32)
    long = Audio(np.concatenate([part for _ in range(6) for part in (sentence.samples, pause)]), 16_000)
    events = list(
        client.audio.transcriptions.create(model="whisper-1", file=("long.wav", encode_wav(long)), stream=True)
    )
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == 2 and deltas[1].startswith(" ")
    assert events[-1].type == "transcript.text.done" and events[-1].text == "".join(deltas)


def test_a_recording_without_speech_has_no_words(client: OpenAI) -> None:
    noise = ("noise.wav", noise_wav(1.0))
    assert client.audio.transcriptions.create(model="whisper-1", file=noise).text == ""
    assert client.audio.transcriptions.create(model="whisper-1", file=noise, response_format="srt") == ""
    (done,) = client.audio.transcriptions.create(model="whisper-1", file=noise, stream=True)
    assert done.type == "transcript.text.done" and done.text == ""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "klingon"}, "language"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"include[]": "logprobs"}, "include"),
        ({"known_speaker_names[]": "anna"}, "known_speaker_names"),
        ({"chunking_strategy": '{"type": "server_vad"}'}, "chunking_strategy"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream": "true", "response_format": "srt"}, "response_format"),
        ({"timestamp_granularities[]": "letter", "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"keywords[]": "x" * 65}, "keywords"),
        ({"prompt": "x" * 5000}, "prompt"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(openai_scene: Scene, fields: dict[str, str], param: str) -> None:
    with QUESTION_FILE.open("rb") as file:
        response = openai_scene.send("POST", "/audio/transcriptions", files={"file": file}, data=fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_unknown_fields_are_ignored(openai_scene: Scene) -> None:
    with QUESTION_FILE.open("rb") as file:
        fields = {"colour": "blue", "prompt": "Anna, the weather in Vienna is what this is about, I think."}
        response = openai_scene.send("POST", "/audio/transcriptions", files={"file": file}, data=fields)
    assert response.json()["text"] == QUESTION


def test_bad_recordings_are_refused_as_the_clients_expect(client: OpenAI) -> None:
    def ask(data: bytes, **fields: Any) -> None:
        client.audio.transcriptions.create(model="whisper-1", file=("q.wav", data), **fields)

    with pytest.raises(openai.APIStatusError) as raised:
        ask(b"not audio at all")
    assert (raised.value.status_code, raised.value.code, raised.value.param) == (415, "unsupported_audio", "file")
    with pytest.raises(openai.UnprocessableEntityError, match="silent"):
        ask(encode_wav(Audio(say("Hello.").samples * 0, 16_000)))
    with pytest.raises(openai.InternalServerError, match="wenet-zh") as missing:
        ask(QUESTION_FILE.read_bytes(), language="zh")
    assert (missing.value.status_code, missing.value.code) == (503, "model_not_installed")


def test_translations_are_refused_by_name(openai_scene: Scene) -> None:
    with QUESTION_FILE.open("rb") as file:
        response = openai_scene.send("POST", "/audio/translations", files={"file": file}, data={"model": "whisper-1"})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "unsupported_parameter") and "translations" in error[
        "message"
    ]


# Errors


def test_errors_have_openais_shape_and_a_request_id(openai_scene: Scene) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        openai_scene.client("wrong").models.list()
    assert raised.value.code == "invalid_api_key" and raised.value.request_id
    with pytest.raises(openai.NotFoundError):
        openai_scene.client().get("/no/such/route", cast_to=object)
    response = openai_scene.send("GET", "/audio/speech")
    assert response.status_code == 405 and set(response.json()["error"]) == {"message", "type", "param", "code"}


BODIES: dict[str, tuple[bytes, str, int]] = {
    "no JSON": (b"{", "application/json", 400),
    "not JSON's numbers": (b'{"input": NaN}', "application/json", 400),
    "no object": (b"[]", "application/json", 400),
    "not UTF-8": (b'{"input": "\xff"}', "application/json", 400),
    "another type": (b'{"input": "Hello.", "voice": "default"}', "text/plain", 400),
    "deep": (b'{"a":' * 100 + b"1" + b"}" * 100, "application/json", 400),
    "very deep": (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "application/json", 400),
    "many": (b'{"a": [' + b"{}," * 15_000 + b"{}]}", "application/json", 400),
    "long": (b'{"a": "' + b"x" * 70_000 + b'"}', "application/json", 413),
    "a long number": (b'{"speed": ' + b"9" * 5_000 + b"}", "application/json", 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_none_are_refused(openai_scene: Scene, name: str) -> None:
    data, kind, status = BODIES[name]
    response = openai_scene.send("POST", "/audio/speech", data=data, headers={"Content-Type": kind})
    assert response.status_code == status, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


# WeNet's times


def take(code: tiny_wenet_speech.Code) -> tuple[str, bytes]:
    """Return a sentence that the tiny model was trained on, and its recording."""
    chosen = next(each for each in tiny_wenet_speech.held_out(code) if each.kind == "heard")
    (samples,) = tiny_wenet_speech.speak([chosen])
    return chosen.text, encode_wav(Audio(samples, tiny_wenet_speech.SAMPLE_RATE))


@pytest.mark.parametrize("code", ["en", "zh"])
def test_words_and_segments_have_their_times(weights_scene: Scene, code: tiny_wenet_speech.Code) -> None:
    text, data = take(code)
    heard = weights_scene.client().audio.transcriptions.create(
        model="whisper-1", file=("take.wav", data), response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )  # fmt: skip
    # no language is given: the surer of the two recognizers is right
    assert heard.language == {"en": "english", "zh": "chinese"}[code]
    assert heard.text.lower().replace(" ", "") == text.replace(" ", "")
    assert heard.words and heard.segments
    joint = "" if code == "zh" else " "
    assert joint.join(word.word for word in heard.words) == heard.text
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= heard.duration
    assert joint.join(segment.text for segment in heard.segments) == heard.text
    assert (heard.segments[0].start, heard.segments[-1].end) == (times[0], times[-1])
    assert all(-1.0 < segment.avg_logprob < 0.0 for segment in heard.segments)


# Node


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's official client for Node, from npm."""
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", "openai@latest"]
    subprocess.run(command, check=True, timeout=120)
    return folder


def test_the_official_client_for_node(openai_scene: Scene, node_modules: Path) -> None:
    openai_scene.chats[0].behaviour = answer("Hello from the chat.")
    script = node_modules / NODE_SCRIPT.name
    script.write_bytes(NODE_SCRIPT.read_bytes())
    run = subprocess.run(
        ["node", str(script), openai_scene.base_url, KEY_A, str(QUESTION_FILE)],
        check=False, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert "mirrorchat" in said["models"]
    assert said["transcript"] == said["streamed"] == QUESTION
    assert said["voice"]["object"] == "audio.voice" and said["deleted"] is True
    assert base64.b64decode(said["mp3"])[:1] == b"\xff" and said["voiceOfSpeech"].startswith("tint")
    assert said["speechBytes"] > 20_000
    assert said["chat"] == "Hello from the chat."
    assert (said["error"]["status"], said["error"]["code"]) == (404, "not_found")
    assert said["error"]["requestId"]
    assert openai_scene.files() == []


def test_a_part_of_a_form_whose_name_cannot_be_read_is_passed_over(openai_scene: Scene) -> None:
    nameless = b'--b\r\nContent-Disposition: form-data; name="\\"\r\n\r\nnull\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = openai_scene.send("POST", "/audio/transcriptions", data=nameless, headers=headers)
    assert response.status_code == 400 and response.json()["error"]["code"] == "missing_field"
