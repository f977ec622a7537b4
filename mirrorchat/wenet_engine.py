"""One engine thread for all callers' utterances: what waits is encoded as one batch, and searched and rescored at once.

Whoever asks waits on their own thread, so that a cancelled turn goes on at once; what the engine still computes for it
is thrown away.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch

from mirrorchat.ctc_search import ContextGraph, FloatArray, Hypothesis
from mirrorchat.engines import Cancel
from mirrorchat.errors import MirrorChatError, NotReady, RecognitionFailed, ServerBusy, ShuttingDown, log_unexpected

POLL_S = 0.02  # how soon a waiting caller notices that its turn is cancelled
FAULTS = (RuntimeError, MemoryError, ValueError)  # of one computation: what torch and the search raise


class BatchModel(Protocol):
    """A recogniser's network with its search: `rows` utterances at once, of `frames` feature frames with padding."""

    rows: int
    frames: int

    def recognise(self, features: Sequence[FloatArray], contexts: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best reading of each utterance, features (T, 80) float32; the same alone and in any batch."""
        ...


@dataclass(eq=False)
class _Waiting:
    """An utterance on its way: `done` is set when `result` or `error` is there."""

    features: FloatArray
    context: ContextGraph | None
    cancel: Cancel
    done: threading.Event = field(default_factory=threading.Event)
    result: Hypothesis | None = None
    error: MirrorChatError | None = None

    def finish(self, result: Hypothesis | MirrorChatError) -> None:
        if isinstance(result, Hypothesis):
            self.result = result
        else:
            self.error = result
        self.done.set()

    def wait(self) -> Hypothesis:
        """Return the result. Raises the error, or the reason of `cancel` once that is set."""
        while not self.done.wait(POLL_S):
            self.cancel.check()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


class RecognitionEngine:
    """Recognises utterances with `model` on a thread of its own. Thread-safe.

    At most `max_waiting` utterances wait; more are refused with ServerBusy. `device_lock` is held for each batch, where
    another engine computes on the same GPU. A batch that fails is computed again one by one, so that only the utterance
    at fault fails.
    """

    def __init__(
        self, model: BatchModel, *, max_waiting: int = 64, device_lock: AbstractContextManager[object] | None = None
    ) -> None:
        self._model = model
        self._max_waiting = max_waiting
        self._device_lock = device_lock or nullcontext()
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._closing = False
        self._healthy = True
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="recognition", daemon=True)
        self._thread.start()

    def recognise(
        self, features: Sequence[FloatArray], *, context: ContextGraph | None = None, cancel: Cancel
    ) -> list[Hypothesis]:
        """Return the best reading of each of one caller's utterances, features (T, 80) float32.

        Raises RecognitionFailed when the model fails, ServerBusy, NotReady, ShuttingDown, and the reason of `cancel`.
        """
        waiting = [_Waiting(each, context, cancel) for each in features]
        with self._changed:
            self._check_admission(len(waiting))
            self._queue.extend(waiting)
            self._changed.notify()
        return [each.wait() for each in waiting]

    @property
    def stuck_s(self) -> float:
        """Return for how long the batch that is being computed has been."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def check_ready(self) -> None:
        """Raise NotReady when the thread has failed."""
        if not self._healthy:
            raise NotReady("the recognition engine has failed")

    def close(self) -> None:
        """End every utterance with ShuttingDown and join the thread. Later ones are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _check_admission(self, count: int) -> None:
        if self._closing:
            raise ShuttingDown("the recognition engine is shutting down")
        self.check_ready()
        if len(self._queue) + count > self._max_waiting:
            raise ServerBusy(f"{len(self._queue)} recordings wait already; try again shortly", retry_after_s=2)

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        batch: list[_Waiting] | None = []
        try:
            with torch.inference_mode():
                while (batch := self._next_batch()) is not None:
                    self._busy_since = time.monotonic()
                    with self._device_lock:
                        self._compute(batch)
                    self._busy_since = None
        except Exception as error:  # whatever it is, nobody may wait for ever
            log_unexpected(error)
            self._end_everyone(batch or [], RecognitionFailed("the recognition engine has failed"))

    def _next_batch(self) -> list[_Waiting] | None:
        """Return what may be computed together, the longest waiting first; None at the end."""
        with self._changed:
            while not (self._queue or self._closing):
                self._changed.wait()
            if self._closing:
                self._end_queue(ShuttingDown("the recognition engine is shutting down"))
                return None
            return self._take()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        longest = 0
        while self._queue and len(batch) < self._model.rows:
            longest = max(longest, len(self._queue[0].features))
            if batch and longest * (len(batch) + 1) > self._model.frames:
                break
            first = self._queue.popleft()
            if not first.cancel.is_set():  # its caller has gone
                batch.append(first)
        return batch

    def _compute(self, batch: Sequence[_Waiting]) -> None:
        if not batch:  # everyone has gone
            return
        try:
            found = self._model.recognise([each.features for each in batch], [each.context for each in batch])
        except FAULTS as error:
            if len(batch) > 1:
                for each in batch:
                    self._compute([each])
                return
            log_unexpected(error)
            batch[0].finish(RecognitionFailed(f"the question could not be recognised ({type(error).__name__})"))
            return
        for each, hypothesis in zip(batch, found, strict=True):
            each.finish(hypothesis)

    def _end_everyone(self, batch: Sequence[_Waiting], error: MirrorChatError) -> None:
        for each in batch:
            each.finish(error)
        with self._changed:
            self._healthy = False
            self._end_queue(error)

    def _end_queue(self, error: MirrorChatError) -> None:
        while self._queue:
            self._queue.popleft().finish(error)
