"""Hostile web pages in a real Chromium: none reads from, or asks anything of, a server without keys."""

import base64
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import pytest
from support.browser import LAN_ADDRESS, Browser
from support.chat_server import ChatServer, answer
from support.checks import wait_for
from support.running_server import RunningServer
from support.speech import say_wav

LISTED = "listed.example"
NOTHING_READ = [0, ""]
# A question as a form or a script sends it without asking first whether it may.
ASK = """
const [url, wav, mode, done] = arguments, form = new FormData();
form.append("language", "english"), form.append("text", "Hi");
form.append("audio", new Blob([Uint8Array.from(atob(wav), (c) => c.charCodeAt(0))]), "question.wav");
fetch(url + "/process_audio", {method: "POST", body: form, mode}).then(
    async (answer) => done([answer.status, (await answer.text()).slice(0, 4)]), () => done([0, ""]));
"""
READ = """
const [url, done] = arguments;
fetch(url).then(async (answer) => done([answer.status, await answer.text()]), () => done([0, ""]));
"""
SUBMIT = """
const form = document.createElement("form");
Object.assign(form, {method: "post", enctype: "multipart/form-data", action: arguments[0] + "/v1/audio/voices"});
document.body.append(form), form.submit();
"""
SANDBOXED = """
const [url, done] = arguments, frame = document.createElement("iframe");
frame.sandbox = "allow-scripts";
frame.srcdoc = `<script>fetch("${url}/sessions/any", {method: "POST", mode: "no-cors"})
    .finally(() => parent.postMessage("sent", "*"))</script>`;
addEventListener("message", () => done("sent"), {once: true});
document.body.append(frame);
"""


class Site:
    """A site on the web whose page has a link, to which POSTs are redirected.

    Once it is `rebound` to a port, its name leads to the server there.

    The browser sees the same name and port before and after, as with DNS rebinding.
    """

    def __init__(self, link: str) -> None:
        self.rebound = 0
        page = f"<!doctype html><title>A page</title><body><a id=link href={link}>MirrorChat</a>".encode()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if site.rebound:
                    self.wfile.write(site.relayed(f"GET {self.path} HTTP/1.1", dict(self.headers)))
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(307)  # the same request once more, there
                self.send_header("Location", f"{link.rstrip('/')}{self.path}")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def relayed(self, first_line: str, headers: dict[str, str]) -> bytes:
        """Return what the server answers to a request as the browser sent it."""
        lines = [first_line, *(f"{name}: {text}" for name, text in (headers | {"Connection": "close"}).items())]
        with closing(socket.create_connection(("127.0.0.1", self.rebound), timeout=20)) as server:
            server.sendall("\r\n".join([*lines, "", ""]).encode())
            return b"".join(iter(lambda: server.recv(65_536), b""))

    def __enter__(self) -> "Site":
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class Desk:
    """A server without keys, the chat API that sees each question, a site, and a browser."""

    def __init__(self, server: RunningServer, chat: ChatServer, site: Site, browser: Browser) -> None:
        self.server, self.chat, self.site, self.browser = server, chat, site, browser
        self._wav = base64.b64encode(say_wav("hello")).decode()

    def open(self, host: str) -> None:
        """Open the page of the site by the name `host`."""
        self.browser.open(f"http://{host}:{self.site.port}/", microphone=None)

    def ask(self, mode: str = "cors", url: str | None = None) -> Any:
        url = self.server.url if url is None else url
        return self.browser.driver.execute_async_script(ASK, url, self._wav, mode)

    def read(self, url: str) -> Any:
        return self.browser.driver.execute_async_script(READ, url)


@pytest.fixture(scope="module")
def desk_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with ExitStack() as stack:
        chat = stack.enter_context(ChatServer(answer("The sky is blue.")))
        server = RunningServer(folder, wait=False, chatgpt_apis=[chat.api()])
        site = stack.enter_context(Site(f"{server.url}/"))
        listed = f"cors_origins = ['http://{LISTED}:{site.port}']\n"
        server.config.write_text(server.config.read_text(encoding="utf-8") + listed, encoding="utf-8")
        stack.enter_context(server)
        browser = stack.enter_context(closing(Browser(None)))
        server.wait_until_ready()
        browser.driver.set_script_timeout(60)
        yield Desk(server, chat, site, browser)


@pytest.fixture
def desk(desk_of_the_module: Desk) -> Iterator[Desk]:
    desk_of_the_module.chat.requests.clear()
    yield desk_of_the_module
    desk_of_the_module.site.rebound = 0


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1"])
@pytest.mark.parametrize("mode", ["cors", "no-cors"])
def test_a_foreign_page_asks_nothing(desk: Desk, host: str, mode: str) -> None:
    """Other servers on this computer have pages, too: theirs are as foreign."""
    desk.open(host)
    assert desk.ask(mode) == NOTHING_READ
    assert desk.read(f"{desk.server.url}/engines") == NOTHING_READ
    assert desk.chat.requests == []


@pytest.mark.parametrize("mode", ["cors", "no-cors"])
def test_a_redirected_question_is_not_answered(desk: Desk, mode: str) -> None:
    desk.open("evil.example")
    assert desk.ask(mode, url="") == NOTHING_READ
    assert desk.chat.requests == []


def test_a_page_whose_name_is_rebound_reads_nothing(desk: Desk) -> None:
    desk.open("evil.example")
    desk.site.rebound = desk.server.port
    for path in ("/engines", "/v1/audio/voices", "/", "/readyz"):
        status, text = desk.read(path)
        assert status == 421 and "allowed_hosts" in text and "embedded" not in text, path


def test_a_form_and_a_frame_without_an_origin_do_nothing(desk: Desk) -> None:
    desk.open("evil.example")
    assert desk.browser.driver.execute_async_script(SANDBOXED, desk.server.url) == "sent"
    wait_for(lambda: "route=none status=403" in desk.server.log)
    desk.browser.run(SUBMIT, desk.server.url)
    wait_for(lambda: "foreign_page" in desk.browser.text("body"))


def test_a_file_of_this_computer_is_a_foreign_page(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html><title>A page</title>", encoding="utf-8")
    desk.browser.open((tmp_path / "page.html").as_uri(), microphone=None)
    assert desk.ask("no-cors") == NOTHING_READ
    assert desk.chat.requests == []


def test_a_listed_page_asks_and_reads(desk: Desk) -> None:
    desk.open(LISTED)
    assert desk.ask() == [200, "RIFF"]
    assert len(desk.chat.requests) == 1
    status, text = desk.read(f"{desk.server.url}/engines")
    assert status == 200 and "embedded" in text


def test_a_link_from_elsewhere_opens_our_page_which_asks(desk: Desk) -> None:
    desk.open("evil.example")
    desk.browser.tap("link")
    wait_for(lambda: desk.browser.driver.current_url == f"{desk.server.url}/")
    desk.browser.is_ready()
    assert desk.ask() == [200, "RIFF"]
    assert len(desk.chat.requests) == 1


def test_a_phone_opens_the_page_by_the_address_in_the_local_network(desk: Desk) -> None:
    desk.browser.open(f"http://{LAN_ADDRESS}:{desk.server.port}/", microphone=None)
    wait_for(lambda: desk.browser.notice == "insecure_page")
    status, text = desk.read("/engines")
    assert status == 200 and "embedded" in text
    assert desk.ask(url="") == [200, "RIFF"]  # by the address, without Sec-Fetch-Site
