"""The page in a real Chromium against a real gunicorn: what people see, do and hear."""

import base64
import io
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
import soundfile
from browser import INSECURE_HOST, Browser
from chat_server import ChatServer, answer, hang_after, hang_before_headers, status
from running_server import RunningServer, conf_that_admits_all
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from speech import say_wav
from stream_client import Gate
from test_app import QUESTION, check_error, wait_for
from test_pipeline import UNREADABLE

from mirrorchat.server.page import HEADERS, KEPT_FOR_EVER, static_files

KEY = "a-key-for-the-page-0123456789"
FIRST = "Little and often is the way, and aloud. Read what you would read anyway. "
SECOND = "Then speak with people who put up with your mistakes."
LONG = FIRST + "This is one of very many sentences that nobody would ever listen to. " * 12
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


class Scenes(NamedTuple):
    """Two servers with one browser. `guarded` asks for a key and has one place."""

    open: Scene
    guarded: Scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    folder, other = tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("guarded")
    conf = conf_that_admits_all(folder)  # and speaks at once
    always: dict[str, Any] = {"wait": False, "chat_cooldown_s": 0.0}
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


@pytest.fixture
def scene(scenes: Scenes) -> Scene:
    return scenes.open


@pytest.fixture
def guarded(scenes: Scenes) -> Scene:
    return scenes.guarded


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the source of axe-core."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "axe-core@4"]
    try:
        subprocess.run(command, check=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("npm absent: apt install npm")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


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


# Served


def test_the_page_is_served_with_a_strict_policy(scene: Scene) -> None:
    response = requests.get(scene.server.url, timeout=5)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", response.text)
    assert "pocketsphinx" not in response.text  # what answers here is for those who may ask it


def test_its_files_are_kept_for_ever_at_an_address_of_their_contents(scene: Scene) -> None:
    html = requests.get(scene.server.url, timeout=5).text
    addresses = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert len(addresses) == 3
    modules = [name for name in static_files().contents if name.endswith(".js")]
    addresses += [f"static/{static_files().version}/{name}" for name in modules]
    for address in addresses:
        response = requests.get(f"{scene.server.url}/{address}", timeout=5)
        assert response.status_code == 200 and response.headers["Cache-Control"] == KEPT_FOR_EVER
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    older = requests.get(f"{scene.server.url}/static/0123456789abcdef/page.js", timeout=5)
    assert older.status_code == 200 and older.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["app.py", "..%2fapp.py", "%2e%2e/app.py", "index.html", "x" * 3000])
def test_there_are_no_other_files(scene: Scene, name: str) -> None:
    check_error(requests.get(f"{scene.server.url}/static/{static_files().version}/{name}", timeout=5), 404, "not_found")


def test_every_text_is_there_in_both_languages(scene: Scene) -> None:
    browser = scene.open()
    script = "import(arguments[0]).then((module) => arguments[1](module.WORDS))"
    address = f"{scene.server.url}/static/{static_files().version}/words.js"
    found = browser.driver.execute_async_script(script, address)
    assert found["en"].keys() == found["zh"].keys() and len(found["en"]) > 80
    for name, text in found["en"].items():
        assert re.findall(r"\{\w+\}", text) == re.findall(r"\{\w+\}", found["zh"][name]), name
        assert text == "…" or re.search("[一-鿿]", found["zh"][name]), name
        assert not name.startswith("refusal.") or {name, f"{name}.advice"} <= found["en"].keys() or "advice" in name
    used = browser.run("return [...document.querySelectorAll('[data-say], [data-say-label]')]"
                       ".flatMap((e) => [e.dataset.say, e.dataset.sayLabel]).filter(Boolean)")  # fmt: skip
    assert set(used) <= found["en"].keys()


