"""The callers of benchmarks/chaos.py: each asks again and again in one way, and notes what it saw and for how long."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import requests
from support.stream_client import events_of, named

LIMIT_S = 60.0
OK = "ok"


class Attempt(NamedTuple):
    """What a caller saw: OK, or the failure in a few words; `began` and `ended` are of time.monotonic()."""

    caller: str
    outcome: str
    began: float
    ended: float


class Callers:
    """Callers who talk in threads of their own until the end of the block; `attempts` has what each saw."""

    def __init__(self, url: str, question: bytes) -> None:
        self.attempts: list[Attempt] = []
        self._url, self._question = url, question
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._talk, args=way, name=way[0]) for way in WAYS.items()]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float) -> list[Attempt]:
        """Return the attempts that ended after `moment`."""
        return [attempt for attempt in self.attempts.copy() if attempt.ended > moment]

    def all_well(self, moment: float) -> bool:
        """Tell whether the last two attempts of each caller began after `moment` and were answered."""
        attempts = self.attempts.copy()
        last = [[each for each in attempts if each.caller == caller][-2:] for caller in WAYS]
        return all(each.outcome == OK and each.began > moment for two in last for each in two) and all(last)

    def _talk(self, name: str, ask: Callable[[str, bytes], str]) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            outcome = seen(lambda: ask(self._url, self._question))
            self.attempts.append(Attempt(name, outcome, began, time.monotonic()))
            self._ended.wait(0.1 if outcome == OK else 0.5)


def seen(ask: Callable[[], str]) -> str:
    """Return what `ask` returns, or how its connection failed."""
    try:
        return ask()
    except requests.Timeout:
        return f"no answer in {LIMIT_S:.0f} s"
    except requests.exceptions.ChunkedEncodingError:
        return "broken off"
    except requests.RequestException:
        return "no connection"
    except ValueError:
        return "half an event"


def failure(response: requests.Response) -> str:
    """Return the status and code of an error, and what is wrong with its form."""
    try:
        code = str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = "not our JSON"
    hurried = response.status_code == 503 and "Retry-After" not in response.headers
    return f"{response.status_code} {code}" + (" without Retry-After" if hurried else "")


def ask_for_json(url: str, question: bytes) -> str:
    response = post(f"{url}/process_audio", "audio", question, {"language": "english"}, "application/json")
    if response.status_code != 200:
        return failure(response)
    unspoken = response.json()["unspoken"]
    return f"unspoken: {unspoken[0]['error']['code']}" if unspoken else OK


def ask_for_events(url: str, question: bytes) -> str:
    fields = {"language": "english", "stream": "true", "response_format": "sse"}
    response = post(f"{url}/process_audio", "audio", question, fields)
    if response.status_code != 200:
        return failure(response)
    events = named(events_of(response))
    bad = [event for event in events if event.name in ("error", "sentence_failed")]
    if bad:
        return f"event {bad[0].name}: {bad[0].data['error']['code']}"
    return OK if events and events[-1].name == "done" else "events without an end"


def ask_for_pcm(url: str, question: bytes) -> str:
    fields = {"language": "english", "stream": "true", "response_format": "pcm"}
    response = post(f"{url}/process_audio", "audio", question, fields)
    return OK if response.status_code == 200 else failure(response)


def enrol(url: str, question: bytes) -> str:
    """Enrol a voice, which is written to the disk, speak with it, and delete it."""
    enrolled = post(f"{url}/v1/audio/voices", "audio_sample", question, {"name": "Anna", "keep_sample": "true"})
    if enrolled.status_code == 409:  # it was not deleted when the server failed
        requests.delete(f"{url}/v1/audio/voices/Anna", timeout=LIMIT_S)
        return "voice: the one before was still there"
    if enrolled.status_code != 200:
        return f"voice: {failure(enrolled)}"
    body: dict[str, Any] = {"input": "Hello.", "voice": "Anna"}
    spoken = requests.post(f"{url}/v1/audio/speech", json=body, timeout=LIMIT_S)
    deleted = requests.delete(f"{url}/v1/audio/voices/Anna", timeout=LIMIT_S)
    bad = [each for each in (spoken, deleted) if each.status_code != 200]
    return f"voice: {failure(bad[0])}" if bad else OK


def post(url: str, name: str, data: bytes, fields: dict[str, str], accept: str = "*/*") -> requests.Response:
    return requests.post(url, files={name: ("q.wav", data)}, data=fields, headers={"Accept": accept}, timeout=LIMIT_S)


WAYS: dict[str, Callable[[str, bytes], str]] = {
    "json": ask_for_json,
    "events": ask_for_events,
    "pcm": ask_for_pcm,
    "voice": enrol,
}
