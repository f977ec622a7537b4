"""Callers who hang up, each at a stage of the turn that is known to have been reached, and a chat API that tells it."""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from support.chat_server import Exchange, answer, delta, hang_after, hang_before_headers
from support.checks import wait_for
from support.running_server import RunningServer
from support.scraping import scrape
from support.speech import say_wav
from support.stream_client import raw_question, read_until

PLACES, WAITERS = 4, 4  # turns at once, and callers who hang up while they wait for one
AT_ONCE = 4  # callers at a time in all other stages
QUESTION = "What is the best way to learn a language?"
FIRST = "This is one of very many sentences, and nobody would ever listen to all of them. "
REST = FIRST * 40
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
HEARD = {"wav": b"RIFF", "opus": b"OggS", "sse": b"event: audio"}  # by the form, what only comes with sound


class StageChat:
    """A chat API that does what the first word of a question says, and knows how far it has got with each.

    `open`: how many connections it has now.
    """

    def __init__(self) -> None:
        self.open = 0
        self._reached: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def behave(self, exchange: Exchange) -> None:
        question = exchange.request.question
        self._count(1)
        self._reached.add(("asked", question))
        try:
            match question.partition(" ")[0]:
                case "silent":
                    hang_before_headers(exchange)
                case "middle":
                    hang_after("The first words")(exchange)
                case "long":
                    self._answer_at_length(exchange, question)
                case _:
                    answer("Here I am.")(exchange)
        finally:
            self._count(-1)

    def wait(self, stage: str, question: str) -> None:
        """Wait until `question` has been "asked", its answer has "begun" with a sentence, or is "given" in full."""
        wait_for(lambda: (stage, question) in self._reached)

    def _answer_at_length(self, exchange: Exchange, question: str) -> None:
        exchange.head()
        exchange.chunk(delta(FIRST))
        self._reached.add(("begun", question))
        exchange.chunk(delta(REST) + delta(None, "stop"))
        self._reached.add(("given", question))
        exchange.end()

    def _count(self, change: int) -> None:
        with self._lock:
            self.open += change


class Leaver:
    """Someone who asks and hangs up. The chat knows their questions by `number`, which also decides all choices."""

    def __init__(self, server: RunningServer, chat: StageChat, number: int) -> None:
        self._server, self._chat = server, chat
        self._number = number
        self._choose = random.Random(number)

    def in_the_body(self) -> None:
        data = raw_question(say_wav(QUESTION), language="en", text="Hi")
        with self._connected() as client:
            client.sendall(data[: self._choose.randrange(data.index(b"\r\n\r\n"), len(data))])

    def in_recognition(self) -> None:
        with self.asking("", "sse") as (client, _):
            read_until(client, b": MirrorChat")

    def before_the_answer(self) -> None:
        with self.asking("silent", self._choose.choice(["whole", *HEARD])) as (_, question):
            self._chat.wait("asked", question)

    def in_the_answer(self) -> None:
        with self.asking("middle", "sse") as (client, _):
            read_until(client, b"event: text")

    def before_the_sound(self) -> None:
        with self.asking("long", self._choose.choice(list(HEARD))) as (_, question):
            self._chat.wait("begun", question)

    def in_the_sound(self) -> None:
        form = self._choose.choice(["wav", "opus"])
        with self.asking("long", form) as (client, _):
            read_until(client, HEARD[form])

    def in_the_events(self) -> None:
        with self.asking("long", "sse") as (client, _):
            read_until(client, HEARD["sse"])

    def in_a_whole_answer(self) -> None:
        with self.asking("long", "whole") as (_, question):
            self._chat.wait("given", question)

    @contextmanager
    def asking(self, first_word: str, form: str) -> Iterator[tuple[socket.socket, str]]:
        """Send a whole question and yield its socket and words; hang up at the end. No `first_word`: just spoken."""
        fields = {"text": f"{first_word} {self._number}"} if first_word else {}
        streamed = {} if form == "whole" else {"stream": "1", "response_format": form}
        with self._connected() as client:
            client.sendall(raw_question(say_wav(QUESTION), language="en", **fields, **streamed))
            yield client, fields.get("text", "")

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self._server.port), 20.0) as client:
            yield client
            if self._choose.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


STAGES: tuple[Callable[[Leaver], None], ...] = (
    Leaver.in_the_body,
    Leaver.in_recognition,
    Leaver.before_the_answer,
    Leaver.in_the_answer,
    Leaver.before_the_sound,
    Leaver.in_the_sound,
    Leaver.in_the_events,
    Leaver.in_a_whole_answer,
)
TURNS_A_ROUND = len(STAGES) + PLACES + WAITERS


class Rounds:
    """Rounds of callers: in each, one hangs up at every stage, some at a time and in any order, and then the queue."""

    def __init__(self, server: RunningServer, chat: StageChat) -> None:
        self._server, self._chat = server, chat
        self._number = 0

    def run(self, count: int) -> None:
        for _ in range(count):
            stages = random.Random(self._number).sample(STAGES, len(STAGES))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for done in [pool.submit(stage, self.leaver()) for stage in stages]:
                    done.result()
            self._leave_the_queue()

    def leaver(self) -> Leaver:
        self._number += 1
        return Leaver(self._server, self._chat, self._number)

    def _leave_the_queue(self) -> None:
        """Take every place with a turn that waits for the chat, and leave the queue before they hang up too."""
        with ExitStack() as placed:
            for _ in range(PLACES):
                _, question = placed.enter_context(self.leaver().asking("silent", "sse"))
                self._chat.wait("asked", question)
            with ExitStack() as queued:
                for _ in range(WAITERS):
                    queued.enter_context(self.leaver().asking("silent", "whole"))
                wait_for(lambda: self._waiting() == WAITERS)
            wait_for(lambda: self._waiting() == 0)

    def _waiting(self) -> float:
        return scrape(self._server.url)["mirrorchat_queue_depth"]