WAV_OF = """
const [address, blocks, done] = arguments;
const { wavOf } = await import(address);
const bytes = new Uint8Array(await wavOf(blocks.map((block) => Float32Array.from(block)), 44100).arrayBuffer());
done(btoa(String.fromCharCode(...bytes)));
"""
EVENTS_OF = """
const [address, text, done] = arguments;
const { eventsOf } = await import(address);
const bytes = new TextEncoder().encode(text);
const body = new ReadableStream({ start(stream) {
  for (const byte of bytes) stream.enqueue(Uint8Array.of(byte));
  stream.close();
} });
const found = [];
for await (const event of eventsOf(body)) found.push([event.name, event.data]);
done(found);
"""


def run_module(scene: Scene, script: str, module: str, given: object) -> Any:
    """Run `script` on the page with the address of a module of its own, and return what it is done with."""
    address = f"{scene.server.url}/static/{static_files().version}/{module}"
    wrapped = f"(async function () {{{script}}}).apply(null, arguments)"
    return scene.browser.driver.execute_async_script(wrapped, address, given)


def test_a_recording_becomes_the_same_samples(scene: Scene) -> None:
    scene.open()
    samples = np.linspace(-1.25, 1.25, 3001, dtype=np.float32)
    blocks = [samples[:1024].tolist(), samples[1024:].tolist()]
    wav = base64.b64decode(run_module(scene, WAV_OF, "wav.js", blocks))
    found, rate_hz = soundfile.read(io.BytesIO(wav), dtype="int16")
    assert rate_hz == 44_100 and np.abs(found - np.clip(samples, -1, 1) * 32767).max() <= 0.51
    assert int.from_bytes(wav[4:8], "little") == len(wav) - 8 == 36 + 2 * len(samples)


def test_events_are_read_however_they_are_cut(scene: Scene) -> None:
    scene.open()
    events = [("text", {"delta": "你好，\n\nthere: 🙂"}), ("done", {"reply": "event: x"})]
    text = ": hello\n\n" + "".join(
        f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n: still working\n\n" for name, data in events
    )
    assert [tuple(event) for event in run_module(scene, EVENTS_OF, "events.js", text)] == events


# Talking


def test_a_question_is_heard_and_the_answer_seen_and_heard_as_it_comes(scene: Scene, axe: str) -> None:
    browser = scene.open()
    check_accessible(browser, axe)
    gate = Gate(FIRST, SECOND)
    scene.chat.behaviour = gate.behave
    browser.tap("talk")
    browser.wait_until("recording")
    assert browser.at("talk").get_attribute("aria-pressed") == "true"
    wait_for(lambda: float(browser.at("ring").get_attribute("data-level") or 0) > 0.4)  # the level is seen
    browser.listen_for("0:03")
    browser.tap("talk")
    assert browser.at("talk").get_attribute("aria-pressed") == "false"
    wait_for(lambda: browser.text(".answered .words") == FIRST.strip())
    assert "learn a language" in browser.text(".asked .words")
    assert not gate.ended.is_set()
    wait_for(lambda: browser.state == "speaking" and browser.loudness() > 0.005)
    gate.opened.set()
    wait_for(lambda: browser.text(".answered .words") == FIRST + SECOND)
    browser.is_ready()
    check_speech(browser)
    check_small_print(browser)
    check_accessible(browser, axe)
    check_quiet(browser)


def check_speech(browser: Browser) -> None:
    """Assert that what reached the loudspeakers last is what was handed to them: speech, and no gap in it."""
    pieces = browser.pieces()
    assert len(pieces) > 2 and {piece.rate for piece in pieces} == {24_000}
    for before, after in pairwise(pieces):
        late = after.now > before.end  # the server had nothing sooner
        assert late or abs(after.when - before.end) < 0.5 / 24_000
    assert all(piece.when >= piece.now for piece in pieces)
    # since the server last paused, all is one stretch; its end is what was heard last
    first = max((i for i in range(1, len(pieces)) if pieces[i].now > pieces[i - 1].end), default=0)
    spoken = np.concatenate([piece.samples for piece in pieces[first:]])
    heard = np.trim_zeros(browser.last_heard(32_768), "b")
    spoken = np.trim_zeros(spoken, "b")
    both = min(len(heard), len(spoken))
    assert both > 6_000 and np.sqrt(np.mean(spoken[-both:] ** 2)) > 0.01
    assert np.abs(heard[-both:] - spoken[-both:]).max() < 1e-4


