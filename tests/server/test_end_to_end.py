"""The main job: spoken Chinese and English through the running server, to a chat API, and back as speech.

Here WeNet hears; test_small_models_served.py has the small models, and a judge of the words that they speak.
"""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_wenet_speech
from make_tiny_wenet import edit_distance
from make_tiny_xtts import make_checkpoint
from support.chat_server import (
    STREAM_TYPE,
    ChatServer,
    RefusingPort,
    answer,
    body,
    chunked_stream,
    hang_before_headers,
    html,
    status,
    truncated,
)
from support.places import ROOT
from support.running_server import RunningServer
from support.speech import say_wav

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio

KEY = "sk-of-the-api-0123456789"
ENGLISH_ANSWER = "The best way to learn is to listen and to speak every day."
CHINESE_ANSWER = "今天北京天气很好，最高气温25°C。"
REPLIES = {"en": ENGLISH_ANSWER, "zh": CHINESE_ANSWER}


def questions(code: tiny_wenet_speech.Code) -> list[tuple[str, bytes]]:
    """Return held-out takes of the tiny recognizers: what is said, and its recording."""
    takes = [take for take in tiny_wenet_speech.held_out(code) if take.kind == "new_voice"][:4]
    rate = tiny_wenet_speech.SAMPLE_RATE
    return [(take.text, encode_wav(Audio(samples, rate)))
            for take, samples in zip(takes, tiny_wenet_speech.speak(takes), strict=True)]  # fmt: skip


def reply_in_the_language_of(messages: list[dict[str, str]]) -> str:
    """Answer in the language that the system prompt asks for, as a chat model does."""
    return CHINESE_ANSWER if "Chinese" in messages[0]["content"] else ENGLISH_ANSWER


def sound_of(answer: Any) -> Audio:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(answer["audio"])), dtype="float32")
    return Audio(samples, rate)


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer(reply_in_the_language_of)) as server:
        yield server


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder with the tiny WeNet models, which were trained on eSpeak's speech."""
    folder = tmp_path_factory.mktemp("models")
    for code in ("zh", "en"):
        shutil.copytree(ROOT / "tests" / "data" / "wenet-tiny" / code, folder / f"wenet-{code}")
    return folder


