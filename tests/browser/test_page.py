"""The page in a real Chromium against a real gunicorn: what people see, do and hear."""

import base64
import io
import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.browser import Browser
from support.chat_server import DONE, Exchange, answer, delta, hang_after, hang_before_headers, reasoning
from support.checks import check_error, wait_for
from support.page_scene import Scene, check_accessible, check_fits, check_quiet
from support.stream_client import Gate

from mirrorchat.server.page import HEADERS, KEPT_FOR_EVER, static_files

FIRST = "Little and often is the way, and aloud. Read what you would read anyway. "
SECOND = "Then speak with people who put up with your mistakes."
LONG = FIRST + "This is one of very many sentences that nobody would ever listen to. " * 12


# Served


def test_the_page_is_served_with_a_strict_policy(page_scene: Scene) -> None:
    response = requests.get(page_scene.server.url, timeout=5)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", response.text)
    assert "pocketsphinx" not in response.text  # what answers here is for those who may ask it


def test_its_files_are_kept_for_ever_at_an_address_of_their_contents(page_scene: Scene) -> None:
    html = requests.get(page_scene.server.url, timeout=5).text
    addresses = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert len(addresses) == 3
    modules = [name for name in static_files().contents if name.endswith(".js")]
    addresses += [f"static/{static_files().version}/{name}" for name in modules]
    for address in addresses:
        response = requests.get(f"{page_scene.server.url}/{address}", timeout=5)
        assert response.status_code == 200 and response.headers["Cache-Control"] == KEPT_FOR_EVER
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    older = requests.get(f"{page_scene.server.url}/static/0123456789abcdef/page.js", timeout=5)
    assert older.status_code == 200 and older.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["app.py", "..%2fapp.py", "%2e%2e/app.py", "index.html", "x" * 3000])
def test_there_are_no_other_files(page_scene: Scene, name: str) -> None:
    check_error(
        requests.get(f"{page_scene.server.url}/static/{static_files().version}/{name}", timeout=5), 404, "not_found"
    )


def test_every_text_is_there_in_both_languages(page_scene: Scene) -> None:
    browser = page_scene.open()
    script = "import(arguments[0]).then((module) => arguments[1](module.WORDS))"
    address = f"{page_scene.server.url}/static/{static_files().version}/words.js"
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


def run_module(page_scene: Scene, script: str, module: str, given: object) -> Any:
    """Run `script` on the page with the address of a module of its own, and return what it is done with."""
    address = f"{page_scene.server.url}/static/{static_files().version}/{module}"
    wrapped = f"(async function () {{{script}}}).apply(null, arguments)"
    return page_scene.browser.driver.execute_async_script(wrapped, address, given)


def test_a_recording_becomes_the_same_samples(page_scene: Scene) -> None:
    page_scene.open()
    samples = np.linspace(-1.25, 1.25, 3001, dtype=np.float32)
    blocks = [samples[:1024].tolist(), samples[1024:].tolist()]
    wav = base64.b64decode(run_module(page_scene, WAV_OF, "wav.js", blocks))
    found, rate_hz = soundfile.read(io.BytesIO(wav), dtype="int16")
    assert rate_hz == 44_100 and np.abs(found - np.clip(samples, -1, 1) * 32767).max() <= 0.51
    assert int.from_bytes(wav[4:8], "little") == len(wav) - 8 == 36 + 2 * len(samples)


def test_events_are_read_however_they_are_cut(page_scene: Scene) -> None:
    page_scene.open()
    events = [("text", {"delta": "你好，\n\nthere: 🙂"}), ("done", {"reply": "event: x"})]
    text = ": hello\n\n" + "".join(
        f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n: still working\n\n" for name, data in events
    )
    assert [tuple(event) for event in run_module(page_scene, EVENTS_OF, "events.js", text)] == events


# Talking


