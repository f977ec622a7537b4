"""The chat client: it asks the chat-completions APIs in the order of a list until one answers, and streams the answer.

client = ChatClient(settings.chatgpt_apis, cooldown_s=30.0)
messages = build_messages("Answer in {language}.", Language.ENGLISH, "How far is the moon?")
for event in client.stream(messages, context=Context.after(100.0)):
    if isinstance(event, str):
        print(event, end="")
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from mirrorchat.chat.attempt import Attempt
from mirrorchat.chat.chunks import ChatChunk, as_events, as_relayed
from mirrorchat.chat.reasoning import Opening, OpeningMissing, ReasoningFilter
from mirrorchat.chat.stream import AnswerFailed
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import ChatEvent, EngineInfo, Language, Message
from mirrorchat.errors import ChatFailure, ChatInterrupted, ChatRateLimited, NoChatApi, ReasoningSent
from mirrorchat.settings import ChatApi

_REQUEST_STATUSES = (400, 413, 422)  # the request is at fault, not the API

Piece = TypeVar("Piece")  # of an answer: text, or a chunk as OpenAI's API streams it

_log = logging.getLogger(__name__)


def build_messages(
    system_prompt: str, language: Language, question: str, history: Sequence[Message] = ()
) -> list[Message]:
    """Return the messages that ask `question`.

    Arguments:
        system_prompt: the first message; `{language}` in it becomes `Chinese` or `English`.
        language: the language of the answer.
        question: the last message.
        history: the session's earlier turns, oldest first.
    """
    prompt = system_prompt.format(language=language.value.capitalize())
    return [Message("system", prompt), *history, Message("user", question)]


class ChatClient:
    """A ChatModel over an ordered list of chat-completions APIs. Thread-safe.

    Between calls it remembers only the APIs' failures, and whether an API omits the opening tag of its reasoning. An
    API that failed is tried last for the longer of `cooldown_s` and its Retry-After (at most 5 minutes).
    """

    def __init__(self, apis: Sequence[ChatApi], *, cooldown_s: float) -> None:
        self._apis = tuple(apis)
        self._cooldowns = _Cooldowns(len(self._apis), cooldown_s)
        self._openings = [Opening.of_model(api.model) for api in self._apis]
        models = ", ".join(f"{api.model}@{api.host}" for api in self._apis)
        self.info = EngineInfo(name="chat", model=models, device="remote", reason="chatgpt_apis is set")

    def stream(
        self, messages: Sequence[Message], *, context: Context, failed: Sequence[ChatFailure] = ()
    ) -> Iterator[ChatEvent]:
        """Yield the answer in pieces of text as they arrive. Closing the generator closes the connection.

        Arguments:
            messages: the conversation, oldest first; the last one is the question.
            context: ends the answer early.
            failed: APIs that an earlier ChatInterrupted of the same turn named; they are not tried again.

        Yields:
            Thinking while the model reasons; AnsweredBy; text, in all at most MAX_ANSWER_CHARS characters without
            reasoning and leading whitespace; AnswerEnded.

        Raises:
            NoChatApi: no API answered; it lists every failure of the turn.
            ChatInterrupted: a stream broke after its first text was yielded; it lists every failure of the turn.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        request = {"messages": [{"role": message.role, "content": message.content} for message in messages]}
        return self._first_answer(as_events, request, range(len(self._apis)), context, failed)

    def relay(
        self,
        request: Mapping[str, Any],
        *,
        model: str | None = None,
        context: Context,
        failed: Sequence[ChatFailure] = (),
    ) -> Iterator[ChatChunk]:
        """Yield the answer to a caller's own request, in chunks as OpenAI's API streams them, without reasoning.

        Arguments:
            request: the fields of a chat-completions request; they are passed on, each API with its own model's name.
                If it offers no tools, an answer that calls one is a failure of its API.
            model: only the APIs with this model are asked; None asks all.
            context, failed: as for `stream`.

        Raises:
            The same as `stream`. A rejected request (400, 413, 422) is not counted as a failure of the API.
        """
        chosen = [index for index, api in enumerate(self._apis) if model in (None, api.model)]
        shape = partial(as_relayed, tools=bool(request.get("tools") or request.get("functions")))
        return self._first_answer(shape, request, chosen, context, failed, callers=True)

    def _first_answer(
        self,
        shape: Callable[[Iterable[ChatChunk]], Iterator[Piece]],
        request: Mapping[str, Any],
        chosen: Collection[int],
        context: Context,
        failed: Sequence[ChatFailure],
        *,
        callers: bool = False,  # a caller has written the request, which may be at fault
    ) -> Iterator[Piece]:
        failures = list(failed)
        skipped = set(range(len(self._apis))).difference(chosen) | {failure.index for failure in failed}
        for index in self._cooldowns.order(skip=skipped):
            begun = False
            try:
                for piece in self._attempt(index, request, shape, context):
                    begun = begun or isinstance(piece, str) or (isinstance(piece, ChatChunk) and bool(piece.delta))
                    yield piece
            except AnswerFailed as failure:
                failures.append(self._note(index, failure, blame=not (callers and failure.status in _REQUEST_STATUSES)))
                if begun:
                    raise ChatInterrupted(f"the answer broke off: {failures[-1]}", failures) from None
            except OpeningMissing:
                # The API is not among the failures: its next answer waits for the closing tag.
                message = f"{self._name(index)} sent reasoning without its opening tag, which is known now: ask again"
                raise ReasoningSent(message, failures) from None
            else:
                self._cooldowns.succeeded(index)
                return
        context.check()
        raise _no_answer(failures)

    def _attempt(
        self,
        index: int,
        request: Mapping[str, Any],
        shape: Callable[[Iterable[ChatChunk]], Iterator[Piece]],
        context: Context,
    ) -> Iterator[Piece]:
        """Yield the answer of one API, and remember whether it sends the opening tag of its reasoning."""
        reasoning = ReasoningFilter(self._openings[index])
        try:
            with Attempt(self._apis[index], request, reasoning, shape) as attempt:
                yield from attempt.pieces(context)
            self._openings[index] = reasoning.opening
        except OpeningMissing:
            self._openings[index] = Opening.MISSING
            raise

    def close(self) -> None:
        """Do nothing: a connection ends with its call, and a context ends the calls that still run."""

    def answers(self) -> Sequence[int]:
        """Return the number of whole answers of each API since the start, in list order."""
        return tuple(self._cooldowns.answers)

    def failures(self) -> Sequence[int]:
        """Return the number of failures of each API since the start, in list order."""
        return tuple(self._cooldowns.failures)

    def _note(self, index: int, failed: AnswerFailed, *, blame: bool) -> ChatFailure:
        if blame:
            self._cooldowns.failed(index, failed.retry_after_s or 0.0)
        name = self._name(index)
        failure = ChatFailure(index, name, failed.reason, failed.fault, failed.status, failed.retry_after_s)
        _log.warning("chat: %s", failure)
        return failure

    def _name(self, index: int) -> str:
        return f"API {index + 1} ({self._apis[index].host})"


