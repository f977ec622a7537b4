"""`language=auto`: Whisper detects which language is spoken, and the answer is in it, in every form of an answer."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tiny_wenet_speech
from selenium.webdriver.common.by import By
from support.browser import Browser
from support.chat_server import ChatServer, answer
from support.checks import check_error, wait_for
from support.page_scene import check_fits, check_quiet
from support.places import CLIPS, QUESTION, ROOT
from support.running_server import RunningServer
from support.small_models import whisper_folder
from support.speech import noise_wav
from support.stream_client import ask_streamed, events_of, named
from support.trained_wenet import write_trained_checkpoint

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import DetectsLanguage, Language
from mirrorchat.errors import LanguageNotDetected
from mirrorchat.settings import Settings
from mirrorchat.startup.loading import build_engines
from mirrorchat.startup.memory_plan import plan_memory
from mirrorchat.turn.hearing import Hearing, require_detector
from mirrorchat.turn.stopwatch import Stopwatch

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
REPLIES = {ENGLISH: "Every day a little.", CHINESE: "每天学一点。"}
WORDS = {ENGLISH: "way to learn", CHINESE: "广州市"}  # of the two questions


def reply_to(messages: list[dict[str, str]]) -> str:
    """Answer as a chat model does, in the language that the system prompt names."""
    return REPLIES[CHINESE if "Chinese" in messages[0]["content"] else ENGLISH]


def question(language: Language) -> bytes:
    """Return a question of a person; skip the test if it is not there."""
    path = QUESTION if language is ENGLISH else CLIPS / "zh_wenet_aishell-BAC009S0724W0121.wav"
    if not path.is_file():
        pytest.skip(f"clips absent: {CLIPS}")
    return path.read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that hears with Whisper, speaks each language with an engine of its own, and has a chat API."""
    folder = tmp_path_factory.mktemp("detecting")
    (folder / "models").mkdir()
    (folder / "models" / "whisper-base").symlink_to(whisper_folder())
    with ChatServer(answer(reply_to)) as chat, RunningServer(folder, chatgpt_apis=[chat.api()]) as running:
        yield running


def engine_names(server: RunningServer) -> dict[str, str]:
    engines = requests.get(f"{server.url}/engines", timeout=10).json()["engines"]
    return {stage: engine["name"] for stage, engine in engines.items()}


@pytest.mark.parametrize("language", Language)
def test_an_answer_in_the_language_of_the_question(server: RunningServer, language: Language) -> None:
    names = engine_names(server)
    assert names["detector"] == "small"
    answer = server.ask_json(question(language), "auto")
    assert answer["language"] == language and answer["reply"] == REPLIES[language]
    assert WORDS[language] in answer["transcript"]
    engines = answer["engines"]
    assert all(engines[stage]["name"] == name for stage, name in used_for(language, names).items())
    forced = server.ask_json(question(language), language.value)
    assert {name: forced[name] for name in ("transcript", "language", "reply", "engines")} == {
        name: answer[name] for name in ("transcript", "language", "reply", "engines")
    }


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_header_names_the_language(server: RunningServer, language: Language, stream: str) -> None:
    response = server.ask(question(language), "auto", stream=stream, response_format="wav")
    assert response.status_code == 200 and response.headers["X-MirrorChat-Language"] == language
    engines = response.headers["X-MirrorChat-Engines"]
    assert all(f"{stage}={name}/" in engines for stage, name in used_for(language, engine_names(server)).items())


def used_for(language: Language, names: dict[str, str]) -> dict[str, str]:
    """Return the names of the engines that hear and speak `language`, by stage."""
    return {stage: names[f"{stage}.{language.code}"] for stage in ("recognizer", "synthesizer")}


