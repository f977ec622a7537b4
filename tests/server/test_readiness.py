"""/readyz: not ready while the engine's thread is stuck or a process does not start; what the batch says of itself."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts
from support.speech import say

from mirrorchat import synth
from mirrorchat.app import create_app
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer, ParrotChat
from mirrorchat.engines import Engines, Language, Priority, Voice
from mirrorchat.errors import NotReady, RecognitionFailed, SynthesisFailed
from mirrorchat.settings import Settings
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts.decode import Vocoder
from mirrorchat.xtts.vocoder import LaunchedSamples, VocoderStream, Work


class BlockingVocoder:
    """A vocoder that waits, once it is told to, in the middle of its work: the engine's thread waits with it."""

    def __init__(self, real: Vocoder) -> None:
        self._real = real
        self.go_on = threading.Event()
        self.reached = threading.Event()
        self.passed = 0  # so many calls more do not wait
        self.go_on.set()

    def open(self, speaker_embedding: torch.Tensor, speed: float) -> VocoderStream:
        self._wait()
        return self._real.open(speaker_embedding, speed)

    def latents_needed(self, stream: VocoderStream) -> int:
        return self._real.latents_needed(stream)

    def launch(self, work: Work) -> LaunchedSamples:
        self._wait()
        return self._real.launch(work)

    def warm_up(self, batch: int) -> None:
        self._real.warm_up(batch)

    def _wait(self) -> None:
        if not self.go_on.is_set() and not self.passed:
            self.reached.set()
            self.go_on.wait()
        self.passed = max(0, self.passed - 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_xtts.make_checkpoint(folder / "xtts-v2")
    return folder


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


def test_a_stuck_engine_is_not_ready_until_it_goes_on(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "STUCK_S", 1.0)
    app = create_app(Settings(models_dir=models, threads=1))
    runtime = app.extensions["mirrorchat"]
    assert runtime.wait_until_loaded(60)
    client = app.test_client()
    engine = runtime.pipeline.engines.synthesizers[Language.ENGLISH]
    assert isinstance(engine, XttsSynthesizer)
    vocoder = engine._engine._vocoder = BlockingVocoder(engine._engine._vocoder)
    try:
        voice = engine.voice([say("hello there my dear friends, how are you")])
        list(speak(engine, voice))
        time.sleep(1.2)
        assert client.get("/readyz").status_code == 200  # idle is not stuck
        vocoder.go_on.clear()
        speaking = threading.Thread(target=lambda: list(speak(engine, voice)))
        speaking.start()
        assert vocoder.reached.wait(10)
        assert client.get("/readyz").status_code == 200  # it has just begun
        wait_for(lambda: client.get("/readyz").status_code == 503)
        stuck = client.get("/readyz")
        assert (
            stuck.get_json()["error"]["code"] == "not_ready" and "no progress" in stuck.get_json()["error"]["message"]
        )
        assert stuck.headers["Retry-After"]
        assert client.post("/process_audio").status_code == 503  # nobody is let in to wait for it
        assert "mirrorchat_ready 0.0" in client.get("/metrics").get_data(as_text=True)
        vocoder.go_on.set()
        speaking.join(20)
        assert client.get("/readyz").status_code == 200
    finally:
        vocoder.go_on.set()
        runtime.close()


def test_work_that_has_just_come_is_not_stuck(models: Path) -> None:
    engine = XttsSynthesizer(models / "xtts-v2", device="cpu", threads=1)
    decode = engine._engine
    try:
        voice = engine.voice([say("hello there my dear friends, how are you")])
        request = engine._request(
            "hello", voice, Language.ENGLISH, 0, Priority.FIRST, Context.after(60)
        )  # fmt: skip
        time.sleep(0.3)
        with decode._changed:  # the thread, idle until now, cannot wake
            before = time.monotonic()
            utterance = decode.submit(request)
            assert decode.stuck_s <= time.monotonic() - before  # the idle time does not count
            time.sleep(0.3)
            assert decode.stuck_s > 0.2
        list(utterance)
        wait_for(lambda: decode.stuck_s == 0.0)
    finally:
        engine.close()


def speak(engine: XttsSynthesizer, voice: Voice) -> Iterator[object]:
    yield from engine.speak(
        "Hello there.", voice, Language.ENGLISH, seed=0, priority=Priority.FIRST,
        context=Context.after(60),
    )  # fmt: skip


def test_the_batch_says_how_full_it_is(models: Path) -> None:
    engine = XttsSynthesizer(models / "xtts-v2", device="cpu", threads=1)
    real = engine._engine._vocoder
    vocoder = engine._engine._vocoder = BlockingVocoder(real)
    try:
        voice = engine.voice([say("hello there my dear friends, how are you")])
        assert (engine.stats().running, engine.stats().waiting, engine.stats().tokens) == (0, 0, 0)
        vocoder.passed = 1  # it is opened, and then waits in its work
        vocoder.go_on.clear()
        speaking = threading.Thread(target=lambda: list(speak(engine, voice)))
        speaking.start()
        assert vocoder.reached.wait(10)
        during = engine.stats()
        assert (during.running, during.slots, during.waiting) == (1, 8, 0) and during.tokens > 0
        vocoder.go_on.set()
        speaking.join(20)
        wait_for(lambda: engine.stats().running == 0)
        assert engine.stats().tokens >= during.tokens
    finally:
        vocoder.go_on.set()
        engine.close()


def test_a_worker_that_does_not_start_again_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EmbeddedSynthesizer()
    try:
        engine.check_ready()
        voice = engine.voice([])
        engine._espeak._workers[0].end()
        engine.check_ready()  # the next sentence starts another
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "no-python"))
            with pytest.raises(SynthesisFailed):
                list(embedded(engine, voice))
        with pytest.raises(NotReady, match="eSpeak NG does not start") as caught:
            engine.check_ready()
        assert caught.value.retry_after_s
        assert list(embedded(engine, voice))
        engine.check_ready()
    finally:
        engine.close()


