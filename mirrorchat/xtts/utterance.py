"""A request to the decode engine, and the utterance, through which its consumer gets the samples."""

import enum
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mirrorchat.audio.samples import Samples
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Priority
from mirrorchat.errors import ClientGone, MirrorChatError
from mirrorchat.xtts.sampling import Sampling


class FinishReason(enum.StrEnum):
    """Why an utterance ended: with the stop token, with its last allowed token, or because it repeats itself."""

    STOP = "stop"
    LENGTH = "length"
    LOOP = "loop"


@dataclass(frozen=True)
class Request:
    """A text to speak in a voice.

    `text_ids` are the tokens of the text. `conditioning` (1, 32, D) and `speaker_embedding` (1, 512, 1), both float32,
    are those of the voice. At most `max_tokens` audio tokens (21.5 a second) are decoded, and at most as many as the
    model allows. The speech becomes `speed` times as fast.
    """

    text_ids: Sequence[int]
    conditioning: Tensor
    speaker_embedding: Tensor
    seed: int
    max_tokens: int
    context: Context
    priority: Priority = Priority.FIRST
    sampling: Sampling = field(default_factory=Sampling)
    speed: float = 1.0


class Utterance:
    """The consumer's end of a request. Iterate over it once for chunks of float32 samples; `close` to stop it.

    `tokens` are the audio tokens so far, including the stop token. `latents` has the output of the GPT for each token,
    (1, D) float32 on the engine's device. Both belong to the engine until `finish_reason` is set. Iterating raises the
    error that ends the request's context, SynthesisFailed if the model fails, or ShuttingDown; an error is the end.
    """

    def __init__(self, request: Request, room: int, changed: threading.Condition) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.latents: list[Tensor] = []
        self.finish_reason: FinishReason | None = None
        self._room = room
        self._changed = changed  # the engine waits on it for room in the queue
        self._chunks: deque[Samples] = deque()
        self._error: MirrorChatError | None = None
        self._closed = False
        self._undo = request.context.on_cancel(lambda _: self._wake())  # the engine then drops the sequence

    def __iter__(self) -> Iterator[Samples]:
        try:
            while (chunk := self._next()) is not None:
                yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Release the engine's state of this utterance within one step. Has no effect on a finished one."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._end()

    def _next(self) -> Samples | None:
        """Return the next chunk, or None at the end."""
        with self._changed:
            self.request.context.wait(self._changed, self._has_news)
            self.check()
            if not self._chunks:
                return None
            self._changed.notify_all()  # the queue has room again
            return self._chunks.popleft()

    def _has_news(self) -> bool:
        return bool(self._chunks or self._error or self._closed or self.finish_reason is not None)

    def check(self) -> None:
        """Raise the error that ended this utterance, if there is one."""
        if self._error is not None:
            raise self._error
        self.request.context.check()

    # The engine calls the following methods, and holds `changed` for them.

    def unwanted(self) -> MirrorChatError | None:
        """Return the reason why nobody waits for the rest any more, or None."""
        if self._closed:
            return ClientGone("the listener has gone")
        try:
            self.check()
        except MirrorChatError as error:
            return error
        return None

    @property
    def full(self) -> bool:
        """Return whether the queue is full, because the consumer has fallen behind."""
        return len(self._chunks) >= self._room

    def put(self, samples: Samples) -> None:
        if len(samples) and not self._closed:
            self._chunks.append(samples)
            self._changed.notify_all()

    def finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._end()

    def fail(self, error: MirrorChatError) -> None:
        if self._error is None:
            self._error = error
        self._end()

    def _end(self) -> None:
        self._undo()
        self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