def check_small_print(browser: Browser) -> None:
    """Assert that the turn says which voice and engines answered, and how long each took."""
    assert browser.text(".voice .label") == "Tinted toward your voice" and browser.text(".voice .reason")
    stages = browser.driver.find_elements(By.CSS_SELECTOR, ".print .stage")
    texts = [stage.text.replace("\n", " ") for stage in stages]
    for text, label, model in zip(
        texts,
        ["heard", "answered", "voice", "spoken", "first sound after", "the server in all"],
        ["pocketsphinx", "gpt-4o-mini", "", "eSpeak NG", "", ""],
        strict=True,
    ):
        assert re.match(rf"{label} \d+(\.\d+)? s", text) and model in text


def test_held_space_bar_and_a_second_question_of_the_same_session(scene: Scene) -> None:
    browser = scene.open()
    scene.chat.behaviour = answer("Yes.")
    asked = len(scene.chat.requests)
    for _ in range(2):
        browser.key(Keys.SPACE, down=True)
        browser.listen_for("0:02")
        browser.key(Keys.SPACE, down=False)
        browser.wait_until("speaking")
        browser.is_ready()
    first, second = scene.chat.requests[asked:]
    assert "best way" in first.question
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "user"]
    assert len(browser.driver.find_elements(By.CLASS_NAME, "turn")) == 2
    check_quiet(browser)


def test_stop_is_silence_at_once_and_hangs_up(scene: Scene) -> None:
    browser = scene.open()
    scene.chat.behaviour = hang_after(LONG)
    browser.ask()
    wait_for(lambda: browser.state == "speaking" and browser.loudness() > 0.005)
    wait_for(lambda: browser.planned_until()[0] - browser.planned_until()[1] > 3.0)  # more is due
    browser.tap("stop")
    until, now = browser.planned_until()
    assert browser.state == "idle" and now < until
    wait_for(lambda: not browser.last_heard(24_000).any())  # a whole second: no pause between sentences is as long
    assert browser.planned_until()[1] < until  # it is not silent because all was said
    assert scene.chat.requests[-1].closed_early.wait(10)
    pieces = browser.pieces_count()
    assert browser.text(".print .stopped") == "stopped"
    wait_for(lambda: browser.planned_until()[1] > until)
    assert browser.pieces_count() == pieces and not browser.last_heard(2048).any()


def test_stop_while_it_thinks_hangs_up(scene: Scene) -> None:
    browser = scene.open()
    scene.chat.behaviour = hang_before_headers
    asked = len(scene.chat.requests)
    browser.ask()
    wait_for(lambda: len(scene.chat.requests) > asked)
    assert browser.state == "waiting"
    browser.tap("stop")
    assert scene.chat.requests[-1].closed_early.wait(10)
    assert browser.state == "idle" and browser.notice == ""


def test_talking_again_interrupts_and_is_answered(scene: Scene) -> None:
    browser = scene.open()
    scene.chat.behaviour = hang_after(LONG)
    browser.ask()
    wait_for(lambda: browser.state == "speaking" and browser.loudness() > 0.005)
    scene.chat.behaviour = answer("All right.")
    interrupted = scene.chat.requests[-1]
    browser.tap("talk")
    wait_for(lambda: browser.state == "recording" and browser.loudness() == 0.0)
    assert interrupted.closed_early.wait(10)
    browser.listen_for("0:02")
    browser.tap("talk")
    wait_for(lambda: browser.text(".answered .words") == "All right.")
    browser.wait_until("speaking")
    browser.is_ready()
    check_quiet(browser)


