"""The turns of benchmarks/soak.py: callers who ask in every way, in every container, and check what comes back."""

import base64
import difflib
import itertools
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import requests
from support.audio_files import KINDS, encode
from support.hang_ups import RESET
from support.hostile_audio import PLAYLIST
from support.mutants import mutant
from support.speech import MAN, WOMAN, noise_wav, say, say_wav
from support.stream_client import events_of, named, raw_question

from benchmarks.soak_chat import NUMBER, UnreliableChat

SENTENCES = (
    "What is the best way to learn a language?",
    "How long does the train to the sea take?",
    "Please tell me something about old trees.",
)
STREAMS = ("wav", "opus", "mp3", "pcm")
SPEECH = ("mp3", "opus", "aac", "flac", "wav", "pcm")
LIMIT_S = 110.0
BUSY = (429, 503)  # a caller who comes too often asks again
CHAT_FAILED = (502, 504)
REFUSALS = (400, 413, 415, 422)


class WrongAnswer(Exception):
    """A caller got what no caller may get: another's answer, no speech, or an error without a cause."""


@dataclass(frozen=True)
class Recording:
    """A recording as a caller uploads it, the sentence in it, and whether that is clear: a telephone's is not."""

    sentence: str
    data: bytes
    clear: bool


def recordings() -> list[Recording]:
    """Return each sentence, by a man and by a woman, in each container."""
    spoken = [(sentence, say(sentence, voice)) for sentence in SENTENCES for voice in (MAN, WOMAN)]
    return [
        Recording(sentence, encode(audio.resample(kind.sample_rate).samples, kind), kind.sample_rate > 8_000)
        for sentence, audio in spoken
        for kind in KINDS.values()
    ]


@dataclass
class Soak:
    """What all callers share. Every turn takes a number that no other turn has."""

    url: str
    port: int
    chat: UnreliableChat
    recordings: list[Recording]
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))


