"""What a web page that somebody opens can do to a server without keys: the raw requests, on a real gunicorn."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
import requests
from support.checks import check_error
from support.running_server import RunningServer
from support.speech import say_wav

LISTED_NAME, LISTED_PAGE = "speech.example", "https://app.example"
ROUTES = (
    ("POST", "/process_audio"), ("DELETE", "/sessions/any"), ("GET", "/engines"), ("GET", "/metrics"),
    ("POST", "/v1/chat/completions"), ("POST", "/v1/audio/speech"), ("POST", "/v1/audio/transcriptions"),
    ("GET", "/v1/audio/voices"), ("POST", "/v1/audio/voices"), ("DELETE", "/v1/audio/voices/any"),
    ("GET", "/v1/models"),
)  # fmt: skip
OPEN_ROUTES = ("/", "/healthz", "/readyz", "/static/any/page.js")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server without keys, with a name from its environment and a page from its configuration."""
    with RunningServer(
        tmp_path_factory.mktemp("desk"),
        cors_origins=[LISTED_PAGE],
        environ={"MIRRORCHAT_ALLOWED_HOSTS": f"{LISTED_NAME}, 192.0.2.1"},
    ) as running:
        yield running


def send(server: RunningServer, *lines: str) -> tuple[int, bytes]:
    """Send a request without a body in these lines; return the status and the body of the response."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as caller:
        caller.sendall("".join(f"{line}\r\n" for line in (*lines, "Connection: close", "")).encode("latin-1"))
        answer = b"".join(iter(lambda: caller.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def status_of(server: RunningServer, method: str, path: str, headers: Mapping[str, str]) -> int:
    return requests.request(method, server.url + path, headers=dict(headers), timeout=20).status_code


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:{port}", "localhost.:{port}", "127.0.0.1:{port}", "192.168.178.20", "[::1]:{port}",
     "[FE80::1]", "speech.example", "Speech.Example.:8443", "127.0.0.1:"],
)  # fmt: skip
def test_localhost_addresses_and_listed_names_are_answered(server: RunningServer, host: str) -> None:
    assert send(server, "GET /engines HTTP/1.1", f"Host: {host.format(port=server.port)}")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "speech.example.evil.example", "localhost.evil.example", "evil.localhost",
     "127.0.0.1.evil.example", "xspeech.example", "2130706433", "0x7f.1", "a_b", "xn--bcher-kva.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/healthz", "/engines"])
def test_another_name_is_told_the_setting(server: RunningServer, host: str, path: str) -> None:
    forwarded = ("X-Forwarded-Host: localhost", "Forwarded: host=localhost")
    status, body = send(server, f"GET {path} HTTP/1.1", f"Host: {host.format(port=server.port)}", *forwarded)
    assert status == 421 and b"unknown_host" in body
    assert f'allowed_hosts = [\\"{host.partition(":")[0]}\\"]'.encode() in body


@pytest.mark.parametrize(
    "host",
    ["", "a b", "a,b", "localhost:port", "localhost:65536", "localhost:123456", "user@localhost", "::1", "[::1",
     "[::g]", "[v1.a]", "localhost/", "local\xe4host", ".", "a..b", "a" * 64, "a." * 130 + "a", "http://localhost",
     "%6cocalhost", "localhost..", "[127.0.0.1]"],
)  # fmt: skip
def test_a_malformed_host_is_a_bad_request(server: RunningServer, host: str) -> None:
    status, body = send(server, "GET /engines HTTP/1.1", f"Host: {host}")
    assert status == 400
    assert b"invalid_host" in body


def test_no_host_and_two_are_bad_requests(server: RunningServer, embedded_server: RunningServer) -> None:
    for running in (server, embedded_server):
        for version in ("1.0", "1.1"):
            assert send(running, f"GET /healthz HTTP/{version}")[0] == 400
        assert send(running, "GET /healthz HTTP/1.1", "Host: localhost", "Host: evil.example")[0] == 400
        assert send(running, "GET /healthz HTTP/1.0", "Host: localhost")[0] == 200


def test_a_whole_url_as_target_is_a_name_too(server: RunningServer) -> None:
    assert send(server, "GET http://evil.example/engines HTTP/1.1", "Host: localhost")[0] == 421
    assert send(server, "GET http://localhost/engines HTTP/1.1", "Host: evil.example")[0] == 421
    assert send(server, f"GET http://{LISTED_NAME}/engines HTTP/1.1", "Host: localhost")[0] == 200
    assert send(server, "GET http://a@localhost/engines HTTP/1.1", "Host: localhost")[0] == 400


@pytest.mark.parametrize("method, path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
     {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1:1"},
     {"Origin": "http://localhost"}, {"Origin": "file://"}, {"Origin": ""}, {"Origin": "https://app.example.evil"},
     {"Origin": "http://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"}],
    ids=str,
)  # fmt: skip
def test_a_foreign_page_does_nothing(server: RunningServer, method: str, path: str, headers: Mapping[str, str]) -> None:
    response = requests.request(method, server.url + path, headers=dict(headers), timeout=20)
    check_error(response, 403, "foreign_page")
    assert not [name for name in response.headers if name.startswith("Access-Control")]


def test_a_foreign_page_is_told_the_setting(server: RunningServer) -> None:
    response = requests.get(f"{server.url}/engines", headers={"Origin": "https://evil.example"}, timeout=20)
    assert 'cors_origins = ["https://evil.example"]' in response.json()["error"]["message"]


def test_a_question_from_a_foreign_page_is_not_answered(server: RunningServer) -> None:
    """What a form or fetch sends without asking first: a simple request."""

    def ask_from(origin: str) -> requests.Response:
        return requests.post(
            f"{server.url}/process_audio", files={"audio": ("question.wav", say_wav("hello"))},
            data={"language": "english", "text": "Hi"}, headers={"Origin": origin}, timeout=90,
        )  # fmt: skip

    check_error(ask_from("https://evil.example"), 403, "foreign_page")
    assert [ask_from(origin).status_code for origin in (LISTED_PAGE, server.url)] == [200, 200]


@pytest.mark.parametrize("path", OPEN_ROUTES)
def test_a_link_from_elsewhere_opens_the_page(server: RunningServer, path: str) -> None:
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert status_of(server, "GET", path, linked) in (200, 404)  # there is no such file


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_what_the_browser_does_itself_is_answered(server: RunningServer, site: str) -> None:
    assert status_of(server, "GET", "/engines", {"Sec-Fetch-Site": site}) == 200


def test_our_own_page_may_ask_by_every_name_it_has(server: RunningServer) -> None:
    def status(host: str, *more: str) -> int:
        return send(server, "GET /engines HTTP/1.1", f"Host: {host}", *more)[0]

    assert status(f"localhost:{server.port}", f"Origin: http://localhost:{server.port}") == 200
    assert status("192.168.178.20", "Origin: http://192.168.178.20") == 200
    assert status("192.168.178.20:80", "Origin: http://192.168.178.20") == 200
    assert status("[::1]:8080", "Origin: http://[::1]:8080") == 200
    assert status("Speech.Example.", "Origin: http://speech.example") == 200
    assert status("speech.example", "Origin: https://speech.example") == 403  # another server, perhaps
    https = ("Origin: https://speech.example", "X-Forwarded-Proto: https")
    assert status("speech.example", *https) == status("speech.example:443", *https) == 200
    assert status("speech.example", "Origin: https://speech.example", "Sec-Fetch-Site: same-origin") == 200


def test_a_listed_page_may_ask_from_another_site(server: RunningServer) -> None:
    listed = {"Origin": LISTED_PAGE, "Sec-Fetch-Site": "cross-site"}
    response = requests.get(f"{server.url}/engines", headers=listed, timeout=20)
    assert response.status_code == 200 and response.headers["Access-Control-Allow-Origin"] == LISTED_PAGE
    asked = {**listed, "Access-Control-Request-Method": "POST"}
    assert status_of(server, "OPTIONS", "/process_audio", asked) == 204
    status, body = send(server, "OPTIONS /process_audio HTTP/1.1", "Host: evil.example", f"Origin: {LISTED_PAGE}",
                        "Access-Control-Request-Method: POST")  # fmt: skip
    assert status == 421 and b"unknown_host" in body