def test_forget_me_forgets_the_session(scene: Scene) -> None:
    browser = scene.open()
    assert not browser.at("forget").is_enabled()
    scene.chat.behaviour = answer("Yes.")
    browser.ask()
    browser.wait_until("speaking")
    browser.is_ready()
    browser.tap("forget")
    wait_for(lambda: browser.notice == "forgotten")
    assert browser.text(".turn") == "" and not browser.at("forget").is_enabled()
    requested = [
        what["request"] for name, what in browser.network() if name == "Network.requestWillBeSent"
    ]  # fmt: skip
    assert all(each["url"].startswith(f"{scene.server.url}/") for each in requested)  # and nothing from elsewhere
    deleted = [each["url"] for each in requested if each["method"] == "DELETE"]
    assert len(deleted) == 1 and re.search(r"/sessions/[\w-]{32}$", deleted[0])
    check_error(requests.delete(deleted[0], timeout=5), 404, "not_found", "session_id")


# What goes wrong


def test_too_short_a_press_is_said_in_words(scene: Scene) -> None:
    browser = scene.open()
    browser.tap("talk")
    browser.wait_until("recording")
    browser.run("document.getElementById('talk').click()")  # as a screen reader does; sooner than a finger
    wait_for(lambda: browser.notice == "audio_too_short")
    assert browser.text("#notice-title") == "That was too short" and "Hold" in browser.text("#notice-advice")
    browser.tap("page-language")
    assert browser.text("#notice-title") == "太短了"
    assert browser.run("return document.documentElement.lang") == "zh-CN"
    assert browser.text("#status") == "按住或点一下说话"
    browser.tap("page-language")
    assert browser.text("#status") == "Hold or tap to talk"


def test_a_minute_is_the_limit(scene: Scene) -> None:
    browser = scene.open()
    browser.tap("talk")
    browser.listen_for("0:01")
    browser.run(  # as if the microphone had been open for another minute, of which no piece had come through
        "const node = window.heard.gatherers.at(-1);"
        "node.port.onmessage({data: new Float32Array(60 * node.context.sampleRate)})"
    )
    wait_for(lambda: browser.notice == "audio_too_long")  # sent without another tap; so late that the server refuses it
    assert browser.text("#notice-advice") == "A question may take up to a minute."


def test_no_answer_from_the_chat_and_asking_again(scene: Scene) -> None:
    browser = scene.open()
    scene.chat.behaviour = status(500)
    browser.ask()
    wait_for(lambda: browser.notice == "no_chat_api")
    assert browser.text("#notice-title") == "No answer came" and "127.0.0.1" in browser.text("#notice-server")
    scene.chat.behaviour = answer(f"Here I am.\n{UNREADABLE}\nAnd here I go.")
    browser.tap("again")
    wait_for(lambda: "here I go" in browser.text(".answered .words"))
    browser.is_ready()
    assert browser.notice == "" and UNREADABLE in browser.text(".turn .wrong")


def test_chinese_without_its_model_says_how_to_install_it(scene: Scene) -> None:
    browser = scene.open()
    browser.driver.find_element(By.CSS_SELECTOR, "[value=chinese]").click()
    browser.ask()
    wait_for(lambda: browser.notice == "model_not_installed")
    assert "mirrorchat models install wenet-zh" in browser.text("#notice-server")


def test_without_https_it_says_what_to_do(scene: Scene) -> None:
    scene.browser.open(scene.server.url.replace("127.0.0.1", INSECURE_HOST), microphone=None)
    wait_for(lambda: scene.browser.notice == "insecure_page")
    assert "HTTPS" in scene.browser.text("#notice-title") and "127.0.0.1" in scene.browser.text("#notice-advice")


def test_a_microphone_that_is_not_allowed(scene: Scene) -> None:
    scene.browser.open(scene.server.url, microphone="denied")
    check_microphone(scene.browser, "microphone_denied", "The microphone is not allowed")


