"""Sessions of the running server: who may go on with one, what reaches the chat API, what is forgotten."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from support.chat_server import ChatServer, answer, status
from support.checks import check_error, wait_for
from support.running_server import RunningServer, ask, conf_that_admits_all
from support.speech import MAN, TEXTS, WOMAN, say_wav
from support.stream_client import Gate

KEYS = ("the-key-of-the-first-caller", "the-key-of-the-second-caller")


class Caller:
    """Asks one server with one key."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {key}"}

    def ask(self, voice: str = MAN, text: str = "Hi", said: str = TEXTS[0], **fields: str) -> requests.Response:
        return requests.post(
            f"{self.server.url}/process_audio",
            files={"audio": ("question.wav", say_wav(said, voice))},
            data={"language": "english", "text": text} | fields,
            headers=self.headers | {"Accept": "application/json"},
            timeout=60,
        )

    def forget(self, session_id: str) -> requests.Response:
        return requests.delete(f"{self.server.url}/sessions/{session_id}", headers=self.headers, timeout=10)


def id_of(response: requests.Response) -> str:
    """Return the session that an answer names, the same in its header and its JSON."""
    assert response.status_code == 200, response.text
    session_id: str = response.headers["X-MirrorChat-Session"]
    assert response.json()["session_id"] == session_id
    return session_id


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer(lambda exchange: behaviour["now"](exchange)) as server:
        yield server


behaviour: dict[str, Any] = {"now": answer("A fine answer.")}


@pytest.fixture(autouse=True)
def usual_answer() -> Iterator[None]:
    yield
    behaviour["now"] = answer("A fine answer.")