def _no_answer(failures: Sequence[ChatFailure]) -> NoChatApi:
    """Return the error after the last failure. Only a rate limit that says when it ends is worth another request."""
    message = f"no chat API answered: {'; '.join(map(str, failures)) or 'none is set'}"
    last = failures[-1] if failures else None
    if last and last.status == 429 and last.retry_after_s is not None:
        return ChatRateLimited(message, failures, retry_after_s=max(1, math.ceil(last.retry_after_s)))
    return NoChatApi(message, failures)


class _Cooldowns:
    """The answers and failures of each of `count` APIs, and the time (monotonic) until which it is tried last."""

    def __init__(self, count: int, cooldown_s: float) -> None:
        self.answers = [0] * count
        self.failures = [0] * count
        self._cooldown_s = cooldown_s
        self._until = [float("-inf")] * count
        self._lock = threading.Lock()

    def order(self, *, skip: Collection[int]) -> list[int]:
        """Return the APIs to try: those without a cooldown in list order, then the others by its end."""
        with self._lock:
            now = time.monotonic()
            ends = [until if until > now else float("-inf") for until in self._until]
        return sorted(set(range(len(ends))).difference(skip), key=lambda index: (ends[index], index))

    def failed(self, index: int, retry_after_s: float) -> None:
        with self._lock:
            self.failures[index] += 1
            self._until[index] = time.monotonic() + max(self._cooldown_s, retry_after_s)

    def succeeded(self, index: int) -> None:
        with self._lock:
            self.answers[index] += 1
            self._until[index] = float("-inf")
