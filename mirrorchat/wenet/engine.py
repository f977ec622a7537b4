"""The recognition engine: one thread that recognizes the utterances of all callers, in batches.

The thread encodes all queued utterances as one batch, searches and rescores them. Between batches it computes single
pieces of work, such as one chunk of a stream. Every caller waits on a thread of its own, so a cancelled turn continues
at once: its queued work is removed, and the result of its running work is discarded.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import (
    EngineFailed,
    MirrorChatError,
    NotReady,
    RecognitionFailed,
    ServerBusy,
    ShuttingDown,
    log_unexpected,
)
from mirrorchat.hardware.devices import current_device
from mirrorchat.hardware.lost_gpu import raise_if_gpu_lost
from mirrorchat.wenet.ctc.search import ContextGraph, FloatArray, Hypothesis

FAULTS = (RuntimeError, MemoryError, ValueError)  # torch and the search raise these if one computation fails
SHORT_FRAMES = 2_000  # 20 s of speech, padding included; a recording is cut into pieces of 15 s
CPU = torch.device("cpu")
STUCK_AFTER_S = 60.0  # no batch takes this long, even on a busy core

Result = TypeVar("Result")


class BatchModel(Protocol):
    """A recognizer's network with its search, for batches of `rows` utterances and `frames` feature frames at most.

    `frames` includes padding.
    """

    rows: int
    frames: int

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best hypothesis of each utterance, which does not depend on the rest of the batch.

        `features` are (T, 80) float32; `graphs` hold the hot words of each utterance.
        """
        ...


@dataclass(eq=False, kw_only=True)
class _Utterance:
    """One queued utterance. `graph` holds the hot words."""

    features: FloatArray
    graph: ContextGraph | None
    context: Context
    result: "Future[Hypothesis]" = field(default_factory=Future)


@dataclass(eq=False, kw_only=True)
class _Work:
    """One queued piece of work, to compute between two batches."""

    compute: Callable[[], object]
    context: Context
    result: "Future[Any]" = field(default_factory=Future)


_Queued = _Utterance | _Work


