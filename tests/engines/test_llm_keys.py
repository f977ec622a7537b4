"""What the chat client sends to whom over TLS and proxies, and that a key shows nowhere."""

import base64
import json
import logging
from pathlib import Path

import pytest
from support.chat_checks import (  # noqa: F401 (fixtures)
    KEY,
    api_at,
    ask,
    check_cancel,
    client_of,
    no_leaks,
    only_failure,
    plain_environment,
    trust_the_test_certificate,
)
from support.chat_server import (
    Behaviour,
    ChatServer,
    Exchange,
    RefusingPort,
    answer,
    body,
    chunked_stream,
    delta,
    hang_after_headers,
    in_turn,
    status,
)

from mirrorchat.errors import ChatInterrupted, NoChatApi
from mirrorchat.settings import ChatApi


def test_cancel_ends_a_read_that_blocks_under_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust_the_test_certificate(tmp_path, monkeypatch)
    check_cancel(ChatServer(in_turn(hang_after_headers, answer("A")), tls=True))


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(tls=True) as server, ChatServer() as plain:
        assert only_failure(client_of(api_at(server))) == "no secure connection (TLS error)"  # not a known certificate
        assert only_failure(client_of(api_at(plain, url=plain.url.replace("http:", "https:")))).endswith("(TLS error)")
        assert server.requests == []
        trust_the_test_certificate(tmp_path, monkeypatch)
        assert ask(client_of(api_at(server))) == "All is well."


def test_netrc_does_not_replace_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine chat.example login someone password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with ChatServer() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")  # so that the host need not be this machine
        for key in (KEY, ""):
            assert ask(client_of(api_at(proxy, key=key, url="http://chat.example/v1"))) == "All is well."
    assert [request.headers.get("authorization") for request in proxy.requests] == [f"Bearer {KEY}", None]


def test_a_proxy_gets_the_whole_url_and_is_not_used_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as proxy, ChatServer(answer("Near.")) as near:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert ask(client_of(api_at(near))) == "Near."
        assert proxy.requests == []
        assert ask(client_of(api_at(proxy, url="http://chat.example/a/completions?key=c"))) == "All is well."
        assert proxy.requests[0].path == "http://chat.example/a/completions?key=c"


def test_a_proxy_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with RefusingPort() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert only_failure(client_of(api_at(proxy, url="https://chat.example/v1"))) == "the proxy could not be used"


def test_a_socks_proxy_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    with RefusingPort() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url.replace("http:", "socks5:"))
        reason = only_failure(client_of(api_at(proxy, url="http://chat.example/v1")))
    assert reason in (
        "the request cannot be sent: check the url, the headers and the proxy",
        "a SOCKS proxy cannot be used",
    )


def test_a_password_in_the_url_is_sent_when_there_is_no_key() -> None:
    with ChatServer() as server:
        url = server.url.replace("//", "//someone:word@")
        ask(client_of(api_at(server, url=url, key="")))
        ask(client_of(api_at(server, url=url)))
    assert server.requests[0].headers["authorization"] == "Basic c29tZW9uZTp3b3Jk"
    assert server.requests[1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "behaviour",
    [
        status(401),
        status(301, f"Location: /{KEY}"),
        body(KEY.encode(), f"text/{KEY}"),
        chunked_stream(f'data: {{"error": "{KEY}"}}\n\n'.encode()),
        chunked_stream(f"data: {KEY}\n\n".encode()),
        chunked_stream(f"event: error\ndata: bad {KEY}\n\n".encode()),
        body(f'{{"code": 401, "msg": "bad\\n{KEY}"}}'.encode()),
        body(f"no {KEY}".encode(), "text/plain", "403 Forbidden"),
        chunked_stream(delta("Blue"), f"data: {KEY}\n\n".encode()),
        answer("Blue."),
        lambda exchange: exchange.send(f"{KEY}\r\n\r\n".encode()),
    ],
)
def test_the_key_shows_nowhere(behaviour: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer(behaviour) as server, RefusingPort() as refusing:
        secrets = {"headers": {"X-Key": KEY}}
        apis = [
            api_at(place, url=place.url.replace("//", f"//someone:{KEY}@") + f"/{KEY}/completions?key={KEY}", **secrets)
            for place in (refusing, server)
        ]
        client = client_of(*apis)
        seen = [repr(client), str(client), repr(client.info)]
        try:
            seen.append(ask(client))
        except (NoChatApi, ChatInterrupted) as error:
            seen += [repr(error), str(error), json.dumps(error.body()), repr(error.failures), repr(error.__context__)]
        assert server.requests[0].path.endswith(f"/{KEY}/completions?key={KEY}")  # it did reach the API
        assert server.requests[0].headers["x-key"] == KEY
    assert "urllib3.connectionpool" in {record.name for record in caplog.records}
    assert "refused the connection" in caplog.text
    assert KEY not in "".join(seen) + caplog.text


@pytest.mark.parametrize("user", ["somebody:open sesame", "a-long-user-name:"])
def test_what_a_url_holds_before_its_host_is_masked(user: str) -> None:
    token = base64.b64encode(user.encode()).decode()

    def echo(exchange: Exchange) -> None:
        assert exchange.request.headers["authorization"] == f"Basic {token}"
        body(json.dumps({"error": f"no {token} of {user.replace(':', ' ')}"}).encode())(exchange)

    with ChatServer(echo) as server:
        url = server.url.replace("//", f"//{user.replace(' ', '%20')}@")
        reason = only_failure(client_of(api_at(server, key="", url=url)))
    assert reason.startswith("an error instead of an answer: no *** of ***")
    assert not [part for part in (token, *user.split(":")) if part and part in reason]


def test_a_short_value_of_a_query_is_no_secret() -> None:
    with ChatServer(body(b'{"error": "at most 1024 tokens"}')) as server:
        api = api_at(server, url=f"{server.url}?v=1&token=abcd")
        assert only_failure(client_of(api)).endswith("at most 1024 tokens")


def test_a_long_text_of_extra_body_is_masked_as_it_may_be_a_key() -> None:
    extra = {"api_token": "a-token-without-digits", "reasoning_effort": "medium"}
    with ChatServer(body(b'{"error": "a-token-without-digits: no medium effort"}')) as server:
        reason = only_failure(client_of(api_at(server, extra_body=extra)))
    assert reason == "an error instead of an answer: ***: no medium effort"


def test_info_names_models_and_hosts() -> None:
    apis = [ChatApi(url="https://u:p@a.example/v1?k=1", key=KEY, model="m"), ChatApi(url="http://b.example:81/v1")]
    info = client_of(*apis).info
    assert (info.name, info.device) == ("chat", "remote")
    assert info.model == "m@a.example, gpt-4o-mini@b.example:81"
    client_of(*apis).close()
