"""Eight callers at once, each with a voice, question and answer of their own: each gets what they would get alone."""

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pytest
from support.chat_server import ChatServer, Exchange, answer
from support.running_server import RunningServer, conf_that_admits_all
from support.speech import say_wav

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer
from mirrorchat.engines import Language

CHAT_LIMIT_S = 60.0  # for all callers to reach the chat
FORMS = ("whole", "streamed")


@dataclass(frozen=True)
class Caller:
    """Who asks: an eSpeak NG `voice` whose question holds `topic`, answered with `reply`.

    `heard`: words of the reply that pocketsphinx understands in this caller's own tint.
    """

    voice: str
    language: str
    question: str
    topic: str
    reply: str
    heard: frozenset[str] = frozenset()

    def fields(self, form: str) -> dict[str, str]:
        """Return what is sent beside the recording: the words too where nothing recognizes them.

        And with streams: that questions are not mixed up in recognition is seen by the whole answers.
        """
        given = {"text": self.question} if self.language == "chinese" or form == "streamed" else {}
        return given | ({"stream": "true"} if form == "streamed" else {})


def english(voice: str, topic: str, reply: str, heard: str) -> Caller:
    question = f"Please tell me about the {topic}."
    return Caller(voice, "english", question, topic, reply, frozenset(heard.split()))


def chinese(voice: str, question: str, topic: str, reply: str) -> Caller:
    return Caller(voice, "chinese", question, topic, reply)


# pocketsphinx understands few words of synthetic speech: topics and answers are of those, in each of the voices. f2 and
# f3 will not do: eSpeak NG gives them a breath of noise that differs from second to second.
CALLERS = (
    english("en-us+m1", "garden", "Seventeen different animals are sleeping under the bridge.", "seventeen sleeping"),
    english("en-us+m3", "london", "There were eleven soldiers in the company before the war.", "soldiers"),
    english("en-us+f1", "trains", "The government will consider another question.", "government"),
    english("en-us+m7", "horses", "The orchestra plays on Saturday. The children sing together.", "together"),
    english("en-us+f4", "hospital", "People learn to read every semester.", "semester"),
    english("en-us+klatt4", "river", "Tomorrow they will remember everything.", "tomorrow remember everything"),
    chinese("cmn+f4", "今天的天气怎么样，要不要带雨伞？", "天气", "下午会下雨。出门请带一把雨伞。"),
    chinese("cmn+m3", "去火车站应该坐哪一路公共汽车？", "火车站", "坐三路车就到。路上要二十分钟。"),
)


@dataclass(frozen=True)
class Got:
    """What a caller got; `samples` are those of 16 bits that the wav holds."""

    transcript: str
    reply: str
    voice: str
    samples: npt.NDArray[np.int16]


class SharedChat:
    """A chat API that gives each caller their own answer, by what was asked; `meet` makes it wait for all of them."""

    def __init__(self) -> None:
        self._meeting: threading.Barrier | None = None

    @contextmanager
    def meet(self, callers: int) -> Iterator[None]:
        """Answer nobody until so many callers have asked: so many turns run at the same time."""
        self._meeting = threading.Barrier(callers)
        try:
            yield
        finally:
            self._meeting.abort()
            self._meeting = None

    def behave(self, exchange: Exchange) -> None:
        if self._meeting is not None:
            self._meeting.wait(CHAT_LIMIT_S)
        asked = exchange.request.question.lower()
        answer(next((caller.reply for caller in CALLERS if caller.topic in asked), "Nobody asked that."))(exchange)