def test_no_microphone(scene: Scene) -> None:
    with closing(Browser(None)) as browser:
        browser.open(scene.server.url)
        check_microphone(browser, "microphone_missing", "There is no microphone")


def check_microphone(browser: Browser, code: str, title: str) -> None:
    """Assert that talking fails with a notice that says what to do, and that the page is ready for another try."""
    browser.is_ready()
    browser.tap("talk")
    wait_for(lambda: browser.notice == code)
    assert browser.text("#notice-title") == title and "talk again" in browser.text("#notice-advice")
    browser.is_ready()
    assert browser.at("talk").is_enabled()


def test_a_key_is_asked_for_and_a_busy_server_waited_for(guarded: Scene, axe: str) -> None:
    browser = guarded.browser
    browser.show_on(1280, 800, phone=False)
    browser.open(guarded.server.url)
    browser.wait_until("key")
    assert not browser.at("engines").is_displayed() and "pocketsphinx" not in browser.driver.page_source
    assert not browser.at("talk").is_enabled()
    check_accessible(browser, axe)
    check_quiet(browser)
    browser.at("key").send_keys("not-the-key-of-this-server", Keys.ENTER)
    wait_for(lambda: browser.text("#key-wrong") == "The server does not know this key.")
    browser.at("key").send_keys(KEY, Keys.ENTER)
    browser.is_ready()
    assert not browser.at("key-form").is_displayed()
    assert browser.run("return [Object.values(localStorage), document.cookie]") == [[], ""]
    check_busy(guarded)
    browser.driver.refresh()
    browser.is_ready()  # the tab still has the key


def check_busy(guarded: Scene) -> None:
    """Ask while the only place is taken, and again when it is free and the time that the server asks for is over."""
    browser = guarded.browser
    guarded.chat.behaviour = hang_before_headers
    taken = requests.post(
        f"{guarded.server.url}/process_audio",
        headers={"Authorization": f"Bearer {KEY}"},
        files={"audio": say_wav("hello")},
        data={"language": "en", "text": "Hi", "stream": "true", "response_format": "sse"},
        stream=True,
        timeout=30,
    )
    with taken:
        assert taken.status_code == 200
        browser.ask()
        wait_for(lambda: browser.notice == "server_busy")
        assert browser.text("#notice-title") == "The server is busy"
        assert re.fullmatch(r"Ask again in \d+ s", browser.text("#again")) and not browser.at("again").is_enabled()
    guarded.chat.behaviour = answer("Here I am.")
    wait_for(lambda: browser.text("#again") == "Ask again", 70.0)
    browser.tap("again")
    wait_for(lambda: browser.text(".answered .words") == "Here I am.")
    browser.is_ready()


def test_a_server_that_is_gone_is_said_in_words(scene: Scene) -> None:
    browser = scene.open()
    browser.tap("talk")
    browser.listen_for("0:01")
    browser.cdp("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.cdp("Network.emulateNetworkConditions", offline=True, **offline)
    browser.tap("talk")
    wait_for(lambda: browser.notice == "network_gone")
    browser.cdp("Network.emulateNetworkConditions", offline=False, **offline)
    assert browser.text("#again") == "Ask again"


# Screens


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (844, 390), (768, 1024)])
def test_it_fits_on_a_phone(scene: Scene, axe: str, width: int, height: int) -> None:
    browser = scene.open()
    browser.run("document.getElementById('engines').open = true")
    for language in ("en", "zh-CN"):
        browser.show_on(width, height, scheme="dark", motion="reduce")
        assert browser.run("return document.documentElement.lang") == language
        check_fits(browser)
        talk = browser.at("talk").rect
        assert talk["width"] >= 60 and talk["y"] + talk["height"] <= height  # on the screen, and large enough
        browser.tap("page-language")
    check_accessible(browser, axe)
