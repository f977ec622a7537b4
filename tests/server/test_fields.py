"""Fields that several routes take: one parser, any case, and messages that name what the route has."""

import numpy as np
import pytest
import requests
from support.checks import check_error
from support.places import ROOT
from support.running_server import RunningServer

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio

QUESTION = (ROOT / "examples" / "question.wav").read_bytes()
WORDS = "What is the best way to learn a language"


def transcribe(server: RunningServer, recording: bytes = QUESTION, **fields: str) -> requests.Response:
    url = f"{server.url}/v1/audio/transcriptions"
    return requests.post(url, files={"file": recording}, data={"model": "whisper-1", **fields}, timeout=60)


def enrol(server: RunningServer, recording: bytes, field: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/audio/voices", files={field: recording}, data={"name": "Nobody"}, timeout=60)


def speak(server: RunningServer, **fields: object) -> requests.Response:
    body = {"model": "tts-1", "voice": "default", "input": "Hello there.", **fields}
    return requests.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)


@pytest.mark.parametrize("tag", ["en-US", "EN_gb", "eng", "英语", " English "])
def test_every_route_takes_the_same_tags(embedded_server: RunningServer, tag: str) -> None:
    assert embedded_server.ask_json(QUESTION, tag, reply_language="zh-Hant-HK")["transcript"] == WORDS
    assert transcribe(embedded_server, language=tag).json()["text"] == WORDS
    assert speak(embedded_server, language=tag).ok
    messages = [{"role": "user", "content": "Hello."}]
    body = {"model": "mirrorchat", "messages": messages, "language": tag}
    assert requests.post(f"{embedded_server.url}/v1/chat/completions", json=body, timeout=60).ok


def test_every_route_refuses_another_language_with_the_same_words(embedded_server: RunningServer) -> None:
    refused = [
        embedded_server.ask(QUESTION, "zh-yue"),
        transcribe(embedded_server, language="zh-yue"),
        speak(embedded_server, language="zh-yue"),
    ]
    messages = {check_error(response, 400, "invalid_value", "language") for response in refused}
    assert len(messages) == 1 and "zh-Hant-TW" in messages.pop()


def test_nothing_detects_the_language(embedded_server: RunningServer) -> None:
    """Without the small models `auto` says how to install them. Where no language is named, what there is hears."""
    assert transcribe(embedded_server, language="").json()["text"] == WORDS
    pocketsphinx = requests.get(f"{embedded_server.url}/v1/models", timeout=10).json()["data"][1]["id"]
    assert transcribe(embedded_server, language="auto", model=pocketsphinx).json()["text"] == WORDS
    for refused in (
        embedded_server.ask(QUESTION, "auto"),
        embedded_server.ask(QUESTION, "Auto", stream="true", response_format="sse"),
        transcribe(embedded_server, language=" AUTO "),
    ):
        message = check_error(refused, 400, "language_not_detected", "language")
        assert message.endswith(".venv/bin/mirrorchat models install small")


@pytest.mark.parametrize(
    ("text", "language"),
    [("今天天气怎么样？", "chinese"), ("What is it?", "english"), ("写一个 Python 程序", "chinese"), ("12", "english")],
)
def test_the_script_of_typed_words_is_their_language(embedded_server: RunningServer, text: str, language: str) -> None:
    """It needs no detector."""
    response = embedded_server.ask(QUESTION, "auto", text=text)
    assert response.headers["X-MirrorChat-Language"] == language
    answer = embedded_server.ask_json(QUESTION, "auto", text=text, reply_language="auto")
    assert answer["language"] == language and answer["transcript"] == text
    assert ("您说" in answer["reply"]) == (language == "chinese")


def test_formats_in_any_case(embedded_server: RunningServer) -> None:
    assert embedded_server.ask(QUESTION, "en", response_format=" JSON ").json()["transcript"] == WORDS
    assert transcribe(embedded_server, response_format="Text").text == f"{WORDS}\n"
    assert transcribe(embedded_server, response_format=" Verbose_JSON").json()["duration"] > 2
    assert speak(embedded_server, response_format="WAV").content.startswith(b"RIFF")
    audio = {"voice": "default", "format": "WAV"}
    body = {"model": "mirrorchat", "modalities": ["text", "audio"], "audio": audio}
    messages = [{"role": "user", "content": "Hello."}]
    spoken = requests.post(f"{embedded_server.url}/v1/chat/completions", json=body | {"messages": messages}, timeout=60)
    assert spoken.ok, spoken.text
    check_error(transcribe(embedded_server, response_format="docx"), 400, "invalid_value", "response_format")
    check_error(speak(embedded_server, response_format=["wav"]), 400, "invalid_value", "response_format")


def test_advice_names_only_fields_of_the_route(embedded_server: RunningServer) -> None:
    asked = check_error(embedded_server.ask(QUESTION, "zh"), 503, "model_not_installed", "language")
    assert "models install wenet-zh" in asked and asked.endswith("or send the words of the question as text")
    heard = check_error(transcribe(embedded_server, language="zh"), 503, "model_not_installed", "language")
    assert "models install wenet-zh" in heard and "text" not in heard


@pytest.mark.parametrize("field", ["audio_sample", "file", "sample"])
def test_the_field_of_a_recording_is_the_one_that_was_sent(embedded_server: RunningServer, field: str) -> None:
    silence = encode_wav(Audio(np.zeros(16_000, np.float32), 16_000))
    check_error(enrol(embedded_server, silence, field), 422, "silent_audio", field)
    check_error(enrol(embedded_server, bytes(20_000_000), field), 413, "upload_too_large", "audio_sample")
    check_error(transcribe(embedded_server, bytes(20_000_000)), 413, "upload_too_large", "file")


@pytest.mark.parametrize("name", ["default", "Default", "alloy", "nova"])
def test_the_built_in_voice_says_why_it_stays(embedded_server: RunningServer, name: str) -> None:
    url = f"{embedded_server.url}/v1/audio/voices"
    message = check_error(requests.delete(f"{url}/{name}", timeout=10), 400, "invalid_value", "voice")
    assert name in message and "cannot be deleted" in message
    check_error(requests.delete(f"{url}/somebody", timeout=10), 404, "not_found", "voice")
    listed = requests.get(url, timeout=10).json()["data"][0]
    assert requests.get(f"{url}/default", timeout=10).json() == listed


@pytest.mark.parametrize("route", ["/process_audio", "/v1/audio/transcriptions", "/v1/audio/speech"])
def test_event_streams_name_their_charset(embedded_server: RunningServer, route: str) -> None:
    if route.endswith("speech"):
        response = speak(embedded_server, stream_format="sse")
    elif route.endswith("transcriptions"):
        response = transcribe(embedded_server, stream="true")
    else:
        response = embedded_server.ask(QUESTION, "en", stream="true", response_format="SSE")
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