class RecognitionEngine:
    """Recognizes utterances with `model` on a thread of its own. Thread-safe.

    At most `max_waiting` utterances and pieces of work are queued; more are rejected with ServerBusy. While `speaks`
    says that another engine on the same GPU speaks, a batch has SHORT_FRAMES at most, so that its listeners do not wait
    for long. A failed batch is computed again one by one, so that only the faulty utterance fails. A lost GPU ends the
    thread, for which `device` is the current one. A batch that takes longer than `stuck_after_s` makes the engine count
    as stuck.
    """

    def __init__(
        self,
        model: BatchModel,
        *,
        max_waiting: int = 64,
        stuck_after_s: float = STUCK_AFTER_S,
        device: torch.device = CPU,
        speaks: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model = model
        self._max_waiting, self._stuck_after_s = max_waiting, stuck_after_s
        self._device, self._speaks = device, speaks
        self._changed = threading.Condition()
        self._queue: deque[_Queued] = deque()
        self._closing = False
        self._healthy = True
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="recognition", daemon=True)
        self._thread.start()

    def recognize(
        self, features: Sequence[FloatArray], *, graph: ContextGraph | None = None, context: Context
    ) -> list[Hypothesis]:
        """Return the best hypothesis for each of one caller's utterances.

        `features` are (T, 80) float32; `graph` holds the hot words. Raises RecognitionFailed if the model fails,
        ServerBusy, NotReady, ShuttingDown, and the error that ends `context`.
        """
        utterances = [_Utterance(features=each, graph=graph, context=context) for each in features]
        self._wait_for(utterances, context)
        return [each.result.result() for each in utterances]

    def compute(self, work: Callable[[], Result], *, context: Context) -> Result:
        """Call `work` on the engine's thread between two batches, under `torch.inference_mode`, and return its result.

        `work` should take no longer than a batch. Raises as `recognize` does.
        """
        queued = _Work(compute=work, context=context)
        self._wait_for([queued], context)
        found: Result = queued.result.result()
        return found

    @property
    def stuck_s(self) -> float:
        """Return the seconds since the running batch began; 0 between batches."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def check_ready(self) -> None:
        """Raise EngineFailed if the thread has ended after an error, NotReady if a batch is stuck."""
        self._check_healthy()
        if self.stuck_s > self._stuck_after_s:
            raise NotReady(f"recognition has been stuck for {self.stuck_s:.0f} s")

    def close(self) -> None:
        """End every utterance with ShuttingDown and join the thread. Later ones are rejected."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _wait_for(self, queued: Sequence[_Queued], context: Context) -> None:
        with self._changed:
            self._check_admission(len(queued))
            self._queue.extend(queued)
            self._changed.notify()
        try:
            for each in queued:
                context.wait(each.result)
        except MirrorChatError:
            self._withdraw(queued)
            raise

    def _withdraw(self, queued: Sequence[_Queued]) -> None:
        """Remove orphaned work from the queue."""
        with self._changed:
            for each in queued:
                with suppress(ValueError):  # the thread has already taken it
                    self._queue.remove(each)

    def _check_healthy(self) -> None:
        if not self._healthy:
            raise EngineFailed("recognition")

    def _check_admission(self, count: int) -> None:
        if self._closing:
            raise ShuttingDown("the recognition engine is shutting down")
        self._check_healthy()
        if len(self._queue) + count > self._max_waiting:
            raise ServerBusy(f"{len(self._queue)} recordings wait already; try again shortly", retry_after_s=2)

    # The following methods run on the engine's thread.

    def _run(self) -> None:
        taken: Sequence[_Utterance] | _Work | None = None
        try:
            with current_device(self._device), torch.inference_mode():
                while (taken := self._next()) is not None:
                    self._busy_since = time.monotonic()
                    self._compute(taken)
                    self._busy_since = None
                    taken = None  # keeps no reference to the results while it waits
        except Exception as error:  # after any error, no caller may wait for ever
            log_unexpected(error)
            batch = [taken] if isinstance(taken, _Work) else taken or []
            self._end_everyone(batch, RecognitionFailed("the recognition engine has failed"))

    def _next(self) -> Sequence[_Utterance] | _Work | None:
        """Return the oldest piece of work, or a batch of the oldest utterances; None when the engine closes."""
        with self._changed:
            while True:
                if self._closing:
                    self._end_queue(ShuttingDown("the recognition engine is shutting down"))
                    return None
                self._queue = deque(each for each in self._queue if not each.context.is_over)
                if self._queue:
                    return self._take()
                self._changed.wait()

    def _take(self) -> Sequence[_Utterance] | _Work:
        first = self._queue[0]
        if isinstance(first, _Work):
            self._queue.popleft()
            return first
        batch: list[_Utterance] = []
        longest, most = 0, min(self._model.frames, SHORT_FRAMES) if self._speaks() else self._model.frames
        for each in [each for each in self._queue if isinstance(each, _Utterance)]:
            longest = max(longest, len(each.features))
            if len(batch) == self._model.rows or (batch and longest * (len(batch) + 1) > most):
                break
            self._queue.remove(each)
            batch.append(each)
        return batch

    def _compute(self, taken: Sequence[_Utterance] | _Work) -> None:
        if isinstance(taken, _Work):
            self._do(taken)
            return
        try:
            found = self._model.recognize([each.features for each in taken], [each.graph for each in taken])
        except FAULTS as error:
            raise_if_gpu_lost(error)
            if len(taken) > 1:
                for each in taken:
                    self._compute([each])
                return
            self._fail(taken[0], error)
            return
        for each, hypothesis in zip(taken, found, strict=True):
            each.result.set_result(hypothesis)

    def _do(self, work: _Work) -> None:
        try:
            found = work.compute()
        except FAULTS as error:
            raise_if_gpu_lost(error)
            self._fail(work, error)
            return
        work.result.set_result(found)

    def _fail(self, queued: _Queued, error: Exception) -> None:
        log_unexpected(error)
        failure = RecognitionFailed(f"the question could not be recognized ({type(error).__name__})")
        queued.result.set_exception(failure)

    def _end_everyone(self, batch: Sequence[_Queued], error: MirrorChatError) -> None:
        for each in batch:
            if not each.result.done():
                each.result.set_exception(error)
        with self._changed:
            self._healthy = False
            self._end_queue(error)

    def _end_queue(self, error: MirrorChatError) -> None:
        while self._queue:
            self._queue.popleft().result.set_exception(error)