def test_a_question_is_heard_and_the_answer_seen_and_heard_as_it_comes(page_scene: Scene, axe: str) -> None:
    browser = page_scene.open()
    check_accessible(browser, axe)
    gate = Gate(FIRST, SECOND)
    page_scene.chat.behaviour = gate.behave
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


def test_held_space_bar_and_a_second_question_of_the_same_session(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = answer("Yes.")
    asked = len(page_scene.chat.requests)
    for _ in range(2):
        browser.key(Keys.SPACE, down=True)
        browser.listen_for("0:02")
        browser.key(Keys.SPACE, down=False)
        browser.wait_until("speaking")
        browser.is_ready()
    first, second = page_scene.chat.requests[asked:]
    assert "best way" in first.question
    assert [message["role"] for message in second.messages] == ["system", "user", "assistant", "user"]
    assert len(browser.driver.find_elements(By.CLASS_NAME, "turn")) == 2
    check_quiet(browser)


def test_held_with_a_finger(page_scene: Scene) -> None:
    """A finger that comes down is no permission to make sound yet; one that goes up is."""
    page_scene.chat.behaviour = answer("Yes.")
    browser = page_scene.open_on_phone()
    assert browser.run("return navigator.userActivation.hasBeenActive") is False
    browser.finger("talk", down=True)
    browser.listen_for("0:02")
    browser.finger("talk", down=False)
    wait_for(lambda: browser.state == "speaking" and browser.loudness() > 0.005)
    browser.is_ready()
    assert browser.text(".answered .words") == "Yes."
    check_quiet(browser)


def test_stop_is_silence_at_once_and_hangs_up(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = hang_after(LONG)
    browser.ask()
    wait_for(lambda: browser.state == "speaking" and browser.loudness() > 0.005)
    wait_for(lambda: browser.planned_until()[0] - browser.planned_until()[1] > 3.0)  # more is due
    browser.tap("stop")
    until, now = browser.planned_until()
    assert browser.state == "idle" and now < until
    wait_for(lambda: not browser.last_heard(24_000).any())  # a whole second: no pause between sentences is as long
    assert browser.planned_until()[1] < until  # it is not silent because all was said
    assert page_scene.chat.requests[-1].closed_early.wait(10)
    pieces = browser.pieces_count()
    assert browser.text(".print .stopped") == "stopped"
    wait_for(lambda: browser.planned_until()[1] > until)
    assert browser.pieces_count() == pieces and not browser.last_heard(2048).any()


def test_stop_while_it_thinks_hangs_up(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = hang_before_headers
    asked = len(page_scene.chat.requests)
    browser.ask()
    wait_for(lambda: len(page_scene.chat.requests) > asked)
    assert browser.state == "waiting"
    browser.tap("stop")
    assert page_scene.chat.requests[-1].closed_early.wait(10)
    assert browser.state == "idle" and browser.notice == ""


def test_a_model_that_thinks_is_said_to(page_scene: Scene, axe: str) -> None:
    browser = page_scene.open()
    gate = Gate(FIRST, SECOND)

    def thinks(exchange: Exchange) -> None:
        exchange.head()
        while not gate.opened.is_set():
            exchange.chunk(reasoning("Hmm, a zebra. "))
            exchange.wait(0.3)
        exchange.chunk(delta(FIRST) + delta(None, "stop") + DONE)
        exchange.end()

    page_scene.chat.behaviour = thinks
    browser.ask()
    with gate.open_at_the_end():
        wait_for(lambda: browser.text("#status") == "Thinking…")
        assert browser.state == "waiting" and browser.at("stop").is_enabled()
        check_accessible(browser, axe)
        browser.tap("page-language")
        assert browser.text("#status") == "正在思考…"
        browser.tap("page-language")
    wait_for(lambda: browser.text(".answered .words") == FIRST.strip())
    browser.is_ready()
    assert "zebra" not in browser.driver.page_source
    check_quiet(browser)


def test_talking_again_interrupts_and_is_answered(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = hang_after(LONG)
    browser.ask()
    wait_for(lambda: browser.state == "speaking" and browser.loudness() > 0.005)
    page_scene.chat.behaviour = answer("All right.")
    interrupted = page_scene.chat.requests[-1]
    browser.tap("talk")
    wait_for(lambda: browser.state == "recording" and browser.loudness() == 0.0)
    assert interrupted.closed_early.wait(10)
    browser.listen_for("0:02")
    browser.tap("talk")
    wait_for(lambda: browser.text(".answered .words") == "All right.")
    browser.wait_until("speaking")
    browser.is_ready()
    check_quiet(browser)


def test_forget_me_forgets_the_session(page_scene: Scene) -> None:
    browser = page_scene.open()
    assert not browser.at("forget").is_enabled()
    page_scene.chat.behaviour = answer("Yes.")
    browser.ask()
    browser.wait_until("speaking")
    browser.is_ready()
    browser.tap("forget")
    wait_for(lambda: browser.notice == "forgotten")
    assert browser.text(".turn") == "" and not browser.at("forget").is_enabled()
    requested = [
        what["request"] for name, what in browser.network() if name == "Network.requestWillBeSent"
    ]  # fmt: skip
    assert all(each["url"].startswith(f"{page_scene.server.url}/") for each in requested)  # and nothing from elsewhere
    deleted = [each["url"] for each in requested if each["method"] == "DELETE"]
    assert len(deleted) == 1 and re.search(r"/sessions/[\w-]{32}$", deleted[0])
    check_error(requests.delete(deleted[0], timeout=5), 404, "not_found", "session_id")


def test_the_page_names_the_host_that_questions_are_sent_to(page_scene: Scene) -> None:
    browser = page_scene.open()
    browser.run("document.getElementById('engines').open = true")
    assert f"@127.0.0.1:{page_scene.chat.port}" in browser.at("engine-list").text


def test_the_page_says_which_tier_hears_and_speaks_and_the_command_that_goes_up(page_scene: Scene, axe: str) -> None:
    browser = page_scene.open()
    browser.run("document.getElementById('engines').open = true")
    for tier, advice in (("Floor", "To go up a tier"), ("保底", "要升一档")):
        shown = browser.at("engine-list").text
        assert shown.count(f"{tier} · ") == 4 and f"{tier} · embedded · pocketsphinx" in shown
        command = browser.text("#engines-upgrade")
        assert command.startswith(advice) and command.endswith(".venv/bin/mirrorchat models install small")
        check_accessible(browser, axe)
        browser.tap("page-language")


def test_mandarin_of_the_floor_is_said_to_be_hard_to_understand(page_scene: Scene, axe: str) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = answer("你好，很高兴认识你。")
    browser.ask()
    wait_for(lambda: "hard to understand" in browser.text(".turn .wrong"))
    browser.is_ready()
    assert "Mandarin is hard to understand" in browser.text(".voice .reason")
    check_accessible(browser, axe)
    browser.tap("page-language")
    assert "很难听懂" in browser.text(".turn .wrong")
    browser.tap("page-language")


# Screens


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (844, 390), (768, 1024)])
def test_it_fits_on_a_phone(page_scene: Scene, axe: str, width: int, height: int) -> None:
    browser = page_scene.open()
    browser.run("document.getElementById('engines').open = true")
    for language in ("en", "zh-CN"):
        browser.show_on(width, height, scheme="dark", motion="reduce")
        assert browser.run("return document.documentElement.lang") == language
        check_fits(browser)
        talk = browser.at("talk").rect
        assert talk["width"] >= 60 and talk["y"] + talk["height"] <= height  # on the screen, and large enough
        browser.tap("page-language")
    check_accessible(browser, axe)


def test_detection_is_not_offered_where_nothing_detects(page_scene: Scene) -> None:
    browser = page_scene.open()
    assert not browser.at("detection").is_displayed()
    assert browser.text("label:has(:checked)") == "English"
