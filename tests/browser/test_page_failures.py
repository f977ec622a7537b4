"""What goes wrong, as the page says it: in words, with what to do, and without losing its way."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.browser import INSECURE_HOST, Browser
from support.chat_server import DONE, answer, chunked_stream, delta, hang_before_headers, in_turn, status, truncated
from support.checks import wait_for
from support.page_scene import KEY, Scene, Scenes, check_accessible, check_quiet
from support.running_server import UNLUCKY
from support.speech import say_wav
from support.stream_client import Gate


@pytest.fixture
def guarded_page(page_scenes: Scenes) -> Iterator[Browser]:
    """The page that asks for a key, where both storages throw."""
    browser = page_scenes.guarded.browser
    deny = "get() { throw new DOMException('no', 'SecurityError'); }"
    source = "".join(
        f"Object.defineProperty(window, '{name}', {{ {deny} }});" for name in ("sessionStorage", "localStorage")
    )
    added = browser.cdp("Page.addScriptToEvaluateOnNewDocument", source=source)
    browser.show_on(1280, 800, phone=False)
    browser.open(page_scenes.guarded.server.url)
    yield browser
    browser.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])


def test_too_short_a_press_is_said_in_words(page_scene: Scene) -> None:
    browser = page_scene.open()
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


def test_a_minute_is_the_limit(page_scene: Scene) -> None:
    browser = page_scene.open()
    browser.tap("talk")
    browser.listen_for("0:01")
    browser.run(  # as if the microphone had been open for another minute, of which no piece had come through
        "const node = window.heard.gatherers.at(-1);"
        "node.port.onmessage({data: new Float32Array(60 * node.context.sampleRate)})"
    )
    wait_for(lambda: browser.notice == "audio_too_long")  # sent without another tap; so late that the server refuses it
    assert browser.text("#notice-advice") == "A question may take up to a minute."


def test_no_answer_from_the_chat_is_seen_and_heard_and_asking_again(page_scene: Scene, axe: str) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = status(500)
    browser.ask()
    wait_for(lambda: browser.notice == "no_chat_api")
    assert browser.text("#notice-title") == "No answer came" and "127.0.0.1" in browser.text("#notice-server")
    assert browser.state == "speaking" and browser.at("stop").is_enabled()
    wait_for(lambda: browser.loudness() > 0.005)
    browser.is_ready()  # it was said to its end
    until, now = browser.planned_until()
    assert now >= until and browser.notice == "no_chat_api"
    check_accessible(browser, axe)
    page_scene.chat.behaviour = answer(f"Here I am.\nAn {UNLUCKY} sentence is this.\nAnd here I go.")
    browser.tap("again")
    wait_for(lambda: "here I go" in browser.text(".answered .words"))
    browser.is_ready()
    assert browser.notice == "" and UNLUCKY in browser.text(".turn .wrong")


def test_reasoning_that_was_taken_for_an_answer_leaves_the_page(page_scene: Scene) -> None:
    browser = page_scene.open()
    gate = Gate("The sky is what they ask about. That is easy. ", "</think>Blue.")
    page_scene.chat.behaviour = in_turn(gate.behave, answer("Blue."))  # after which others' answers are no reasoning
    browser.ask()
    with gate.open_at_the_end():
        wait_for(lambda: "sky" in browser.text(".answered .words"))
    wait_for(lambda: browser.text(".answered .words") == "Blue.")
    browser.is_ready()
    assert browser.notice == "" and "sky" not in browser.text("#conversation")
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".print .voice")) == 1
    check_quiet(browser)


def test_the_reason_can_be_interrupted(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = status(500)
    browser.ask()
    wait_for(lambda: browser.notice == "no_chat_api" and browser.loudness() > 0.005)
    browser.tap("stop")
    assert browser.state == "idle"
    wait_for(lambda: not browser.last_heard(2048).any())


def test_an_answer_that_breaks_off_is_called_so_and_what_came_of_it_stays(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = truncated("Blue, mostly. ", "But at")
    browser.ask()
    wait_for(lambda: browser.notice == "chat_interrupted")
    assert browser.text("#notice-title") == "The answer broke off" and "127.0.0.1" in browser.text("#notice-server")
    assert "None of the chat services" not in browser.text("#notice-advice") and browser.at("again").is_enabled()
    browser.tap("page-language")
    assert browser.text("#notice-title") == "回答中断了" and "聊天服务" in browser.text("#notice-advice")
    browser.tap("page-language")
    browser.is_ready()
    assert browser.text(".answered .words") == "Blue, mostly. But at"


@pytest.mark.parametrize(("reason", "said"), [("length", "length limit"), ("content_filter", "filter")])
def test_an_answer_that_was_cut_off_says_so(page_scene: Scene, axe: str, reason: str, said: str) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = chunked_stream(delta("It begins, and it"), delta(None, reason), DONE)
    browser.ask()
    wait_for(lambda: said in browser.text(".turn .wrong"))
    browser.is_ready()
    assert browser.text(".answered .words") == "It begins, and it"
    check_accessible(browser, axe)
    browser.tap("page-language")
    assert "聊天服务" in browser.text(".turn .wrong")
    browser.tap("page-language")
    check_quiet(browser)


def test_code_is_seen_in_its_lines(page_scene: Scene) -> None:
    browser = page_scene.open()
    code = "```python\nfor day in week:\n    rest(day)\n```"  # of which the speech says: please see the screen
    page_scene.chat.behaviour = answer(code)
    browser.ask()
    wait_for(lambda: browser.text(".stage-total") != "")
    browser.is_ready()
    assert browser.text(".answered .words") == code


def test_a_reply_without_words_is_seen_and_the_page_is_ready_again(page_scene: Scene) -> None:
    browser = page_scene.open()
    page_scene.chat.behaviour = answer("😀👍")
    browser.ask()
    browser.wait_until("speaking")
    browser.is_ready()
    assert browser.text(".answered .words") == "😀👍" and browser.notice == ""
    check_quiet(browser)


def test_chinese_without_its_model_says_how_to_install_it(page_scene: Scene) -> None:
    browser = page_scene.open()
    browser.driver.find_element(By.CSS_SELECTOR, "[value=chinese]").click()
    browser.ask()
    wait_for(lambda: browser.notice == "model_not_installed")
    assert "mirrorchat models install wenet-zh" in browser.text("#notice-server")


def test_without_https_it_says_what_to_do(page_scene: Scene) -> None:
    page_scene.browser.open(page_scene.server.url.replace("127.0.0.1", INSECURE_HOST), microphone=None)
    wait_for(lambda: page_scene.browser.notice == "insecure_page")
    assert "HTTPS" in page_scene.browser.text("#notice-title") and "127.0.0.1" in page_scene.browser.text(
        "#notice-advice"
    )


def test_a_microphone_that_is_not_allowed(page_scene: Scene) -> None:
    page_scene.browser.open(page_scene.server.url, microphone="denied")
    check_microphone(page_scene.browser, "microphone_denied", "The microphone is not allowed")


def test_no_microphone(page_scene: Scene) -> None:
    with closing(Browser(None)) as browser:
        browser.open(page_scene.server.url)
        check_microphone(browser, "microphone_missing", "There is no microphone")


def check_microphone(browser: Browser, code: str, title: str) -> None:
    """Assert that talking fails with a notice that says what to do, and that the page is ready for another try."""
    browser.is_ready()
    browser.tap("talk")
    wait_for(lambda: browser.notice == code)
    assert browser.text("#notice-title") == title and "talk again" in browser.text("#notice-advice")
    browser.is_ready()
    assert browser.at("talk").is_enabled()


def test_a_key_is_asked_for_and_a_busy_server_waited_for(page_scenes: Scenes, axe: str) -> None:
    guarded = page_scenes.guarded
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


def test_a_server_that_is_gone_is_said_in_words(page_scene: Scene) -> None:
    browser = page_scene.open()
    browser.tap("talk")
    browser.listen_for("0:01")
    browser.cdp("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.cdp("Network.emulateNetworkConditions", offline=True, **offline)
    browser.tap("talk")
    wait_for(lambda: browser.notice == "network_gone")
    browser.cdp("Network.emulateNetworkConditions", offline=False, **offline)
    assert browser.text("#again") == "Ask again"


def test_talking_while_it_forgets(page_scene: Scene) -> None:
    """What is said while the server is slow to forget goes on: the microphone is never open unseen."""
    browser = page_scene.open()
    page_scene.chat.behaviour = answer("Yes.")
    browser.ask()
    browser.wait_until("speaking")
    browser.is_ready()
    browser.run(
        "const real = window.fetch; window.fetch = async (path, options) => {"
        " if (options.method === 'DELETE') await new Promise((go) => { window.forgetNow = go; });"
        " return real(path, options); }"
    )
    browser.tap("forget")
    assert browser.state == "idle" and browser.text(".turn") == "" and browser.notice == ""
    browser.tap("talk")
    browser.listen_for("0:02")
    browser.run("window.forgetNow()")
    wait_for(lambda: browser.notice == "forgotten")
    assert browser.state == "recording" and browser.at("stop").is_enabled()
    browser.tap("talk")
    wait_for(lambda: browser.text(".answered .words") == "Yes.")
    browser.is_ready()
    assert browser.at("forget").is_enabled()  # the new session


def test_nothing_may_be_stored(guarded_page: Browser) -> None:
    """Browsers can be told to keep nothing: the page then remembers the key by itself."""
    guarded_page.wait_until("key")
    guarded_page.at("key").send_keys(KEY, Keys.ENTER)
    guarded_page.is_ready()
    assert guarded_page.notice == ""
