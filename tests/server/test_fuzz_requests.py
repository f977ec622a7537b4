"""Odd forms, odd JSON bodies and odd replies of a chat API: no 500, and little processor and memory of the server."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support import fuzzing
from support.chat_server import DONE, ChatServer, answer, chunked_stream, delta
from support.fuzzing import ODD_VALUES, Fuzz
from support.mutants import mutant
from support.places import QUESTION
from support.running_server import RunningServer
from support.usage import forget_peak, memory_mb, processor_s

FORMS, BODIES, BROKEN_BODIES, REPLIES = 25, 60, 30, 4  # of each route or language
LIMIT_S, LIMIT_MB = 1.0, 120.0
REPLY_LIMIT_S = 4.0  # a reply may be four dates, half a minute of speech
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
WAV = QUESTION.read_bytes()
FORM_FIELDS: dict[str, dict[str, str]] = {
    "/process_audio": {"language": "english", "text": "Hi.", "reply_language": "zh", "response_format": "json"},
    "/v1/audio/transcriptions": {"model": "whisper-1", "language": "en", "response_format": "verbose_json"},
    "/v1/audio/voices": {"name": "default", "type": "audio_sample", "keep_sample": "false"},  # a name that is taken
}
FILES = {"/process_audio": "audio", "/v1/audio/transcriptions": "file", "/v1/audio/voices": "audio_sample"}
RECORDINGS = (WAV[:4000], WAV[:44], b"", b"RIFF", bytes(3000), WAV)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi."}]}]
JSON_BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": MESSAGES, "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True}, "n": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], "stop": ["x"],
    },
    "/v1/chat/completions#spoken": {
        "messages": MESSAGES, "modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"},
    },
    "/v1/audio/speech": {"model": "tts-1", "input": "Hi.", "voice": {"id": "default"}, "response_format": "wav",
                         "speed": 1.0, "stream_format": "audio"},
}  # fmt: skip


class Watched:
    """A server whose answers are no 500, and cost its worker little."""

    def __init__(self, server: RunningServer, chat: ChatServer) -> None:
        self.server, self.chat = server, chat

    def post(self, route: str, case: str, *, limit_s: float = LIMIT_S, **request: Any) -> requests.Response:
        pid = self.server.worker_pid
        forget_peak(pid)
        used_s, held_mb = processor_s(pid), memory_mb(pid, "VmRSS")
        response = requests.post(f"{self.server.url}{route}", timeout=60, **request)
        assert response.status_code < 500 or response.status_code == 503, f"{case}: {response.text}"
        if response.status_code >= 400:
            assert response.json()["error"]["code"] != "internal_error", case
        assert processor_s(pid) - used_s < limit_s, case
        assert memory_mb(pid, "VmHWM") - held_mb < LIMIT_MB, case
        return response


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with ChatServer(answer("Yes.")) as chat:
        settings: dict[str, Any] = {"voices_dir": str(folder / "voices"), "chatgpt_apis": [chat.api()]}
        with RunningServer(folder, chat_cooldown_s=0.0, **settings) as server:
            found = Watched(server, chat)
            found.post("/process_audio", "the first turn", files={"audio": WAV}, data=FORM_FIELDS["/process_audio"])
            yield found
            assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("route", FORM_FIELDS)
def test_fuzz_of_forms(fuzz: Fuzz, watched: Watched, route: str) -> None:
    for case, choose in fuzz.cases(f"a form for {route}", FORMS):
        form = odd_form(route, choose)
        if choose.random() < 0.4:
            form = mutant(form, choose)
        watched.post(route, case, data=form, headers=MULTIPART)


def odd_form(route: str, choose: random.Random) -> bytes:
    """Return a multipart body with a short, broken or, rarely, whole recording and odd values of fields."""
    fields = list(FORM_FIELDS[route].items())
    for _ in range(choose.randrange(3)):
        name = choose.choice([name for name, _ in fields] + ["session_id", "hotwords", "stream", "prompt", "\0", ""])
        fields.append((name, as_field(choose.choice(ODD_VALUES))))
    choose.shuffle(fields)
    parts = [
        b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (utf8(name), utf8(value)) for name, value in fields
    ]
    head = b'Content-Disposition: form-data; name="%s"; filename="a.wav"\r\n\r\n' % FILES[route].encode()
    recording = choose.choices(RECORDINGS, (8, 2, 1, 2, 2, 1))[0]
    parts.insert(choose.randint(0, len(parts)), head + recording)
    return b"".join(b"--b\r\n%s\r\n" % part for part in parts) + b"--b--\r\n"


def as_field(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", JSON_BODIES)
def test_fuzz_of_json(fuzz: Fuzz, watched: Watched, name: str) -> None:
    for case, choose in fuzz.cases(f"JSON for {name}", BODIES):
        watched.post(name.partition("#")[0], case, data=fuzzing.odd(JSON_BODIES[name], choose), headers=JSON)


@pytest.mark.parametrize("name", JSON_BODIES)
def test_fuzz_of_broken_json(fuzz: Fuzz, watched: Watched, name: str) -> None:
    whole = json.dumps(JSON_BODIES[name]).encode()
    for case, choose in fuzz.cases(f"broken JSON for {name}", BROKEN_BODIES):
        watched.post(name.partition("#")[0], case, data=mutant(whole, choose), headers=JSON)


@pytest.mark.parametrize("language", ["english", "chinese"])
def test_fuzz_of_replies(fuzz: Fuzz, watched: Watched, language: str) -> None:
    """What a chat API says is hostile, too: half surrogate pairs, markup, one sign again and again."""
    for case, choose in fuzz.cases(f"a reply in {language}", REPLIES):
        reply = fuzzing.text(choose, choose.randrange(1, 40)) + choose.choice(("", "\ud800", "\udc00 and more"))
        events = [event(piece) for piece in fuzzing.pieces(reply, choose)]
        watched.chat.behaviour = chunked_stream(*events, delta(None, "stop") + DONE)
        fields = {"language": language, "text": "Hi.", "response_format": choose.choice(("json", "wav"))}
        watched.post("/process_audio", case, limit_s=REPLY_LIMIT_S, files={"audio": WAV}, data=fields)


def event(piece: str) -> bytes:
    """Return a piece of a reply as ASCII, in which JSON can hold what is no Unicode."""
    choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