@dataclass(eq=False)
class Scene:
    """A server, and the chat API that all its callers share."""

    server: RunningServer
    chat: SharedChat

    def alone(self, form: str) -> list[Got]:
        """Return what each caller gets while nobody else asks."""
        return [self._ask(caller, form) for caller in CALLERS]

    @functools.cache  # noqa: B019 - a scene lives as long as this module's tests
    def together(self, form: str) -> list[Got]:
        """Return what each caller gets while all of them ask, found out once."""
        with self.chat.meet(len(CALLERS)), ThreadPoolExecutor(len(CALLERS)) as pool:
            return list(pool.map(lambda caller: self._ask(caller, form), CALLERS))

    def _ask(self, caller: Caller, form: str) -> Got:
        recording = say_wav(caller.question, caller.voice)
        response = self.server.ask(recording, caller.language, **caller.fields(form))
        assert response.status_code == 200, response.text
        headers, content = response.headers, response.content
        transcript, reply = (unquote(headers[f"X-MirrorChat-{name}"]) for name in ("Transcript", "Reply"))
        begin = content.index(b"data") + 8  # a chunk's name and its length
        return Got(transcript, reply, headers["X-MirrorChat-Voice"], np.frombuffer(content[begin:], "<i2"))


@contextmanager
def running_scene(folder: Path) -> Iterator[Scene]:
    """Run a server that admits all callers at once, however slow this machine is at speaking to them."""
    conf, shared = conf_that_admits_all(folder), SharedChat()
    with (
        ChatServer(shared.behave) as chat,
        RunningServer(folder, gunicorn_conf=conf, max_turns=len(CALLERS), chatgpt_apis=[chat.api()]) as server,
    ):
        yield Scene(server, shared)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running_scene(tmp_path_factory.mktemp("embedded")) as scene:
        yield scene


@pytest.fixture(scope="module")
def xtts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Clones, by a tiny network with random weights: it speaks noise, another one for each voice and sentence."""
    pytest.importorskip("mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed")
    from make_tiny_xtts import make_checkpoint

    folder = tmp_path_factory.mktemp("xtts")
    make_checkpoint(folder / "models" / "xtts-v2")
    with running_scene(folder) as scene:
        yield scene


def check_own(got: list[Got], kind: str) -> None:
    """Assert that each caller was understood, answered and given a voice, and that no two sound the same."""
    for caller, each in zip(CALLERS, got, strict=True):
        assert caller.topic in each.transcript.lower(), each.transcript
        assert each.voice.startswith(f"{kind}; "), each.voice
        assert caller.reply.startswith(each.reply) and len(each.samples) > 12_000
        assert np.abs(each.samples).max() > 300
    assert len({each.samples.tobytes() for each in got}) == len(CALLERS)


def check_same(got: list[Got], alone: list[Got], *, steps: int = 0) -> None:
    """Assert that all callers got what they get alone, to within so many steps of the samples' 16 bits."""
    for caller, mine, expected in zip(CALLERS, got, alone, strict=True):
        assert (mine.transcript, mine.voice) == (expected.transcript, expected.voice), caller.voice
        assert len(mine.samples) == len(expected.samples), caller.voice
        difference = np.abs(mine.samples.astype(np.int32) - expected.samples)
        assert difference.max() <= steps, caller.voice


@pytest.mark.parametrize("form", FORMS)
def test_embedded_engines_say_to_each_of_eight_what_they_say_to_one(embedded: Scene, form: str) -> None:
    alone = embedded.alone(form)
    check_own(alone, "tint")
    check_same(embedded.together(form), alone)


def test_each_of_eight_hears_their_own_answers_words_and_nobody_elses(embedded: Scene) -> None:
    together = embedded.together("whole")
    everybodys = frozenset[str]().union(*(caller.heard for caller in CALLERS))
    recognizer = EmbeddedRecognizer()
    try:
        for caller, got in zip(CALLERS, together, strict=True):
            assert got.reply == caller.reply
            if caller.heard:
                audio = Audio((got.samples / 32768).astype(np.float32), 24_000)
                heard = recognizer.recognize(audio, Language.ENGLISH, context=Context()).text.lower().split()
                assert everybodys & set(heard) == caller.heard, heard
    finally:
        recognizer.close()


@pytest.mark.parametrize("form", FORMS)
def test_xtts_says_to_each_of_eight_what_it_says_to_one(xtts: Scene, form: str) -> None:
    from mirrorchat.hardware import native

    alone = xtts.alone(form)
    check_own(alone, "clone")
    # without the library, products of a batch are summed in another order: 1e-5 apart, which may round to a step
    check_same(xtts.together(form), alone, steps=0 if native.library() is not None else 1)
