"""The page in a real Chromium against real gunicorns, and what is asserted of it in every state."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from support.browser import INSECURE_HOST, Browser
from support.chat_server import ChatServer
from support.places import QUESTION
from support.running_server import RunningServer, conf_that_admits_all

KEY = "a-key-for-the-page-0123456789"
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Scene:
    """A server, the chat that answers it, and a browser."""

    def __init__(self, server: RunningServer, chat: ChatServer, browser: Browser) -> None:
        self.server, self.chat, self.browser = server, chat, browser

    def open(self) -> Browser:
        """Open the page afresh on a desktop, and wait until it is ready."""
        self.browser.show_on(1280, 800, phone=False)
        self.browser.open(self.server.url)
        self.browser.is_ready()
        return self.browser

    def open_on_phone(self) -> Browser:
        """Open the page afresh on a screen that fingers touch, and wait until it is ready."""
        self.browser.show_on(390, 844)
        self.browser.open(self.server.url)
        self.browser.is_ready()
        return self.browser


class Scenes(NamedTuple):
    """Two servers with one browser. `guarded` asks for a key and has one place."""

    open: Scene
    guarded: Scene


@contextmanager
def open_scenes(folder: Path, other: Path) -> Iterator[Scenes]:
    """Open both, each with a folder of its own, for the block."""
    conf = conf_that_admits_all(folder)  # and speaks at once
    always: dict[str, Any] = {"wait": False, "chat_cooldown_s": 0.0, "allowed_hosts": [INSECURE_HOST]}
    one_place: dict[str, Any] = {"api_keys": [KEY], "max_turns": 1, "max_waiting": 0}
    with (
        ChatServer() as chat,
        ChatServer() as other_chat,
        RunningServer(folder, gunicorn_conf=conf, chatgpt_apis=[chat.api(timeout_s=60.0)], **always) as server,
        RunningServer(other, chatgpt_apis=[other_chat.api()], **one_place, **always) as guarded,
        closing(Browser(QUESTION)) as browser,  # closed first: servers wait for connections that are open
    ):
        server.wait_until_ready()
        guarded.wait_until_ready()
        yield Scenes(Scene(server, chat, browser), Scene(guarded, other_chat, browser))


def check_accessible(browser: Browser, axe: str) -> None:
    """Assert that axe finds nothing to object to on the page as it is."""
    browser.run(axe)
    script = "axe.run(document, {runOnly: arguments[0]}).then(arguments[1])"
    result = browser.driver.execute_async_script(script, AXE_RULES)
    found = [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in result["violations"]]
    assert found == [] and len(result["passes"]) > 10


def check_fits(browser: Browser) -> None:
    """Assert that nothing is cut off or has to be scrolled to sideways."""
    outside = browser.run(
        "const width = document.documentElement.clientWidth;"
        "return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('.unseen')"
        " && (e.getBoundingClientRect().right > width + 0.5 || e.getBoundingClientRect().left < -0.5)"
        ").map((e) => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth") is True


def check_quiet(browser: Browser) -> None:
    assert [entry["message"] for entry in browser.logs("browser")] == []
