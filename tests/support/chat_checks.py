"""What the chat client's tests share: a client of test servers, and a watch for threads and sockets left behind."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.engines import ChatEvent, Message
from mirrorchat.errors import ChatFailure, ClientGone, NoChatApi
from mirrorchat.llm import ChatClient
from mirrorchat.settings import ChatApi
from support.chat_server import CERTIFICATE, ChatServer, RefusingPort, answer

KEY = "sk-secret-0123456789abcdef"
ASKED = [Message("system", "Be brief."), Message("user", "天空是什么颜色？")]
SOON_S = 0.3  # of a limit that is meant to be reached
LATE_S = 15.0  # of a limit that is not


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread or a socket behind."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    yield
    assert becomes(lambda: not set(threading.enumerate()) - threads), "a thread is left"
    assert becomes(lambda: open_sockets() <= sockets), "a socket is left"


def open_sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except OSError:  # the listing's own descriptor
            continue
    return count


def becomes(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return held


def api_at(place: ChatServer | RefusingPort, **settings: object) -> ChatApi:
    """Return an API with limits that no healthy server here comes near."""
    limits = {"timeout_s": LATE_S, "first_token_timeout_s": LATE_S, "total_timeout_s": LATE_S}
    return ChatApi(**{**place.api(KEY), **limits, **settings})


def client_of(*apis: ChatApi, cooldown_s: float = 30.0) -> ChatClient:
    return ChatClient(apis, cooldown_s=cooldown_s)


def stream_of(
    client: ChatClient, failed: tuple[ChatFailure, ...] = (), context: Context | None = None
) -> Generator[str]:
    """Yield the text of an answer."""
    with closing(events_of(client, failed, context)) as events:
        for event in events:
            if isinstance(event, str):
                yield event


def events_of(
    client: ChatClient, failed: tuple[ChatFailure, ...] = (), context: Context | None = None
) -> Generator[ChatEvent]:
    """Yield all of an answer."""
    events = client.stream(ASKED, context=context or Context.after(60.0), failed=failed)
    return cast(Generator[ChatEvent], events)


def ask(client: ChatClient) -> str:
    return "".join(stream_of(client))


def only_failure(client: ChatClient) -> str:
    with pytest.raises(NoChatApi) as caught:
        ask(client)
    (failure,) = caught.value.failures
    assert str(failure) in caught.value.message
    return failure.reason


def trust_the_test_certificate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ca.pem").write_text(CERTIFICATE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.pem"))


def check_cancel(server: ChatServer) -> None:
    with server, ChatServer(answer("B")) as second, ThreadPoolExecutor(1) as pool:
        client, context = client_of(api_at(server), api_at(second)), Context.after(60.0)
        turn = pool.submit(lambda: list(stream_of(client, context=context)))
        assert becomes(lambda: bool(server.requests))
        time.sleep(0.1)
        started = time.monotonic()
        context.cancel(ClientGone("the caller hung up"))
        with pytest.raises(ClientGone):
            turn.result(LATE_S)
        assert time.monotonic() - started < 2.0  # 0.1 s on an idle machine
        assert server.requests[0].closed_early.wait(10.0)
        assert ask(client) == "A"  # it is not blamed
