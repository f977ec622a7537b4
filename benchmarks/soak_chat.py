"""The chat API of benchmarks/soak.py: it repeats the numbers of the conversation, and fails at random."""

import random
import re
import threading
from collections import Counter

from support.chat_server import (
    Behaviour,
    Exchange,
    answer,
    body,
    hang_after,
    hang_before_headers,
    not_streamed,
    status,
    truncated,
)

NUMBER = re.compile(r"\d{1,9}")
SILENCE_S = 2.0  # the server gives up such a silence of the API
FAILURES: dict[str, Behaviour] = {
    "an error": status(500),
    "an overload": status(503),
    "a page": body(b"<html>Please sign in</html>", "text/html"),
    "no JSON": body(b"{]"),
    "broken off": truncated("Here is "),
    "silent": hang_before_headers,
    "silent in the middle": hang_after("Here is a number. "),
}
FAILS_EVERY = 12  # requests, on average


class UnreliableChat:
    """Repeats the numbers in the messages of the user, or fails; `failed` holds the questions that met a failure."""

    def __init__(self, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failed: set[str] = set()
        self._choose = random.Random(seed)
        self._lock = threading.Lock()

    def behave(self, exchange: Exchange) -> None:
        with self._lock:
            name = self._choose.choice(list(FAILURES)) if self._choose.randrange(FAILS_EVERY) == 0 else "ok"
            streamed = self._choose.randrange(8) > 0
            self.outcomes[name] += 1
            if name != "ok":
                self.failed.add(exchange.request.question)
        reply = repeated(
            [str(message["content"]) for message in exchange.request.messages if message["role"] == "user"]
        )
        good = answer(reply) if streamed else not_streamed(reply)
        FAILURES.get(name, good)(exchange)


def repeated(questions: list[str]) -> str:
    """Return the reply: the number of the last question, and that of the one before, which only a session knows."""
    numbers = [number for question in questions for number in NUMBER.findall(question)]
    return (
        f"Here is {numbers[-1]}." + (f" It comes after {numbers[-2]}." if numbers[1:] else "") if numbers else "Hello."
    )
