"""A real Chromium whose microphone plays a wav, driven as a person would, with an ear at its loudspeakers."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from mirrorchat.audio.samples import Samples
from support.checks import wait_for

PROBE = Path(__file__).with_name("sound_probe.js")
# A sandbox and a GPU are what containers lack.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
# Which the browser takes for 127.0.0.1: names, all of .example, and an address in a local network.
INSECURE_HOST = "mirror.example"
LAN_ADDRESS = "192.168.178.20"


@dataclass(frozen=True)
class Piece:
    """A piece of speech as the page handed it to the loudspeakers: to begin `when`, said at `now` (seconds)."""

    when: float
    now: float
    rate: int
    samples: Samples

    @property
    def end(self) -> float:
        return self.when + len(self.samples) / self.rate


class Browser:
    """One browser window. `microphone`: the wav that its microphone plays once; None: it has no microphone.

    Raises pytest's Skipped where Chromium or its driver is missing.
    """

    def __init__(self, microphone: Path | None) -> None:
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            pytest.skip("chromium absent: apt install chromium chromium-driver")
        options = ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        flags = [*FLAGS, f"--host-resolver-rules=MAP *.example 127.0.0.1, MAP {LAN_ADDRESS} 127.0.0.1", "--lang=en-GB"]
        if microphone is not None:
            flags += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}%noloop"]
        for flag in flags:
            options.add_argument(flag)
        self.driver = Chrome(options=options, service=Service(driver))
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=PROBE.read_text(encoding="utf-8"))

    def close(self) -> None:
        self.driver.quit()

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, url: str, *, microphone: str | None = "granted") -> None:
        """Open the page at `url` with the microphone `granted` or `denied`, or unasked; forget what the logs held."""
        if microphone is not None:  # which a page without HTTPS cannot ask for
            self.cdp("Browser.setPermission", permission={"name": "microphone"}, setting=microphone, origin=url)
        self.logs("browser"), self.logs("performance")
        self.driver.get(url)

    def show_on(self, width: int, height: int, *, scheme: str = "light", phone: bool = True, motion: str = "") -> None:
        """Let the page be seen on a screen of this size in CSS pixels."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )  # fmt: skip
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=phone)
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in features.items()])

    # What is on the page

    def at(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, selector: str) -> str:
        """Return the text of the last element of a CSS selector, "" for none."""
        script = "return [...document.querySelectorAll(arguments[0])].at(-1)?.innerText.trim() ?? ''"
        return cast(str, self.run(script, selector))

    @property
    def state(self) -> str:
        return cast(str, self.run("return document.body.dataset.state"))

    @property
    def notice(self) -> str:
        """Return the code of the notice that is shown, "" for none."""
        return cast(str, self.run("return document.getElementById('notice').dataset.code ?? ''"))

    def wait_until(self, state: str) -> None:
        wait_for(lambda: self.state == state)

    def is_ready(self) -> None:
        self.wait_until("idle")

    # What a person does

    def tap(self, name: str) -> None:
        self.at(name).click()

    def ask(self) -> None:
        """Tap, let the microphone play most of examples/question.wav, tap again."""
        self.tap("talk")
        self.listen_for("0:02")
        self.tap("talk")

    def listen_for(self, clock: str) -> None:
        """Wait until the clock of the recording says `clock`."""
        wait_for(lambda: self.text("#clock").startswith(clock))

    def finger(self, name: str, *, down: bool) -> None:
        """Lay a finger on an element, or lift it."""
        place = self.at(name).rect
        middle = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
        kind, points = ("touchStart", [middle]) if down else ("touchEnd", [])
        self.cdp("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def key(self, key: str, *, down: bool) -> None:
        actions = ActionChains(self.driver)
        (actions.key_down(key) if down else actions.key_up(key)).perform()

    # What is heard

    def pieces(self) -> list[Piece]:
        """Return what the page has handed to the loudspeakers since it was opened."""
        found = self.run("return window.heard.pieces")
        return [Piece(each["when"], each["now"], each["rate"], np.array(each["samples"], np.float32)) for each in found]

    def pieces_count(self) -> int:
        return cast(int, self.run("return window.heard.pieces.length"))

    def planned_until(self) -> tuple[float, float]:
        """Return until when speech was handed over, and the present time of the same clock, in seconds."""
        found = self.run(
            "const {pieces, ears} = window.heard, last = pieces.at(-1);"
            "return [last.when + last.samples.length / last.rate,"
            " ears.find((ear) => ear.context.sampleRate === 24000).context.currentTime]"
        )
        return found[0], found[1]

    def last_heard(self, samples: int) -> Samples:
        """Return the last samples (at most 32768, at 24 kHz) that reached the loudspeakers."""
        return np.array(self.run("return window.heard.last(arguments[0])", samples), np.float32)

    def loudness(self) -> float:
        """Return the root mean square of the last 85 ms at the loudspeakers."""
        last = self.last_heard(2048)
        return float(np.sqrt(np.mean(last**2))) if len(last) else 0.0

    # What the browser noted

    def logs(self, kind: str) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], self.driver.get_log(kind))  # type: ignore[no-untyped-call]

    def network(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what the network did since this was last asked: the name of each event and its parameters."""
        for entry in self.logs("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"].startswith("Network."):
                yield message["method"], message["params"]
