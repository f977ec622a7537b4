"""Makes docs/screenshots/*.png: the page in Chromium, with a real server and a scripted chat API.

.venv/bin/python scripts/make_screenshots.py
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.browser import Browser  # noqa: E402
from support.chat_server import ChatServer, answer  # noqa: E402
from support.checks import wait_for  # noqa: E402
from support.places import QUESTION  # noqa: E402
from support.running_server import RunningServer  # noqa: E402

FOLDER = ROOT / "docs" / "screenshots"
LARGEST_BYTES = 150_000
ANSWER = (
    "Little and often, and aloud. Speak with people who put up with your mistakes, and read what you would read anyway."
)
SHORT_ANSWER = "Listen first, then say what you heard."


@contextmanager
def conversation() -> Iterator[tuple[Browser, ChatServer, str]]:
    """Yield a browser, the chat API of its server, and the address of the page."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ChatServer() as chat,
        RunningServer(Path(folder), chatgpt_apis=[chat.api(model="qwen2.5")]) as server,
        closing(Browser(QUESTION)) as browser,
    ):
        yield browser, chat, server.url


def ask(browser: Browser) -> None:
    """Tap, wait until the microphone has played the question, and tap again."""
    browser.tap("talk")
    browser.listen_for("0:03")
    browser.tap("talk")


def keep(browser: Browser, name: str) -> None:
    """Write a screenshot to FOLDER. Raises ValueError if it is too large for a repository."""
    path = FOLDER / f"{name}.png"
    browser.driver.save_screenshot(str(path))
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"{path} is larger than {LARGEST_BYTES} bytes")


def make_screenshots() -> None:
    """Write a desktop during an answer, and a phone with a dark theme during the recording of a second question."""
    with conversation() as (browser, chat, url):
        chat.behaviour = answer(ANSWER)
        browser.show_on(1280, 800, phone=False)
        browser.open(url)
        browser.is_ready()
        ask(browser)
        wait_for(lambda: bool(browser.text(".stage-total")) and browser.loudness() > 0.1)
        keep(browser, "desktop")
        browser.is_ready()
        chat.behaviour = answer(SHORT_ANSWER)
        browser.show_on(390, 844, scheme="dark")
        browser.open(url)
        browser.is_ready()
        ask(browser)
        wait_for(lambda: bool(browser.text(".stage-total")))
        browser.is_ready()
        browser.tap("talk")
        browser.listen_for("0:02")
        keep(browser, "phone")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_screenshots()
