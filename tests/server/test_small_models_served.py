"""The small models behind a real server: what people ask is heard, and what they hear is understood.

The questions are spoken by the server's own neutral voices, or by people where the clips are there. A judge hears the
answers. One server serves all tests of this file, the page's too: it takes 1 GB.
"""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI
from selenium.webdriver.common.by import By
from support.browser import Browser
from support.chat_server import ChatServer, answer
from support.checks import wait_for
from support.judge import Judge
from support.openai_scene import heard, heard_pcm
from support.page_scene import check_quiet
from support.places import CLIPS
from support.running_server import RunningServer, conf_that_admits_all
from support.small_models import kokoro_folder, whisper_folder

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.error_rate import edits, tokens
from mirrorchat.cli.evaluation.speaker_encoder import Embedding, SpeakerEncoder
from mirrorchat.engines import Language

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
QUESTIONS = {ENGLISH: "What should I cook for my friends tonight?", CHINESE: "你好，你可以用中文跟我聊天吗？"}
REPLIES = {
    ENGLISH: "A warm soup with fresh bread is never wrong. Ask them to bring some cheese.",
    CHINESE: "很高兴认识你！你想聊什么？我们可以从天气开始，也可以聊聊你喜欢吃的菜。",
}
MIXED_QUESTION, MIXED_REPLY = "你会写程序吗？", "会一点，可以在 YouTube 上学，也可以用 Google 查。"


@dataclass(frozen=True)
class Caller:
    """A person of the clips, who asks in each turn of a session: in the first about `topic`, answered by `reply`."""

    clips: tuple[str, str]
    topic: str
    reply: str


MAN = Caller(
    (
        "en_pocketsphinx_sense_and_sensibility_01_austen_64kb-0880.wav",
        "en_pocketsphinx_sense_and_sensibility_01_austen_64kb-0930.wav",
    ),
    "young man",
    "The train to the coast leaves every hour in the morning.",
)
WOMAN = Caller(
    ("en_coqui-ai-TTS_LJ001-0004.wav", "en_coqui-ai-TTS_LJ001-0002.wav"),
    "printed book",
    "Old books should be kept in a cool and dry room.",
)
CALLERS = (MAN, WOMAN)


def reply_to(messages: list[dict[str, str]]) -> str:
    """Answer what any message asks about a topic; else say something in the language that the system prompt names."""
    topics = {caller.topic: caller.reply for caller in CALLERS} | {"程序": MIXED_REPLY}
    said = " ".join(message["content"] for message in messages)
    found = [reply for topic, reply in topics.items() if topic in said]
    return found[0] if found else REPLIES[CHINESE if "Chinese" in messages[0]["content"] else ENGLISH]


def sound_of(reply: Any) -> Audio:
    """Return the speech of an answer in JSON."""
    return heard(base64.b64decode(reply["audio"]))


def check_heard(said: str, transcript: str, language: Language) -> None:
    """Assert that a transcript is what was said, but for one word or character."""
    assert edits(tokens(said, language), tokens(transcript, language)).errors <= 1, transcript


