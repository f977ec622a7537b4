"""Turns of a pipeline over the embedded engines and real chat servers."""

import time
from collections.abc import Iterator
from contextlib import closing

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer
from mirrorchat.engines import Engines, Language
from mirrorchat.llm import ChatClient
from mirrorchat.pipeline import Pipeline, Question
from mirrorchat.settings import ChatApi
from mirrorchat.turn.admission import Admission
from mirrorchat.turn.events import Event
from mirrorchat.turn.sessions import Session
from mirrorchat.turn.stopwatch import Stopwatch
from support.chat_server import ChatServer
from support.speech import say


class Turns:
    """A pipeline over the embedded engines and the given chat servers, with slots for two turns."""

    def __init__(self, engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], *chats: ChatServer) -> None:
        apis = [ChatApi(**chat.api(timeout_s=5.0)) for chat in chats]
        recognizer, synthesizer = engines
        self.admission = Admission(2)
        self.pipeline = Pipeline(
            Engines(
                dict.fromkeys(Language, recognizer),
                ChatClient(apis, cooldown_s=0.0),
                dict.fromkeys(Language, synthesizer),
            ),
            system_prompt="Answer in {language}.",
            seed=0,
            max_turns=2,
        )

    def run(
        self, text: str | None = "Hi", *, collected: bool = False, deadline_s: float = 30.0, audio: Audio | None = None,
        context: Context | None = None, session: Session | None = None, reply_language: Language = Language.ENGLISH,
    ) -> Iterator[Event]:  # fmt: skip
        """Yield the events of one turn."""
        question = Question(audio or say("hello there"), Language.ENGLISH, reply_language, text, session)
        context = context or Context.after(deadline_s)
        context.heard = not collected
        with (
            self.admission.acquire(context) as slot,
            closing(self.pipeline.run_turn(question, slot, watch=Stopwatch())) as events,
        ):
            yield from events

    def assert_all_places_free(self) -> None:
        """Wait until the helpers of ended turns have let go."""
        limit = time.monotonic() + 60.0
        while self.admission.running or self.admission.stats().orphans:
            assert time.monotonic() < limit, "a helper holds its slot"
            time.sleep(0.01)