@pytest.fixture(scope="module")
def server(chat: ChatServer, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """WeNet hears, the embedded voice speaks."""
    folder = tmp_path_factory.mktemp("wenet")
    with RunningServer(folder, models_dir=str(models), chatgpt_apis=[chat.api(KEY, model="千问")]) as running:
        yield running


@pytest.mark.parametrize(("code", "name"), [("en", "English"), ("zh", "Chinese")])
def test_spoken_questions_reach_the_api_in_words_and_come_back_as_speech(
    server: RunningServer, chat: ChatServer, code: tiny_wenet_speech.Code, name: str
) -> None:
    errors = length = 0
    for said, recording in questions(code):
        reply = server.ask_json(recording, name.lower())
        request = chat.requests[-1]
        assert request.question == reply["transcript"]
        assert name in request.messages[0]["content"]
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body["stream"] is True and request.body["model"] == "千问"
        assert reply["reply"] == REPLIES[code]
        assert reply["engines"]["recognizer"]["name"] == "wenet"
        assert reply["voice"]["kind"] in ("tint", "neutral")
        assert 2.0 < sound_of(reply).duration_s < 9.0
        heard = said_in(request.question, code)
        errors += edit_distance(said_in(said, code), heard)
        length += len(said_in(said, code))
    assert errors / length < 0.10


def said_in(text: str, code: str) -> list[str]:
    """Return the words of English, the characters of Chinese."""
    return text.lower().split() if code == "en" else list(text)


def test_the_reply_language_is_what_the_api_is_asked_for(server: RunningServer, chat: ChatServer) -> None:
    _, recording = questions("en")[0]
    reply = server.ask_json(recording, "english", reply_language="chinese")
    assert "Chinese" in chat.requests[-1].messages[0]["content"]
    assert reply["reply"] == CHINESE_ANSWER
    assert sound_of(reply).duration_s > 2.0


def test_the_xtts_answer_is_a_clone_and_no_caller_gets_anothers(chat: ChatServer, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    make_checkpoint(tmp_path / "models" / "xtts-v2")
    said = "good morning to all of you my dear friends"
    recordings = {voice: say_wav(said, voice) for voice in ("en-us+m3", "en-us+f2")}
    with RunningServer(tmp_path, chatgpt_apis=[chat.api()]) as running:
        alone = {voice: running.ask_json(recording, "en", text="Hi") for voice, recording in recordings.items()}
        together: dict[str, Any] = {}

        def ask(voice: str) -> None:
            together[voice] = running.ask_json(recordings[voice], "en", text="Hi")

        threads = [Thread(target=ask, args=(voice,)) for voice in recordings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        chinese = running.ask_json(recordings["en-us+f2"], "zh", text="你好")
    assert len(together) == 2
    for voice, reply in together.items():
        assert reply["voice"]["kind"] == "clone"
        assert reply["engines"]["synthesizer"]["name"] == "xtts"
        # one step of 16 bits: float32 products of a batch are summed in another order than those of one row
        np.testing.assert_allclose(sound_of(reply).samples, sound_of(alone[voice]).samples, atol=1.5 / 32768)
        assert np.abs(sound_of(reply).samples).max() > 0.01
    first, second = (sound_of(reply).samples for reply in together.values())
    assert len(first) != len(second) or np.abs(first - second).max() > 0.01
    assert chinese["reply"] == CHINESE_ANSWER and sound_of(chinese).duration_s > 0


def test_every_failing_api_is_passed_over_and_cooled_down(tmp_path: Path) -> None:
    failures = {
        "401": status(401),
        "429": status(429),
        "500": status(500),
        "html": html,
        "truncated": truncated(),
        "broken": truncated("This answer ", "breaks off"),  # before the caller has heard any of it
        "empty": chunked_stream(b""),
        "not a chat": body(b"null", STREAM_TYPE),
        "silent": hang_before_headers,
    }
    servers = {name: ChatServer(behaviour) for name, behaviour in failures.items()}
    good = ChatServer(answer(ENGLISH_ANSWER))
    for chat in (*servers.values(), good):
        chat.__enter__()
    try:
        with RefusingPort() as refusing:
            apis = [
                refusing.api(),
                *(chat.api(KEY, timeout_s=1.0, first_token_timeout_s=1.0) for chat in servers.values()),
                good.api(KEY),
            ]
            with RunningServer(tmp_path, chatgpt_apis=apis) as running:
                for _ in range(2):
                    reply = running.ask_json(say_wav("hello there"), "english", text="Hi")
                    assert reply["reply"] == ENGLISH_ANSWER
                    assert sound_of(reply).duration_s < 9.0  # nothing of the broken answer is in it
                assert KEY not in running.log
        assert {name: len(chat.requests) for name, chat in servers.items()} == dict.fromkeys(failures, 1)
        assert len(good.requests) == 2
    finally:
        for chat in (*servers.values(), good):
            chat.__exit__(None, None, None)


def test_no_api_that_answers_is_502_with_each_reason_and_no_key(tmp_path: Path) -> None:
    with (
        ChatServer(status(401)) as refused,
        ChatServer(truncated("Once upon a time. There was ", "a ")) as broken,
        RunningServer(tmp_path, chatgpt_apis=[broken.api(KEY), refused.api(KEY)]) as running,
    ):
        response = running.ask(say_wav("hello there"), "english", text="Hi")
        assert response.status_code == 502
        error = response.json()["error"]
        assert error["code"] == "no_chat_api"
        assert "HTTP 401" in error["message"] and "broke off" in error["message"]
        assert KEY not in response.text and KEY not in running.log
