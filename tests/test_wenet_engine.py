"""The recognition engine: batches that equal single recordings, and what goes wrong stays with whom it went wrong."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mirrorchat.ctc_context import ContextGraph
from mirrorchat.ctc_search import FloatArray, Hypothesis
from mirrorchat.engines import Cancel
from mirrorchat.errors import ClientGone, NotReady, RecognitionFailed, ServerBusy, ShuttingDown
from mirrorchat.wenet_batch import NOTHING, U2Batches
from mirrorchat.wenet_checkpoint import read_checkpoint
from mirrorchat.wenet_engine import RecognitionEngine

DATA = Path(__file__).parent / "data" / "wenet-reference"
SIZES = (203, 23, 403, 5, 67, 150, 0, 311, 90)  # frames; the fourth and the seventh are too short for a word


class Gate:
    """A model that waits at its gate, and fails for features whose first number is `poison`."""

    rows, frames, poison = 4, 8000, 99.0

    def __init__(self, model: U2Batches) -> None:
        self.batches: list[int] = []
        self.open, self.reached = threading.Event(), threading.Event()
        self.error: Exception = RuntimeError("the device is out of memory")
        self._model = model

    def recognise(self, features: Sequence[FloatArray], contexts: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        self.batches.append(len(features))
        self.reached.set()
        assert self.open.wait(30)
        if any(len(each) and each[0, 0] == self.poison for each in features):
            raise self.error
        return self._model.recognise(features, contexts)


@pytest.fixture(scope="module", params=["aishell", "gigaspeech", "multi_cn", "transformer"])
def model(request: pytest.FixtureRequest) -> U2Batches:
    return U2Batches(read_checkpoint(DATA / request.param).model)


@pytest.fixture
def gate() -> Gate:
    return Gate(U2Batches(read_checkpoint(DATA / "aishell").model))


@pytest.fixture
def engine(gate: Gate) -> Iterator[RecognitionEngine]:
    engine = RecognitionEngine(gate, max_waiting=12)
    yield engine
    gate.open.set()
    engine.close()


def recordings(sizes: Sequence[int] = SIZES) -> list[FloatArray]:
    generator = np.random.default_rng(5)
    return [(10 + 3 * generator.standard_normal((size, 80))).astype(np.float32) for size in sizes]


def ask(engine: RecognitionEngine, features: FloatArray, cancel: Cancel | None = None) -> Hypothesis:
    return engine.recognise([features], cancel=cancel or Cancel())[0]


def wait_until_waiting(engine: RecognitionEngine, count: int) -> None:
    limit = time.monotonic() + 20
    while len(engine._queue) != count:
        assert time.monotonic() < limit
        time.sleep(0.005)


@torch.inference_mode()
def test_a_batch_equals_single_recordings(model: U2Batches) -> None:
    features = recordings()
    alone = [model.recognise([each], [None])[0] for each in features]
    together = model.recognise(features, [None] * len(features))
    for single, batched in zip(alone, together, strict=True):
        assert (single.units, single.frames) == (batched.units, batched.frames)
        assert batched.score == pytest.approx(single.score, abs=1e-3)
    assert together[3] == together[6] == NOTHING
    assert sum(len(each.units) for each in together) > 50


def test_what_waits_is_computed_together(engine: RecognitionEngine, gate: Gate) -> None:
    features = recordings()
    gate.open.set()
    alone = [ask(engine, each) for each in features]
    gate.open.clear()
    gate.reached.clear()
    gate.batches.clear()
    with ThreadPoolExecutor(len(features)) as pool:
        first = pool.submit(ask, engine, features[0])
        assert gate.reached.wait(10)
        rest = [pool.submit(ask, engine, each) for each in features[1:]]
        wait_until_waiting(engine, len(rest))
        gate.open.set()
        found = [each.result(30) for each in (first, *rest)]
    assert [each.units for each in found] == [each.units for each in alone]
    assert gate.batches == [1, 4, 4]


def test_a_recording_at_fault_fails_alone(engine: RecognitionEngine, gate: Gate) -> None:
    features = recordings((60, 70, 80))
    features[1][0, 0] = gate.poison
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, engine, recordings((30,))[0])
        assert gate.reached.wait(10)
        asked = [pool.submit(ask, engine, each) for each in features]
        wait_until_waiting(engine, 3)
        gate.open.set()
        assert first.result(30) and asked[0].result(30).units and asked[2].result(30).units
        with pytest.raises(RecognitionFailed, match="RuntimeError"):
            asked[1].result(30)
    engine.check_ready()
    assert ask(engine, features[0]).units == asked[0].result().units


def test_who_has_gone_is_let_go_at_once_and_not_computed(engine: RecognitionEngine, gate: Gate) -> None:
    cancel, gone = Cancel(), ClientGone("the caller hung up")
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(ask, engine, recordings((30,))[0], cancel)
        assert gate.reached.wait(10)
        waiting = pool.submit(ask, engine, recordings((40,))[0], cancel)
        wait_until_waiting(engine, 1)
        cancel.set(gone)
        for each in (running, waiting):  # the gate is still closed
            with pytest.raises(ClientGone):
                each.result(5)
        gate.open.set()
        assert ask(engine, recordings((50,))[0]).units
    assert gate.batches == [1, 1]


def test_too_many_are_refused(engine: RecognitionEngine, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, engine, recordings((30,))[0])
        assert gate.reached.wait(10)
        with pytest.raises(ServerBusy) as caught:
            engine.recognise(recordings([30] * 13), cancel=Cancel())
        assert caught.value.retry_after_s
        gate.open.set()
        assert first.result(30)


def test_a_shutdown_ends_who_waits(gate: Gate) -> None:
    engine = RecognitionEngine(gate)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(ask, engine, recordings((30,))[0])
        assert gate.reached.wait(10)
        waiting = pool.submit(ask, engine, recordings((40,))[0])
        wait_until_waiting(engine, 1)
        closing = pool.submit(engine.close)
        gate.open.set()
        closing.result(30)
        assert running.result(5)
        with pytest.raises(ShuttingDown):
            waiting.result(5)
    with pytest.raises(ShuttingDown):
        ask(engine, recordings((30,))[0])


def test_an_engine_that_has_failed_says_so(engine: RecognitionEngine, gate: Gate) -> None:
    gate.error, features = KeyError("a defect"), recordings((30,))[0]
    features[0, 0] = gate.poison
    gate.open.set()
    with pytest.raises(RecognitionFailed, match="engine has failed"):
        ask(engine, features)
    for call in (engine.check_ready, lambda: ask(engine, recordings((30,))[0])):
        with pytest.raises(NotReady):
            call()


def test_how_long_a_batch_takes_is_seen(engine: RecognitionEngine, gate: Gate) -> None:
    assert engine.stuck_s == 0.0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, engine, recordings((30,))[0])
        assert gate.reached.wait(10)
        before = engine.stuck_s
        assert engine.stuck_s > before >= 0.0
        gate.open.set()
        assert asked.result(30)