def test_a_recognizer_that_does_not_start_again_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, question = EmbeddedRecognizer(), say("good morning")
    try:
        engine._workers._workers[0].end()
        engine.check_ready()  # the next question starts another
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "no-python"))
            with pytest.raises(RecognitionFailed):
                engine.recognize(question, Language.ENGLISH, context=Context())
        engines = Engines({Language.ENGLISH: engine}, ParrotChat(), {})
        with pytest.raises(NotReady, match="pocketsphinx does not start") as caught:
            engines.check_ready()
        assert caught.value.retry_after_s
        assert engine.recognize(question, Language.ENGLISH, context=Context()).text
        engines.check_ready()
    finally:
        engine.close()


def embedded(engine: EmbeddedSynthesizer, voice: Voice) -> Iterator[object]:
    yield from engine.speak(
        "Hello.", voice, Language.ENGLISH, seed=0, priority=Priority.FIRST,
        context=Context.after(60),
    )  # fmt: skip


def test_where_keys_are_set_the_reason_is_not_told_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "a-key-for-health-0123456789"
    app = create_app(Settings(models_dir=tmp_path, threads=1, api_keys=(key,)))
    runtime = app.extensions["mirrorchat"]
    client, headers = app.test_client(), {"Authorization": f"Bearer {key}"}

    def told() -> tuple[int, dict[str, str]]:
        response = client.get("/readyz", headers=headers)
        assert response.headers["Retry-After"]
        return response.status_code, response.get_json()["error"]

    not_ready = {"message": "the server is not ready", "type": "unavailable_error", "param": None, "code": "not_ready"}
    try:
        assert runtime.wait_until_loaded(60)
        assert client.get("/readyz").get_json() == {"status": "ready"}
        engine = runtime.pipeline.engines.synthesizers[Language.ENGLISH]
        reason = "the worker process of eSpeak NG has ended"
        monkeypatch.setattr(engine, "check_ready", fails_with(NotReady(reason, retry_after_s=5)))
        assert told() == (503, not_ready)
        assert client.get("/engines", headers=headers).get_json()["error"]["message"] == reason
        monkeypatch.undo()
        runtime.stop_admission()
        assert told() == (503, not_ready)
    finally:
        runtime.close()


def fails_with(error: Exception) -> Callable[[], None]:
    def check_ready() -> None:
        raise error

    return check_ready
