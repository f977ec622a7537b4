"""Keys, limits and origins on a real gunicorn."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import requests
from flask import Flask
from support.chat_server import ChatServer, Exchange, answer
from support.checks import check_error, wait_for
from support.running_server import RunningServer
from support.speech import say_wav

from mirrorchat.access.api_keys import hashed
from mirrorchat.access.callers import EXTENSION, FAILED_KEYS_PER_MINUTE, Access, check_caller
from mirrorchat.access.trusted_proxies import TrustedProxies, networks_of
from mirrorchat.errors import MirrorChatError

KEY, OTHER, QUICK = "first-key-0123456789", "other-key-0123456789", "quick-key-0123456789"
PAGE = "https://app.example"
FAST_PER_MINUTE = 6


def headers_of(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a key, a key by its hash, and limits."""
    with RunningServer(
        tmp_path_factory.mktemp("access"), api_keys=[KEY, hashed(OTHER), hashed(QUICK)], cors_origins=[PAGE],
        rate_limit_per_minute=FAST_PER_MINUTE,
    ) as running:  # fmt: skip
        yield running


def page(server: RunningServer, key: str = "", address: str = "", **more: str) -> requests.Response:
    headers = headers_of(key, **more) if key else dict(more)
    if address:
        headers["X-Forwarded-For"] = address
    return requests.get(f"{server.url}/openapi.json", headers=headers, timeout=10)


def test_a_key_by_its_hash_opens_and_the_hash_does_not(server: RunningServer) -> None:
    assert page(server, OTHER).status_code == 200
    check_error(page(server, hashed(OTHER)), 401, "invalid_api_key")
    check_error(page(server), 401, "invalid_api_key")
    assert OTHER not in server.log and KEY not in server.log


def test_a_key_has_so_many_requests_a_minute_and_is_told(server: RunningServer) -> None:
    first = page(server, QUICK)
    assert first.headers["x-ratelimit-limit-requests"] == str(FAST_PER_MINUTE)
    assert first.headers["x-ratelimit-remaining-requests"] == str(FAST_PER_MINUTE - 1)
    assert first.headers["x-ratelimit-reset-requests"] == "10s"
    refused = next(each for each in (page(server, QUICK) for _ in range(50)) if each.status_code != 200)
    check_error(refused, 429, "rate_limit_exceeded")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["Retry-After"]) <= 11
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert page(server, KEY).status_code == 200  # another key's requests are its own
    health = requests.get(f"{server.url}/readyz", timeout=10)
    assert health.status_code == 200 and "x-ratelimit-limit-requests" not in health.headers


def test_without_a_key_readiness_says_no_more_than_that(server: RunningServer) -> None:
    for headers in ({}, headers_of(KEY), headers_of("wrong-key-0123456789")):
        ready = requests.get(f"{server.url}/readyz", headers=headers, timeout=10)
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    check_error(requests.get(f"{server.url}/engines", timeout=10), 401, "invalid_api_key")
    engines = requests.get(f"{server.url}/engines", headers=headers_of(KEY), timeout=10).json()["engines"]
    assert engines["synthesizer.en"]["name"]


