"""One text to be spoken by the decode engine: what is asked for, and the way its samples take to the listener."""

import enum
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mirrorchat.audio.samples import Samples
from mirrorchat.engines import Priority
from mirrorchat.errors import ClientGone, MirrorChatError
from mirrorchat.turn.context import Context
from mirrorchat.xtts.sampling import Sampling


class FinishReason(enum.StrEnum):
    """Why an utterance ended: the model said so, it had all its tokens, or it said the same over and over."""

    STOP = "stop"
    LENGTH = "length"
    LOOP = "loop"


@dataclass(frozen=True)
class Request:
    """A text in a voice.

    `text_ids` are the tokenizer's; `conditioning` (1, 32, D) and `speaker_embedding` (1, 512, 1) the voice's, float32.
    At most `max_tokens` audio tokens (21.5 a second) are decoded; the model's own limit holds as well.
    """

    text_ids: Sequence[int]
    conditioning: Tensor
    speaker_embedding: Tensor
    seed: int
    max_tokens: int
    context: Context
    priority: Priority = Priority.FIRST
    sampling: Sampling = field(default_factory=Sampling)


class Utterance:
    """The listener's end of a request: iterate over it once for float32 samples in pieces; `close` to hear no more.

    `tokens` are the audio tokens so far, the stop token too; `latents` the GPT's output for each, (1, D) float32 on
    the engine's device. Both belong to the engine until `finish_reason` is set. Iterating raises what ends the
    request's context, SynthesisFailed when the model fails, or ShuttingDown; nothing comes after an error.
    """

    def __init__(self, request: Request, room: int, changed: threading.Condition) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.latents: list[Tensor] = []
        self.finish_reason: FinishReason | None = None
        self._room = room
        self._changed = changed  # the engine's, which waits on it for room
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
        """Free what the engine holds for this utterance, within one step. Harmless when it is finished."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._end()

    def _next(self) -> Samples | None:
        """Return the next piece, or None at the end."""
        with self._changed:
            self.request.context.wait(self._changed, self._has_news)
            self.check()
            if not self._chunks:
                return None
            self._changed.notify_all()  # there is room again
            return self._chunks.popleft()

    def _has_news(self) -> bool:
        return bool(self._chunks or self._error or self._closed or self.finish_reason is not None)

    def check(self) -> None:
        """Raise what ended this utterance, when something did. For the engine, ClientGone when it was closed."""
        if self._error is not None:
            raise self._error
        self.request.context.check()

    # What follows is the engine's, called with `changed` held.

    def unwanted(self) -> MirrorChatError | None:
        """Return why nobody waits for the rest any more, or None."""
        if self._closed:
            return ClientGone("the listener has gone")
        try:
            self.check()
        except MirrorChatError as error:
            return error
        return None

    @property
    def full(self) -> bool:
        """Tell whether the listener has fallen behind."""
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
