"""A running server with keys, two chat APIs and a folder for voices, and OpenAI's own clients for it."""

import io
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import requests
from openai import OpenAI

from mirrorchat.audio.samples import Audio
from support.chat_server import ChatServer
from support.places import ROOT
from support.running_server import RunningServer

KEY_A, KEY_B = "key-a-0123456789abcdef", "key-b-0123456789abcdef"
MODEL, OTHER_MODEL = "first-model", "vendor/second-model"
QUESTION_FILE = ROOT / "examples" / "question.wav"
QUESTION = "What is the best way to learn a language"


@dataclass(frozen=True)
class Scene:
    """The server, its two chat APIs in order, the folder of its voices, and the clients, which end with the scene."""

    server: RunningServer
    chats: tuple[ChatServer, ChatServer]
    voices_dir: Path
    clients: ExitStack

    @property
    def base_url(self) -> str:
        return f"{self.server.url}/v1"

    def client(self, key: str = KEY_A) -> OpenAI:
        """Return the official client, as its users make it."""
        return self.clients.enter_context(OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=60))

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request that the official client would not."""
        headers = {"Authorization": f"Bearer {KEY_A}"} | options.pop("headers", {})
        return requests.request(method, f"{self.base_url}{path}", headers=headers, timeout=60, **options)

    def files(self) -> list[str]:
        """Return the names of all that is kept of voices."""
        return sorted(path.name for path in self.voices_dir.iterdir()) if self.voices_dir.exists() else []

    def wait_until_idle(self) -> None:
        """Wait until no turn runs: a helper may hold its place a moment longer than the answer."""
        limit = time.monotonic() + 60.0
        while "mirrorchat_turns_running 0.0" not in self._metrics():
            assert time.monotonic() < limit, self._metrics()
            time.sleep(0.05)

    def _metrics(self) -> str:
        response = requests.get(f"{self.server.url}/metrics", headers={"Authorization": f"Bearer {KEY_A}"}, timeout=10)
        return response.text


@contextmanager
def open_scene(folder: Path, **settings: Any) -> Iterator[Scene]:
    """Start it all."""
    voices = folder / "voices"
    with ChatServer() as first, ChatServer() as second:
        apis = [first.api(model=MODEL), second.api(model=OTHER_MODEL)]
        with (
            RunningServer(
                folder,
                api_keys=[KEY_A, KEY_B],
                chatgpt_apis=apis,
                chat_cooldown_s=0.0,
                voices_dir=str(voices),
                **settings,
            ) as server,
            ExitStack() as clients,
        ):
            yield Scene(server, (first, second), voices, clients)


def heard(data: bytes) -> Audio:
    """Return the sound in a file of any format as players hear it, mono."""
    with av.open(io.BytesIO(data), "r") as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler("flt", "mono", stream.rate)
        frames = [each for frame in file.decode(stream) for each in resampler.resample(frame)]
        return Audio(np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), stream.rate)


def heard_pcm(data: bytes) -> Audio:
    """Return the sound in 16-bit samples at 24 kHz."""
    return Audio((np.frombuffer(data, "<i2") / 32768.0).astype(np.float32), 24_000)


def is_loud(audio: Audio) -> bool:
    """Return whether it sounds like speech and not like silence."""
    return float(np.abs(audio.samples).max()) > 0.1
