"""The chat client: one question to the first API of an ordered list that answers, streamed as OpenAI's API streams."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mirrorchat.chat.attempt import Attempt
from mirrorchat.chat.chunks import ChatChunk, ChunkReader, Reader, TextReader
from mirrorchat.chat.stream import AnswerFailed
from mirrorchat.engines import EngineInfo, Language, Message
from mirrorchat.errors import ChatFailure, ChatInterrupted, NoChatApi
from mirrorchat.settings import ChatApi
from mirrorchat.turn.context import Context

_REQUEST_STATUSES = (400, 413, 422)  # what an API says of a request, not of itself

Piece = TypeVar("Piece")  # of an answer: text, or a chunk as OpenAI's API streams it

_log = logging.getLogger(__name__)


def build_messages(
    system_prompt: str, language: Language, question: str, history: Sequence[Message] = ()
) -> list[Message]:
    """Return the messages that ask `question` after `history`, the session's earlier turns, oldest first.

    `{language}` in `system_prompt` becomes `Chinese` or `English`.
    """
    prompt = system_prompt.format(language=language.value.capitalize())
    return [Message("system", prompt), *history, Message("user", question)]


class ChatClient:
    """A ChatModel over an ordered list of chat-completions APIs. Thread-safe.

    All that is kept between calls is which APIs failed lately: those are tried last for `cooldown_s` seconds, or for
    longer, up to 5 minutes, when the API said so itself with Retry-After.
    """

    def __init__(self, apis: Sequence[ChatApi], *, cooldown_s: float) -> None:
        self._apis = tuple(apis)
        self._cooldowns = _Cooldowns(len(self._apis), cooldown_s)
        self._failures = [0] * len(self._apis)
        self._lock = threading.Lock()
        models = ", ".join(f"{api.model}@{api.host}" for api in self._apis)
        self.info = EngineInfo(name="chat", model=models, device="remote", reason="chatgpt_apis is set")

    def stream(
        self, messages: Sequence[Message], *, context: Context, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[str]:
        """Yield the answer in pieces as they come, without leading whitespace, at most MAX_ANSWER_CHARS characters.

        APIs named in `failed` (from an earlier ChatInterrupted of the same turn) are not tried again. Raises
        NoChatApi when none answered, ChatInterrupted when a stream broke after its first piece was yielded (both list
        every failure of the turn), and what ends `context`. Closing the generator ends the request; the connection is
        closed however it ends.
        """
        asked = [{"role": message.role, "content": message.content} for message in messages]
        everyone = range(len(self._apis))
        return self._first_answer(TextReader, {"messages": asked}, everyone, context, failed)

    def relay(
        self,
        request: Mapping[str, Any],
        *,
        model: str | None = None,
        context: Context,
        failed: Sequence[ChatFailure] = (),
    ) -> Iterator[ChatChunk]:
        """Yield the answer to a request in OpenAI's form as OpenAI's API streams it; its fields are passed on.

        `model`: ask those APIs only that are set to it; each API gets its own model's name. All else is as with
        `stream`.
        """
        chosen = [index for index, api in enumerate(self._apis) if model in (None, api.model)]
        return self._first_answer(ChunkReader, request, chosen, context, failed, callers=True)

    def _first_answer(
        self,
        reader: Callable[[], Reader[Piece]],
        request: Mapping[str, Any],
        chosen: Collection[int],
        context: Context,
        failed: Sequence[ChatFailure],
        *,
        callers: bool = False,  # the request is of a caller's making, and may be at fault
    ) -> Iterator[Piece]:
        failures = list(failed)
        skipped = set(range(len(self._apis))).difference(chosen) | {failure.index for failure in failed}
        for index in self._cooldowns.order(skip=skipped):
            begun = False
            try:
                with Attempt(self._apis[index], request, reader()) as attempt:
                    for piece in attempt.pieces(context):
                        begun = True
                        yield piece
            except AnswerFailed as failure:
                failures.append(self._note(index, failure, blame=not (callers and failure.status in _REQUEST_STATUSES)))
                if begun:
                    raise ChatInterrupted(f"the answer broke off: {failures[-1]}", failures) from None
            else:
                self._cooldowns.succeeded(index)
                return
        context.check()
        raise NoChatApi(f"no chat API answered: {'; '.join(map(str, failures)) or 'none is set'}", failures)

    def close(self) -> None:
        """Do nothing: connections live as long as a call, and a turn that still runs is ended by its context."""

    def failures(self) -> Sequence[int]:
        """Return how often each API has failed since the start, in list order."""
        with self._lock:
            return tuple(self._failures)

    def _note(self, index: int, failed: AnswerFailed, *, blame: bool) -> ChatFailure:
        if blame:
            with self._lock:
                self._failures[index] += 1
            self._cooldowns.failed(index, failed.retry_after_s)
        name = f"API {index + 1} ({self._apis[index].host})"
        failure = ChatFailure(index, name, failed.reason, failed.fault, failed.status)
        _log.warning("chat: %s", failure)
        return failure


class _Cooldowns:
    """Which APIs failed lately, on the monotonic clock."""

    def __init__(self, count: int, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self._until = [float("-inf")] * count
        self._lock = threading.Lock()

    def order(self, *, skip: Collection[int]) -> list[int]:
        """Return the APIs to try: the healthy in list order, then the cooling, those first that are ready soonest."""
        with self._lock:
            now = time.monotonic()
            ends = [until if until > now else float("-inf") for until in self._until]
        return sorted(
            (index for index in range(len(ends)) if index not in skip), key=lambda index: (ends[index], index)
        )

    def failed(self, index: int, retry_after_s: float) -> None:
        with self._lock:
            self._until[index] = time.monotonic() + max(self._cooldown_s, retry_after_s)

    def succeeded(self, index: int) -> None:
        with self._lock:
            self._until[index] = float("-inf")