@pytest.mark.parametrize("language", Language)
def test_events_name_the_language_once_it_is_known(server: RunningServer, language: Language) -> None:
    response = ask_streamed(server.url, question(language), language="auto", text="", response_format="sse")
    engines = response.headers["X-MirrorChat-Engines"]
    assert "chat=" in engines and "recognizer=" not in engines and "synthesizer=" not in engines
    data = {event.name: event.data for event in named(events_of(response))}
    assert data["transcript"]["language"] == language and WORDS[language] in data["transcript"]["text"]
    assert data["done"]["reply"] == REPLIES[language]
    assert set(data["done"]["engines"]) == {"recognizer", "chat", "synthesizer"}


def test_the_answer_may_be_in_the_other_language(server: RunningServer) -> None:
    answer = server.ask_json(question(CHINESE), "auto", reply_language="english")
    assert answer["language"] == CHINESE and answer["reply"] == REPLIES[ENGLISH]
    response = ask_streamed(
        server.url, question(CHINESE), language="auto", reply_language="english", response_format="sse"
    )
    assert "synthesizer=" in response.headers["X-MirrorChat-Engines"]


def test_a_session_changes_its_language(server: RunningServer) -> None:
    first = server.ask_json(question(ENGLISH), "auto")
    second = server.ask_json(question(CHINESE), "auto", session_id=first["session_id"])
    assert [first["reply"], second["reply"]] == [REPLIES[ENGLISH], REPLIES[CHINESE]]
    assert second["session_id"] == first["session_id"]


def test_without_speech_no_language_is_detected(server: RunningServer) -> None:
    before = detected(server)
    silence = encode_wav(Audio(np.zeros(16_000, np.float32), 16_000))
    check_error(server.ask(silence, "auto"), 422, "silent_audio", "audio")
    check_error(server.ask(noise_wav(2.0), "auto"), 422, "no_words", "audio")
    assert detected(server) == before


@pytest.mark.parametrize("named_as", [{}, {"language": "auto"}, {"language": ""}, {"languages[]": "zh"}])
def test_a_transcription_detects_it(server: RunningServer, named_as: dict[str, str]) -> None:
    spoken = [CHINESE] if "languages[]" in named_as else list(Language)
    for language in spoken:
        response = requests.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": question(language)},
            data={"response_format": "verbose_json", **named_as},
            timeout=60,
        )
        assert response.json()["language"] == language and WORDS[language] in response.json()["text"]


def test_a_streamed_transcription_detects_it(server: RunningServer) -> None:
    response = requests.post(
        f"{server.url}/v1/audio/transcriptions", files={"file": question(CHINESE)}, data={"stream": "true"}, timeout=60
    )
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["type"] == "transcript.text.done" and WORDS[CHINESE] in events[-1]["text"]


