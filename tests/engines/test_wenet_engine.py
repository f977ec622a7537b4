"""The recognition engine: batches that equal single recordings, and what goes wrong stays with whom it went wrong."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from support.wenet_reference import DATA

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone, DeadlineExceeded, NotReady, RecognitionFailed, ServerBusy, ShuttingDown
from mirrorchat.wenet.batch import NOTHING, U2Batches
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.ctc.context import ContextGraph
from mirrorchat.wenet.ctc.search import FloatArray, Hypothesis
from mirrorchat.wenet.engine import RecognitionEngine

SIZES = (203, 23, 403, 5, 67, 150, 0, 311, 90)  # frames; the fourth and the seventh are too short for a word


class Gate:
    """A model that waits at its gate, and fails for features whose first number is `poison`."""

    rows, frames, poison = 4, 8000, 99.0

    def __init__(self, model: U2Batches) -> None:
        self.batches: list[int] = []
        self.open, self.reached = threading.Event(), threading.Event()
        self.error: Exception = RuntimeError("the device is out of memory")
        self.before_result: Callable[[], None] = lambda: None
        self._model = model

    def recognize(self, features: Sequence[FloatArray], contexts: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        self.batches.append(len(features))
        self.reached.set()
        assert self.open.wait(30)
        self.before_result()
        if any(len(each) and each[0, 0] == self.poison for each in features):
            raise self.error
        return self._model.recognize(features, contexts)


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


def ask(engine: RecognitionEngine, features: FloatArray, context: Context | None = None) -> Hypothesis:
    return engine.recognize([features], context=context or Context())[0]


def wait_until_waiting(engine: RecognitionEngine, count: int) -> None:
    limit = time.monotonic() + 60
    while len(engine._queue) != count:
        assert time.monotonic() < limit
        time.sleep(0.005)


@torch.inference_mode()
def test_a_batch_equals_single_recordings(model: U2Batches) -> None:
    features = recordings()
    alone = [model.recognize([each], [None])[0] for each in features]
    together = model.recognize(features, [None] * len(features))
    for single, batched in zip(alone, together, strict=True):
        assert (single.tokens, single.frames) == (batched.tokens, batched.frames)
        assert batched.score == pytest.approx(single.score, abs=1e-3)
    assert together[3] == together[6] == NOTHING
    assert sum(len(each.tokens) for each in together) > 50


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
    assert [each.tokens for each in found] == [each.tokens for each in alone]
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
        assert first.result(30) and asked[0].result(30).tokens and asked[2].result(30).tokens
        with pytest.raises(RecognitionFailed, match="RuntimeError"):
            asked[1].result(30)
    engine.check_ready()
    assert ask(engine, features[0]).tokens == asked[0].result().tokens


def test_who_has_gone_is_let_go_at_once_and_not_computed(engine: RecognitionEngine, gate: Gate) -> None:
    context, gone = Context(), ClientGone("the caller hung up")
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(ask, engine, recordings((30,))[0], context)
        assert gate.reached.wait(10)
        waiting = pool.submit(ask, engine, recordings((40,))[0], context)
        wait_until_waiting(engine, 1)
        context.cancel(gone)
        for each in (running, waiting):  # the gate is still closed
            with pytest.raises(ClientGone):
                each.result(5)
        gate.open.set()
        assert ask(engine, recordings((50,))[0]).tokens
    assert gate.batches == [1, 1]


def test_who_is_cancelled_by_the_time_of_the_result_gets_the_reason(engine: RecognitionEngine, gate: Gate) -> None:
    context = Context()
    gate.before_result = lambda: context.cancel(ClientGone("the caller hung up"))
    gate.open.set()
    with pytest.raises(ClientGone):
        ask(engine, recordings((30,))[0], context)
    assert gate.batches == [1]


def test_who_waits_past_the_deadline_is_let_go_and_not_computed(engine: RecognitionEngine, gate: Gate) -> None:
    late = Context.after(0.3)
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(ask, engine, recordings((30,))[0])
        assert gate.reached.wait(10)
        waiting: list[Future[Any]] = [
            pool.submit(engine.recognize, recordings((40, 50)), context=late),
            pool.submit(engine.compute, lambda: gate.batches.append(99), context=late),
        ]
        patient = pool.submit(engine.recognize, recordings((60,)), context=Context.after(60))
        for each in waiting:  # the gate is still closed
            with pytest.raises(DeadlineExceeded):
                each.result(20)
        wait_until_waiting(engine, 1)
        gate.open.set()
        assert running.result(30) and patient.result(30)[0].tokens
    assert gate.batches == [1, 1]


def test_a_deadline_in_the_middle_of_the_work_ends_the_wait(engine: RecognitionEngine, gate: Gate) -> None:
    with pytest.raises(DeadlineExceeded):
        engine.recognize(recordings((30,)), context=Context.after(0.2))
    assert not gate.open.is_set()
    gate.open.set()
    assert ask(engine, recordings((30,))[0])


def test_pieces_of_work_come_between_batches_and_in_their_order(engine: RecognitionEngine, gate: Gate) -> None:
    done: list[object] = []
    gate.before_result = lambda: done.append(gate.batches[-1])
    with ThreadPoolExecutor(12) as pool:
        asked: list[Future[Any]] = [pool.submit(ask, engine, recordings((30,))[0])]
        assert gate.reached.wait(10)
        for number in range(4):
            asked.append(pool.submit(ask, engine, recordings((30,))[0]))
            wait_until_waiting(engine, 2 * number + 1)
            asked.append(pool.submit(engine.compute, partial(done.append, f"work {number}"), context=Context()))
            wait_until_waiting(engine, 2 * number + 2)
        gate.open.set()
        for each in asked:
            each.result(30)
    assert done == [1, 4, "work 0", "work 1", "work 2", "work 3"]


def test_work_that_fails_fails_alone(engine: RecognitionEngine, gate: Gate) -> None:
    def fail() -> None:
        raise ValueError("no such chunk")

    gate.open.set()
    with pytest.raises(RecognitionFailed, match="ValueError"):
        engine.compute(fail, context=Context())
    assert engine.compute(torch.is_inference_mode_enabled, context=Context())
    assert ask(engine, recordings((50,))[0]).tokens


def test_batches_are_short_while_somebody_is_spoken_to(gate: Gate) -> None:
    """At most 20 s of speech with their padding: 2 of 10 s, or one of 15 s."""
    speaks = threading.Event()
    engine = RecognitionEngine(gate, speaks=speaks.is_set)
    try:
        for sizes, batches in (([900, 1000, 1000, 990], [2, 2]), ([1500, 400, 1500], [1, 1, 1])):
            with ThreadPoolExecutor(len(sizes) + 1) as pool:
                speaks.clear()
                gate.open.clear()
                gate.reached.clear()
                gate.batches.clear()
                asked = [pool.submit(ask, engine, recordings((30,))[0])]
                assert gate.reached.wait(10)
                for waiting, features in enumerate(recordings(sizes), 1):
                    asked.append(pool.submit(ask, engine, features))
                    wait_until_waiting(engine, waiting)
                speaks.set()
                gate.open.set()
                for each in asked:
                    each.result(60)
            assert gate.batches == [1, *batches]
    finally:
        gate.open.set()
        engine.close()


def test_too_many_are_refused(engine: RecognitionEngine, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, engine, recordings((30,))[0])
        assert gate.reached.wait(10)
        with pytest.raises(ServerBusy) as caught:
            engine.recognize(recordings([30] * 13), context=Context())
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