@dataclass(frozen=True)
class Scene:
    """A server with the small models, the chat API that answers it, the judge of its speech, and OpenAI's client."""

    server: RunningServer
    chat: ChatServer
    judge: Judge
    client: OpenAI

    def say(self, text: str, language: Language) -> bytes:
        """Return `text` as the server's neutral voice says it, a wav."""
        return self.client.audio.speech.create(
            model="tts-1", input=text, voice="default", response_format="wav", extra_body={"language": language.value}
        ).content


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("small")
    (folder / "models").mkdir()
    for model in (whisper_folder(), kokoro_folder()):
        (folder / "models" / model.name).symlink_to(model)
    conf = conf_that_admits_all(folder)
    with (
        closing(Judge()) as judge,
        ChatServer(answer(reply_to)) as chat,
        RunningServer(folder, gunicorn_conf=conf, chatgpt_apis=[chat.api()], synthesizer="auto", threads=2) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield Scene(server, chat, judge, client)


@pytest.fixture(scope="module", params=[ENGLISH, CHINESE], ids=["english", "chinese"])
def asked(request: pytest.FixtureRequest, scene: Scene) -> tuple[Language, bytes]:
    """Return a language, and a newcomer's first question spoken in it."""
    language: Language = request.param
    return language, scene.say(QUESTIONS[language], language)


def test_a_spoken_question_is_answered_in_words_that_are_understood(
    scene: Scene, asked: tuple[Language, bytes]
) -> None:
    language, recording = asked
    whole = scene.server.ask_json(recording, language.value)
    assert {whole["engines"][stage]["name"] for stage in ("recognizer", "synthesizer")} == {"small"}
    check_heard(QUESTIONS[language], whole["transcript"], language)
    assert scene.chat.requests[-1].question == whole["transcript"]
    assert (whole["reply"], whole["voice"]["kind"], whole["unspoken"]) == (REPLIES[language], "tint", [])
    streamed = scene.server.ask(recording, language.value, stream="true", response_format="pcm")
    assert streamed.status_code == 200
    answers = (sound_of(whole), heard_pcm(streamed.content))
    scene.judge.check_understood(language, *((REPLIES[language], speech) for speech in answers))


def test_the_openai_routes_hear_and_speak(scene: Scene, asked: tuple[Language, bytes]) -> None:
    language, recording = asked
    file = ("question.wav", recording)
    written = scene.client.audio.transcriptions.create(model="whisper-1", file=file, language=language.code)
    check_heard(QUESTIONS[language], written.text, language)
    scene.judge.check_understood(language, (REPLIES[language], heard(scene.say(REPLIES[language], language))))


def test_english_names_in_a_chinese_answer_are_understood(scene: Scene) -> None:
    reply = scene.server.ask_json(scene.say(MIXED_QUESTION, CHINESE), "chinese")
    assert (reply["reply"], reply["unspoken"]) == (MIXED_REPLY, [])
    scene.judge.check_understood(CHINESE, (MIXED_REPLY, sound_of(reply)))


def test_callers_at_once_get_each_their_own_answer_and_voice(scene: Scene) -> None:
    """And in the second turn of their sessions: nobody else's voice or history is in it."""
    if not CLIPS.is_dir():
        pytest.skip(f"clips absent: {CLIPS}")
    encoder = SpeakerEncoder()
    recordings = [[(CLIPS / name).read_bytes() for name in caller.clips] for caller in CALLERS]
    people = embeddings(encoder, [decode(first, limit_s=60.0) for first, _ in recordings])
    sessions: list[dict[str, str]] = [{} for _ in CALLERS]
    spoken: list[tuple[str, Audio]] = []
    for turn in range(2):
        asking = [(scene, recordings[number][turn], sessions[number]) for number in range(len(CALLERS))]
        with ThreadPoolExecutor(len(CALLERS)) as pool:
            replies = list(pool.map(ask_in_session, asking))
        for caller, reply in zip(CALLERS, replies, strict=True):
            assert (reply["reply"], reply["voice"]["kind"]) == (caller.reply, "tint")
        spoken += [(caller.reply, sound_of(reply)) for caller, reply in zip(CALLERS, replies, strict=True)]
        likeness = people @ embeddings(encoder, [sound_of(reply) for reply in replies]).T
        assert likeness.diagonal().min() > max(likeness[0, 1], likeness[1, 0]) + 0.1, likeness
        sessions = [{"session_id": reply["session_id"]} for reply in replies]
    scene.judge.check_understood(ENGLISH, *spoken, at_most=0.1)


def embeddings(encoder: SpeakerEncoder, speech: list[Audio]) -> Embedding:
    """Return a row for each recording."""
    found = [encoder.embed(audio) for audio in speech]
    return np.stack([each for each in found if each is not None])


def ask_in_session(asking: tuple[Scene, bytes, dict[str, str]]) -> Any:
    scene, recording, session = asking
    return scene.server.ask_json(recording, "english", **session)


@pytest.fixture
def browser(scene: Scene, tmp_path: Path) -> Iterator[Browser]:
    """A browser whose microphone plays the Chinese question, and then nothing."""
    question = heard(scene.say(QUESTIONS[CHINESE], CHINESE))
    samples = np.pad(question.samples, (0, 2 * question.sample_rate))
    (tmp_path / "question.wav").write_bytes(encode_wav(Audio(samples, question.sample_rate)))
    with closing(Browser(tmp_path / "question.wav")) as browser:
        yield browser


def test_a_chinese_newcomer_asks_on_the_page(scene: Scene, browser: Browser) -> None:
    browser.open(scene.server.url)
    browser.is_ready()
    browser.driver.find_element(By.CSS_SELECTOR, "[value=chinese]").click()
    browser.tap("talk")
    browser.listen_for("0:04")
    browser.tap("talk")
    wait_for(lambda: browser.state == "speaking")
    browser.is_ready()
    check_heard(QUESTIONS[CHINESE], browser.text(".asked .words"), CHINESE)
    assert browser.text(".answered .words") == REPLIES[CHINESE]
    pieces = browser.pieces()
    spoken = Audio(np.concatenate([piece.samples for piece in pieces]), pieces[0].rate)
    scene.judge.check_understood(CHINESE, (REPLIES[CHINESE], spoken))
    check_quiet(browser)
