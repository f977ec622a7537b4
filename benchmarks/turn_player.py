"""A caller of benchmarks/turn.py. It sends a question, and plays the answer in real time while it arrives."""

import http.client
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import requests

AUDIBLE = 100  # of 32768: -50 dB, the server's threshold for silence at the edges of a sentence
READ_BYTES = 65_536
PATIENCE_S = 150.0  # longer than the deadline of a turn
REFUSED = (503, 504)


@dataclass(frozen=True)
class Heard:
    """The measurements of one turn. Times are in seconds after the whole question was sent.

    `status` is 0 if the connection or the answer broke. `first_s` is the arrival of the first audible sample,
    `whole_s` that of the complete answer, and `gaps_s` are the underruns of the player.
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
    """The arrival of bytes of an answer, with the total number of bytes until then."""

    at_s: float
    total: int


class Caller:
    """Asks the server at `port` the same question repeatedly, each time on a new connection.

    `fields` are further fields of the form.
    """

    def __init__(self, port: int, question: bytes, **fields: str) -> None:
        self._port = port
        self._question = question
        self._fields = {"language": "english"} | fields

    def listen(self) -> Heard:
        """Request an answer as a stream of raw samples, and play it."""
        return self._ask("/process_audio", stream="true", response_format="pcm")

    def wait_for_whole(self, path: str) -> Heard:
        """Request an answer as one wav, which can be played when it is complete."""
        return self._ask(path)

    def _ask(self, path: str, **fields: str) -> Heard:
        body, kind = _form(self._question, self._fields | fields)
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
    """Read the answer to a question that was just sent."""
    response = connection.getresponse()
    data, arrivals = bytearray(), list[Arrival]()
    while piece := response.read1(READ_BYTES):
        data += piece
        arrivals.append(Arrival(time.monotonic() - asked_at, len(data)))
    if response.status != 200 or not arrivals:
        return Heard(response.status if response.status != 200 else 0, asked_at)
    rate = re.search(r"rate=(\d+)", response.headers["Content-Type"])
    whole_s = arrivals[-1].at_s
    if rate is None:  # a wav plays only when it is complete
        return Heard(200, asked_at, whole_s, whole_s)
    bytes_s = 2 * int(rate[1])
    first_s = first_sound(bytes(data), arrivals)
    return Heard(200 if first_s else 0, asked_at, first_s, whole_s, len(data) / bytes_s, play(arrivals, bytes_s))


def percentiles(values: Sequence[float], scale: float = 1.0) -> dict[str, float | None]:
    """Return the median and the 95th percentile of `values` times `scale`, or None without values."""
    if not values:
        return {"p50": None, "p95": None}
    return {name: round(scale * float(np.percentile(values, at)), 2) for name, at in (("p50", 50), ("p95", 95))}


def first_sound(data: bytes, arrivals: Sequence[Arrival]) -> float:
    """Return the arrival of the first audible sample, or 0 if there is none."""
    samples = np.frombuffer(data, "<i2", len(data) // 2).astype(np.int32)
    loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
    if not len(loud):
        return 0.0
    return next(arrival.at_s for arrival in arrivals if arrival.total >= 2 * (loud[0] + 1))


def play(arrivals: Sequence[Arrival], bytes_s: float) -> list[float]:
    """Return the underruns, in seconds, of a player that starts with the first bytes."""
    gaps = []
    ends_at = arrivals[0].at_s + arrivals[0].total / bytes_s
    for before, arrival in pairwise(arrivals):
        if arrival.at_s > ends_at:
            gaps.append(arrival.at_s - ends_at)
            ends_at = arrival.at_s
        ends_at += (arrival.total - before.total) / bytes_s
    return gaps