def test_a_spoken_chat_detects_it(server: RunningServer) -> None:
    sound = {"data": base64.b64encode(question(CHINESE)).decode(), "format": "wav"}
    messages = [
        {"role": "system", "content": "Chinese"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": sound}]},
    ]
    body = {"messages": messages, "modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
    response = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert response.json()["choices"][0]["message"]["audio"]["transcript"] == REPLIES[CHINESE]


def test_metrics_count_the_languages(server: RunningServer) -> None:
    before = detected(server)
    server.ask_json(question(CHINESE), "auto")
    server.ask_json(question(ENGLISH), "english")
    after = detected(server)
    assert after.pop("zh") == before.pop("zh", 0.0) + 1.0 and after == before


def detected(server: RunningServer) -> dict[str, float]:
    """Return the counts of detected languages by their codes."""
    name, lines = "mirrorchat_detected_languages_total", requests.get(f"{server.url}/metrics", timeout=10).text
    found = [line.removeprefix(f'{name}{{language="').split('"} ') for line in lines.splitlines() if name + "{" in line]
    return {code: float(count) for code, count in found}


# The page


@pytest.fixture
def browser() -> Iterator[Browser]:
    with closing(Browser(QUESTION)) as browser:
        yield browser


def test_the_page_detects_it(server: RunningServer, browser: Browser) -> None:
    """The page says `auto` unless a person says otherwise, and reads the words in the language that was detected."""
    for width in (320, 1280):
        browser.show_on(width, 800)
        browser.open(server.url)
        browser.is_ready()
        check_fits(browser)
    assert browser.text("label:has(:checked)") == "Auto"
    browser.ask()
    wait_for(lambda: browser.state == "speaking")
    browser.is_ready()
    assert WORDS[ENGLISH] in browser.text(".asked .words") and browser.text(".answered .words") == REPLIES[ENGLISH]
    assert browser.run("return document.querySelector('.turn').lang") == "en"
    browser.tap("page-language")
    assert browser.text("label:has(:checked)") == "自动"
    browser.driver.find_element(By.CSS_SELECTOR, "[value=chinese]").click()
    browser.ask()
    wait_for(lambda: browser.run("return document.querySelectorAll('.turn[lang=zh-CN]').length") == 1)
    check_quiet(browser)


# The command line


def run(*arguments: str, **environ: str) -> Any:
    """Return what `mirrorchat` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "mirrorchat", *arguments, "--json"],
        capture_output=True, timeout=120, check=False, env=os.environ | environ, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "question.wav"
    path.write_bytes(question(CHINESE))
    return str(path)


def test_the_command_line_asks_a_server(server: RunningServer, recording: str) -> None:
    heard = run("hear", recording, "--language", "auto", "--server", server.url)
    assert heard["language"] == CHINESE and WORDS[CHINESE] in heard["text"]
    answer = run("ask", recording, "--server", server.url, "--no-play", MIRRORCHAT_LANGUAGE="AUTO")
    assert answer["language"] == CHINESE and answer["reply"] == REPLIES[CHINESE]


def test_the_command_line_detects_it_by_itself(server: RunningServer, recording: str) -> None:
    config = ("--config", str(server.config))
    heard = run("hear", recording, "--language", "auto", *config)
    assert heard["language"] == CHINESE and WORDS[CHINESE] in heard["text"]
    answer = run("ask", recording, "--language", "auto", "--no-play", *config)
    assert answer["language"] == CHINESE and answer["reply"] == REPLIES[CHINESE]


# WeNet hears, Whisper detects


def test_whisper_detects_for_wenet(tmp_path: Path) -> None:
    """Each language is heard by its own model, and the plan of the memory counts Whisper."""
    takes = {"en": "what time is it now", "zh": "我要喝咖啡"}
    write_trained_checkpoint(tmp_path / "wenet-zh", "zh")
    write_trained_checkpoint(tmp_path / "wenet-en", "en")
    settings = Settings(models_dir=tmp_path, threads=1)
    without = build_engines(settings, speaking=())
    assert without.detector is None and "detector" not in without.infos()
    with pytest.raises(LanguageNotDetected):
        require_detector(without, "language")
    without.close()
    assert "Whisper base" not in [part.name for part in plan_memory(settings).parts]
    (tmp_path / "whisper-base").symlink_to(whisper_folder())
    assert "Whisper base" in [part.name for part in plan_memory(settings).parts]
    engines = build_engines(settings, speaking=())
    try:
        assert {stage: info.name for stage, info in engines.infos().items() if stage != "chat"} == {
            "recognizer.zh": "wenet", "recognizer.en": "wenet", "detector": "small",
        }  # fmt: skip
        assert isinstance(engines.detector, DetectsLanguage)
        hearing = Hearing(engines, (), Context(), Stopwatch())
        for code, text in takes.items():
            heard = hearing.hear(spoken(code, text), tuple(Language))
            assert heard.language.code == code and heard.text.lower().rstrip("？?") == text
    finally:
        engines.close()
    alone = build_engines(settings, hearing=[ENGLISH], speaking=())
    assert alone.detector is None  # whoever names the language needs none
    alone.close()


def spoken(code: str, text: str) -> Audio:
    """Return a held-out take of the tiny model's own speech that says `text`."""
    takes = tiny_wenet_speech.held_out("zh" if code == "zh" else "en")
    chosen = next(take for take in takes if take.kind == "heard" and take.text == text)
    (samples,) = tiny_wenet_speech.speak([chosen])
    return Audio(samples, tiny_wenet_speech.SAMPLE_RATE)