def test_where_keys_are_set_every_name_is_answered(server: RunningServer) -> None:
    """As in compose.yaml, which lets nobody in without a key: whoever has one may call by any name."""
    named = {"Host": "speech.example", "Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    assert page(server, KEY, **named).status_code == 200
    check_error(page(server, **named), 401, "invalid_api_key")
    check_error(page(server, KEY, Host="a b"), 400, "invalid_host")


def test_an_address_that_tries_keys_is_stopped_alone(server: RunningServer) -> None:
    guesses = [page(server, f"guess-{number}-0123456789", "192.0.2.66") for number in range(FAILED_KEYS_PER_MINUTE + 9)]
    assert {each.status_code for each in guesses[:FAILED_KEYS_PER_MINUTE]} == {401}
    check_error(guesses[-1], 429, "too_many_failed_keys")
    assert int(guesses[-1].headers["Retry-After"]) >= 1
    assert page(server, OTHER, "192.0.2.66").status_code == 200  # a right key passes: others may share the address
    check_error(page(server, address="192.0.2.66"), 401, "invalid_api_key")  # which is no guess
    assert page(server, OTHER, "192.0.2.67").status_code == 200
    check_error(page(server, address="192.0.2.67"), 401, "invalid_api_key")


def test_listed_origins_are_told_so_without_a_key(server: RunningServer) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization,x-stainless-lang"}  # fmt: skip
    preflight = requests.options(f"{server.url}/process_audio", headers=asked, timeout=10)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-lang"
    assert {"Origin", "Access-Control-Request-Headers"} <= set(preflight.headers["Vary"].split(", "))
    real = page(server, OTHER, Origin=PAGE)
    assert real.status_code == 200 and real.headers["Access-Control-Allow-Origin"] == PAGE
    exposed = real.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-MirrorChat-Transcript", "X-Request-Id", "Retry-After", "Server-Timing"} <= set(exposed)
    assert "Access-Control-Allow-Credentials" not in real.headers
    refused = page(server, Origin=PAGE)  # a page must be able to read errors, too
    assert refused.status_code == 401 and refused.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://app.example.evil", "http://app.example", "https://App.example", "null"])
def test_other_origins_are_told_nothing(server: RunningServer, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = requests.options(f"{server.url}/process_audio", headers=asked, timeout=10)
    for response in (preflight, requests.get(f"{server.url}/healthz", headers={"Origin": origin}, timeout=10)):
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert "Origin" in response.headers["Vary"]


def test_a_session_belongs_to_a_key_that_is_listed_by_its_hash(server: RunningServer) -> None:
    answer = requests.post(
        f"{server.url}/process_audio", files={"audio": ("question.wav", say_wav("hello"))},
        data={"language": "english", "text": "Hi"}, headers=headers_of(OTHER), timeout=90,
    )  # fmt: skip
    session = f"{server.url}/sessions/{answer.headers['X-MirrorChat-Session']}"
    check_error(requests.delete(session, headers=headers_of(KEY), timeout=10), 404, "not_found", "session_id")
    assert requests.delete(session, headers=headers_of(OTHER), timeout=10).status_code == 204


def test_a_key_has_so_many_turns_at_once_from_however_many_addresses(tmp_path: Path) -> None:
    released = Event()

    def held(exchange: Exchange) -> None:
        assert released.wait(60)
        answer("Here I am.")(exchange)

    with (
        ChatServer(held) as chat,
        RunningServer(
            tmp_path, api_keys=[KEY, OTHER], turns_per_key=2, max_turns=1, chatgpt_apis=[chat.api()]
        ) as server,
    ):
        answers: list[requests.Response] = []

        def call(key: str, address: str) -> requests.Response:
            return requests.post(
                f"{server.url}/process_audio", files={"audio": ("question.wav", say_wav("hello"))},
                data={"language": "english", "text": "Hi"}, timeout=90,
                headers=headers_of(key, **{"X-Forwarded-For": address}),
            )  # fmt: skip

        def ask_as(key: str, address: str) -> None:
            answers.append(call(key, address))

        callers = [(KEY, "192.0.2.1"), (KEY, "192.0.2.2"), (OTHER, "192.0.2.1")]  # another key's turns are its own
        threads = [Thread(target=ask_as, args=who) for who in callers]
        for depth, thread in enumerate(threads):
            thread.start()
            wait_for(lambda: bool(chat.requests))
            wait_for_queue(server, depth)
        refused = call(KEY, "192.0.2.3")  # one of its two is answered and one waits
        check_error(refused, 429, "too_many_turns")
        assert int(refused.headers["Retry-After"]) >= 1
        assert 'mirrorchat_rejections_total{reason="turns_per_key"} 1.0' in metrics(server)
        released.set()
        for thread in threads:
            thread.join()
        assert [each.status_code for each in answers] == [200, 200, 200]
        assert call(KEY, "192.0.2.3").status_code == 200  # its places are free again


def wait_for_queue(server: RunningServer, depth: int) -> None:
    wait_for(lambda: f"mirrorchat_queue_depth {depth}.0" in metrics(server))


def metrics(server: RunningServer) -> str:
    return requests.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=10).text


def test_without_keys_addresses_are_limited_as_far_as_proxies_are_believed() -> None:
    def statuses(proxy: str, *forwarded: str) -> list[int]:
        app = Flask(__name__)
        app.extensions[EXTENSION] = Access((), 2)
        app.wsgi_app = TrustedProxies(app.wsgi_app, networks_of([proxy]))  # type: ignore[method-assign]
        app.before_request(check_caller)
        app.register_error_handler(MirrorChatError, lambda error: (error.body(), error.status))
        app.add_url_rule("/", "page", lambda: "come in")
        client = app.test_client()
        return [client.get("/", headers={"X-Forwarded-For": each}).status_code for each in forwarded]

    first, second, forged = "192.0.2.1", "192.0.2.2", "192.0.2.9, 192.0.2.1"
    assert statuses("127.0.0.1", first, first, second, second, first, forged) == [200, 200, 200, 200, 429, 429]
    assert statuses("192.0.2.200", first, second, "192.0.2.3") == [200, 200, 429]


def test_where_no_origin_is_listed_preflights_are_like_any_request(embedded_server: RunningServer) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    response = requests.options(f"{embedded_server.url}/process_audio", headers=asked, timeout=10)
    assert response.status_code == 200 and "POST" in response.headers["Allow"]
    assert "Vary" not in response.headers
    assert not [name for name in response.headers if name.startswith("Access-Control")]