class Caller:
    """One caller, with a session that lasts some turns. `choose` decides all that a turn leaves open."""

    def __init__(self, soak: Soak, seed: int) -> None:
        self.soak = soak
        self._choose = random.Random(seed)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._session_id = ""
        self._numbers: set[str] = set()

    def turn(self) -> str:
        """Ask once in one of the ways, and return what came of it. Raises WrongAnswer."""
        if self._choose.random() < 0.6:
            self._begin_anew()
        (way,) = self._choose.choices(list(WAYS), list(WAYS.values()))
        return way(self)

    def asks_once(self) -> int:
        """Ask without trying again, and return the status."""
        _, fields = self.numbered()
        files = {"audio": ("q", self._recording().data)}
        return requests.post(f"{self.soak.url}/process_audio", files=files, data=fields, timeout=LIMIT_S).status_code

    # /process_audio

    def asks_for_json(self) -> str:
        number, fields = self.numbered()
        return self._whole(fields, number)

    def speaks(self) -> str:
        """Ask without a text, so that the recognizer has to hear it."""
        recording = self._recording()
        response = self._post(recording.data, {"language": "english", **self._kept()}, "application/json")
        if response.status_code == 200:
            check_heard(response.json()["transcript"], recording)
        return self._read_whole(response)

    def asks_for_events(self) -> str:
        number, fields = self.numbered()
        form = {"stream": "true", "response_format": "sse"}
        with self._post(self._recording().data, fields | form, "*/*", stream=True) as response:
            if response.status_code != 200:
                return self._failure(response, number)
            events = named(events_of(response))
        last = events[-1]
        if last.name == "error":
            return self._chat_failure(last.data["error"]["code"], number)
        if last.name != "done" or not any(event.name == "audio" for event in events):
            raise WrongAnswer(f"the events end with {last.name}, or hold no speech")
        self._session_id = last.data["session_id"]
        return self.check(last.data["reply"], number)

    def asks_for_a_stream(self) -> str:
        number, fields = self.numbered()
        form = {"stream": "true", "response_format": self._choose.choice(STREAMS)}
        try:
            response = self._post(self._recording().data, fields | form, "*/*")
        except requests.exceptions.ChunkedEncodingError:
            return self._chat_failure("broken off", number)
        if response.status_code != 200:
            return self._failure(response, number)
        return check_speech(response.content)

    def hangs_up(self) -> str:
        """Send a whole question, or a part of it, read for a moment, and leave."""
        _, fields = self.numbered()
        form = {"stream": "true", "response_format": self._choose.choice((*STREAMS, "sse"))}
        request = raw_question(self._recording().data, **fields, **form)
        if self._choose.random() < 0.2:
            request = request[: self._choose.randrange(len(request))]
        with socket.create_connection(("127.0.0.1", self.soak.port), LIMIT_S) as client:
            client.sendall(request)
            leaves_at = time.monotonic() + self._choose.expovariate(1.0)
            while (left := leaves_at - time.monotonic()) > 0:
                client.settimeout(left)
                try:
                    if not client.recv(65_536):
                        break
                except TimeoutError:
                    break
            if self._choose.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._begin_anew()  # this session may still have the turn
        return "hung up"

    def uploads_junk(self) -> str:
        number, fields = self.numbered()
        bad: Callable[[], bytes] = self._choose.choice(
            (
                lambda: mutant(self._recording().data, self._choose),
                lambda: self._choose.randbytes(self._choose.randrange(200_000)),
                lambda: noise_wav(1.0, level=0.0),
                lambda: say_wav(SENTENCES[0])[: self._choose.randrange(3000)],
                lambda: PLAYLIST,
            )
        )
        response = self._post(bad(), fields, "application/json")
        if response.status_code in REFUSALS:
            return f"junk: {response.status_code}"
        return self._read_whole(response, number)

    # OpenAI's API

    def transcribes(self) -> str:
        recording = self._recording()
        response = self._send("/v1/audio/transcriptions", files={"file": ("q", recording.data)})
        if response.status_code != 200:
            return self._failure(response, "")
        check_heard(response.json()["text"], recording)
        return "ok"

    def has_a_text_spoken(self) -> str:
        number, _ = self.numbered()
        body = {"input": f"Number {number}.", "voice": "default", "response_format": self._choose.choice(SPEECH)}
        response = self._send("/v1/audio/speech", json=body)
        return check_speech(response.content) if response.status_code == 200 else self._failure(response, "")

    def chats(self) -> str:
        number, fields = self.numbered()
        body = {"messages": [{"role": "user", "content": fields["text"]}]}
        response = self._send("/v1/chat/completions", json=body)
        if response.status_code != 200:
            return self._failure(response, number)
        return self.check(response.json()["choices"][0]["message"]["content"], number, alone=True)

    # Parts of them

    def _recording(self) -> Recording:
        return self._choose.choice(self.soak.recordings)

    def numbered(self) -> tuple[str, dict[str, str]]:
        """Return the number of a new turn, and the fields of a form that asks with it, in either language."""
        number = str(next(self.soak.numbers))
        self._numbers.add(number)
        if self._choose.random() < 0.25:
            return number, {"language": "chinese", "text": f"请说{number}。", **self._kept()}
        return number, {"language": "english", "text": f"Please say {number}.", **self._kept()}

    def _kept(self) -> dict[str, str]:
        return {"session_id": self._session_id} if self._session_id else {}

    def _whole(self, fields: dict[str, str], number: str) -> str:
        return self._read_whole(self._post(self._recording().data, fields, "application/json"), number)

    def _post(self, data: bytes, fields: dict[str, str], accept: str, *, stream: bool = False) -> requests.Response:
        return self._send(
            "/process_audio", files={"audio": ("q", data)}, data=fields, headers={"Accept": accept}, stream=stream
        )

    def _send(self, path: str, **request: object) -> requests.Response:
        """Post once, and again while the server is busy."""
        limit = time.monotonic() + LIMIT_S
        while True:
            response = requests.post(self.soak.url + path, timeout=LIMIT_S, **request)  # type: ignore[arg-type]
            if response.status_code not in BUSY or time.monotonic() > limit:
                return response
            response.close()
            time.sleep(self._choose.uniform(0.2, 1.0))

    def _read_whole(self, response: requests.Response, number: str = "") -> str:
        if response.status_code != 200:
            return self._failure(response, number)
        answer = response.json()
        if answer["unspoken"]:
            raise WrongAnswer(f"a sentence was not spoken: {answer['unspoken'][0]['error']['code']}")
        check_speech(base64.b64decode(answer["audio"]))
        self._session_id = answer["session_id"]
        return self.check(answer["reply"], number)

    def _failure(self, response: requests.Response, number: str) -> str:
        try:
            code = response.json()["error"]["code"]
        except (ValueError, KeyError, TypeError):
            raise WrongAnswer(f"{response.status_code} without a JSON error") from None
        if response.status_code == 404 and code == "not_found" and self._session_id:
            self._begin_anew()  # others came: the session was evicted
            return "session evicted"
        if response.status_code not in CHAT_FAILED:
            raise WrongAnswer(f"{response.status_code} {code}")
        return self._chat_failure(code, number)

    def _chat_failure(self, what: str, number: str) -> str:
        if number and not any(number in NUMBER.findall(question) for question in self.soak.chat.failed.copy()):
            raise WrongAnswer(f"{what}, but the chat API had not failed")
        return f"chat failed: {what}"

    def check(self, reply: str, number: str, *, alone: bool = False) -> str:
        """Check that a reply holds the number of this turn, if it had one, and else only those of this session."""
        found = set(NUMBER.findall(reply))
        known = {number} if alone else self._numbers
        if not found <= known or (number and number not in found):
            raise WrongAnswer(f"a turn with the number {number or 'none'} got the numbers {sorted(found)}")
        return "ok"


def check_heard(transcript: str, recording: Recording) -> None:
    """Check that of all sentences the transcript of a clear recording is most like the one in it."""

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, transcript.lower(), other.lower()).ratio()

    if recording.clear and max(SENTENCES, key=likeness) != recording.sentence:
        raise WrongAnswer("a recording was recognized as another one")


def check_speech(data: bytes) -> str:
    if len(data) < 1000:
        raise WrongAnswer(f"{len(data)} bytes of speech")
    return "ok"


WAYS: dict[Callable[[Caller], str], int] = {
    Caller.asks_for_json: 5,
    Caller.speaks: 4,
    Caller.asks_for_events: 3,
    Caller.asks_for_a_stream: 3,
    Caller.hangs_up: 4,
    Caller.uploads_junk: 2,
    Caller.transcribes: 1,
    Caller.has_a_text_spoken: 1,
    Caller.chats: 1,
}
