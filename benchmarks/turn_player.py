"""A caller of benchmarks/turn.py: sends a question, and plays the answer in real time while it arrives."""

import http.client
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import requests

AUDIBLE = 100  # of 32768: -50 dB, what the server takes for silence at a sentence's edges
READ_BYTES = 65_536
PATIENCE_S = 150.0  # longer than a turn may take
REFUSED = (503, 504)


@dataclass(frozen=True)
class Heard:
    """One turn as its caller had it. Times are in seconds since the whole question was sent.

    `status` is 0 where the connection or the answer broke off. `first_s` is when the first sound that is not silence
    arrived, `whole_s` when everything had; `gaps_s` are the silences that the player was forced to make.
    """

    status: int
    asked_at: float = 0.0  # on the monotonic clock
    first_s: float = 0.0
    whole_s: float = 0.0
    speech_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        return self.status == 200

    @property
    def refused(self) -> bool:
        return self.status in REFUSED


@dataclass(frozen=True)
class Arrival:
    """When bytes of an answer came, and how many there are with them."""

    at_s: float
    total: int


class Caller:
    """Asks the server at `port` the same question again and again, each time on a new connection."""

    def __init__(self, port: int, question: bytes) -> None:
        self._port = port
        self._question = question

    def listen(self) -> Heard:
        """Ask for an answer that is streamed as bare samples, and play it."""
        return self._ask("/process_audio", stream="true", response_format="pcm")

    def wait_for_whole(self, path: str) -> Heard:
        """Ask for an answer that comes as one wav; it can be played once all of it is there."""
        return self._ask(path)

    def _ask(self, path: str, **fields: str) -> Heard:
        body, kind = _form(self._question, {"language": "english"} | fields)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            return _receive(connection, time.monotonic())
        except (OSError, http.client.HTTPException):
            return Heard(0)
        finally:
            connection.close()


def _form(question: bytes, fields: dict[str, str]) -> tuple[bytes, str]:
    """Return the body of a multipart form and its content type."""
    request = requests.Request("POST", "http://h/", files={"audio": ("question.wav", question)}, data=fields).prepare()
    assert isinstance(request.body, bytes)
    return request.body, request.headers["Content-Type"]


def _receive(connection: http.client.HTTPConnection, asked_at: float) -> Heard:
    """Return the turn whose question has just been sent."""
    response = connection.getresponse()
    data, arrivals = bytearray(), list[Arrival]()
    while piece := response.read1(READ_BYTES):
        data += piece
        arrivals.append(Arrival(time.monotonic() - asked_at, len(data)))
    if response.status != 200 or not arrivals:
        return Heard(response.status if response.status != 200 else 0, asked_at)
    rate = re.search(r"rate=(\d+)", response.headers["Content-Type"])
    whole_s = arrivals[-1].at_s
    if rate is None:  # a wav, which nobody plays before it is whole
        return Heard(200, asked_at, whole_s, whole_s)
    bytes_s = 2 * int(rate[1])
    first_s = first_sound(bytes(data), arrivals)
    return Heard(200 if first_s else 0, asked_at, first_s, whole_s, len(data) / bytes_s, play(arrivals, bytes_s))


def first_sound(data: bytes, arrivals: Sequence[Arrival]) -> float:
    """Return when the first sample that can be heard had come, 0 when there is none."""
    samples = np.frombuffer(data, "<i2", len(data) // 2).astype(np.int32)
    loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
    if not len(loud):
        return 0.0
    return next(arrival.at_s for arrival in arrivals if arrival.total >= 2 * (loud[0] + 1))


def play(arrivals: Sequence[Arrival], bytes_s: float) -> list[float]:
    """Return the gaps, in seconds, of a player that begins with the first bytes and waits whenever it has no more."""
    gaps = []
    ends_at = arrivals[0].at_s + arrivals[0].total / bytes_s
    for before, arrival in pairwise(arrivals):
        if arrival.at_s > ends_at:
            gaps.append(arrival.at_s - ends_at)
            ends_at = arrival.at_s
        ends_at += (arrival.total - before.total) / bytes_s
    return gaps