@pytest.fixture(scope="module")
def server(chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("sessions")
    conf = conf_that_admits_all(tmp_path_factory.mktemp("conf"))
    with RunningServer(
        folder, gunicorn_conf=conf, chatgpt_apis=[chat.api()], chat_cooldown_s=0.0, api_keys=list(KEYS)
    ) as running:
        yield running


class TestServer:
    def test_the_history_reaches_the_api(self, server: RunningServer, chat: ChatServer) -> None:
        caller = Caller(server, KEYS[0])
        first = caller.ask(text="What is a boat?")
        assert [message["role"] for message in chat.requests[-1].messages] == ["system", "user"]
        session_id = id_of(first)
        assert re.fullmatch(r"[A-Za-z0-9_-]{32}", session_id)
        again = caller.ask(text="And a ship?", session_id=session_id)
        assert id_of(again) == session_id
        assert [(message["role"], message["content"]) for message in chat.requests[-1].messages[1:]] == [
            ("user", "What is a boat?"), ("assistant", "A fine answer."), ("user", "And a ship?"),
        ]  # fmt: skip
        assert id_of(caller.ask(text="A new one", session_id=" ")) != session_id  # blank counts as absent
        assert len(chat.requests[-1].messages) == 2

    def test_the_reference_grows_and_is_described(self, server: RunningServer) -> None:
        caller = Caller(server, KEYS[0])
        first = caller.ask(said=TEXTS[0])
        second = caller.ask(said=TEXTS[1], session_id=id_of(first))
        one, two = first.json()["reference"], second.json()["reference"]
        assert set(one) == {"speech_s", "snr_db", "clipped", "second_speaker"}
        assert two["speech_s"] > 1.7 * one["speech_s"] > 5.0
        assert one["clipped"] == 0.0

    def test_another_speaker_does_not_change_the_reference(self, server: RunningServer) -> None:
        caller = Caller(server, KEYS[0])
        first = caller.ask(said=TEXTS[0])
        stranger = caller.ask(WOMAN, said=TEXTS[1], session_id=id_of(first))
        alone = caller.ask(WOMAN, said=TEXTS[1])
        assert stranger.json()["audio"] == alone.json()["audio"]  # in her own voice
        # three words are too little for a voice: they are answered in the session's
        back = caller.ask(said="yes", session_id=id_of(first)).json()
        assert back["audio"] == first.json()["audio"] and back["reference"] == first.json()["reference"]

    def test_a_failed_turn_is_not_remembered_but_its_session_is_named(
        self, server: RunningServer, chat: ChatServer
    ) -> None:
        caller = Caller(server, KEYS[0])
        behaviour["now"] = status(500)
        failed = caller.ask(text="A lost question")
        check_error(failed, 502, "no_chat_api")
        behaviour["now"] = answer("A fine answer.")
        again = caller.ask(text="Another", session_id=failed.headers["X-MirrorChat-Session"])
        assert id_of(again) == failed.headers["X-MirrorChat-Session"]
        assert len(chat.requests[-1].messages) == 2

    def test_one_turn_at_a_time(self, server: RunningServer, chat: ChatServer) -> None:
        caller = Caller(server, KEYS[0])
        session_id = id_of(caller.ask())
        gate = Gate("A slow", " answer.")
        behaviour["now"] = gate.behave
        before = len(chat.requests)
        with ThreadPoolExecutor(1) as pool, gate.open_at_the_end():
            first = pool.submit(caller.ask, session_id=session_id)
            wait_for(lambda: len(chat.requests) > before)
            check_error(caller.ask(session_id=session_id), 409, "session_busy", "session_id")
            check_error(Caller(server, KEYS[1]).ask(session_id=session_id), 404, "not_found", "session_id")
            gate.opened.set()
            assert id_of(first.result()) == session_id
        assert id_of(caller.ask(session_id=session_id)) == session_id

    def test_nobody_else_reaches_a_session(self, server: RunningServer) -> None:
        owner, other = (Caller(server, key) for key in KEYS)
        session_id = id_of(owner.ask())
        unknown = other.ask(session_id="x" * 32)
        refused = other.ask(session_id=session_id)
        assert check_error(unknown, 404, "not_found", "session_id") == check_error(
            refused, 404, "not_found", "session_id"
        )
        check_error(other.forget(session_id), 404, "not_found", "session_id")
        assert id_of(owner.ask(session_id=session_id)) == session_id

    def test_delete_forgets_at_once(self, server: RunningServer) -> None:
        caller = Caller(server, KEYS[0])
        session_id = id_of(caller.ask())
        gone = caller.forget(session_id)
        assert (gone.status_code, gone.content) == (204, b"")
        check_error(caller.ask(session_id=session_id), 404, "not_found", "session_id")
        check_error(caller.forget(session_id), 404, "not_found", "session_id")
        no_key = requests.delete(f"{server.url}/sessions/{session_id}", timeout=10)
        check_error(no_key, 401, "invalid_api_key")

    @pytest.mark.parametrize("bad", ["a b", "x" * 129, "../etc", "名"])
    def test_what_is_no_id_is_refused(self, server: RunningServer, bad: str) -> None:
        check_error(Caller(server, KEYS[0]).ask(session_id=bad), 400, "invalid_value", "session_id")

    def test_nothing_of_a_session_is_logged_or_written(self, server: RunningServer) -> None:
        session_id = id_of(Caller(server, KEYS[0]).ask())
        Caller(server, KEYS[0]).forget(session_id)
        assert session_id not in server.log
        opened = [link.resolve() for link in Path(f"/proc/{server.worker_pid}/fd").iterdir()]
        assert not [path for path in opened if str(path).startswith(("/tmp/tmp", "/var/tmp"))]
        files = {path.name for path in server.folder.rglob("*")}
        assert files == {"config.py", "server.log", "models"}, files

    def test_the_time_to_live_and_the_limit(self, chat: ChatServer, tmp_path: Path) -> None:
        with RunningServer(tmp_path, chatgpt_apis=[chat.api()], session_ttl_s=4.0, max_sessions=1) as running:
            caller = Caller(running, "any")  # no keys are set
            first = id_of(caller.ask())
            assert id_of(caller.ask(session_id=first)) == first
            second = id_of(caller.ask())
            check_error(caller.ask(session_id=first), 404, "not_found", "session_id")
            threading.Event().wait(4.2)
            check_error(caller.ask(session_id=second), 404, "not_found", "session_id")

    def test_junk_evicts_nobody_and_begins_no_session(self, chat: ChatServer, tmp_path: Path) -> None:
        with RunningServer(tmp_path, chatgpt_apis=[chat.api()], max_sessions=2) as running:
            caller = Caller(running, "any")
            kept = id_of(caller.ask())
            for data in (b"junk" * 1000, say_wav("")[:44], b""):
                for _ in range(4):
                    rejected = ask(running.url, data, "english")
                    assert rejected.status_code in (400, 415, 422), rejected.text
                    assert "X-MirrorChat-Session" not in rejected.headers
            assert id_of(caller.ask(session_id=kept)) == kept

    def test_another_address_loses_no_session_to_a_flood(self, chat: ChatServer, tmp_path: Path) -> None:
        with RunningServer(
            tmp_path, chatgpt_apis=[chat.api()], max_sessions=4, trusted_proxies=["127.0.0.1"]
        ) as running:
            quiet, flood = Caller(running, "any"), Caller(running, "any")
            quiet.headers |= {"X-Forwarded-For": "192.0.2.1"}
            flood.headers |= {"X-Forwarded-For": "192.0.2.2"}
            kept = id_of(quiet.ask())
            for _ in range(6):
                id_of(flood.ask())
            assert id_of(quiet.ask(session_id=kept)) == kept
