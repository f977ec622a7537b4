"""What many tests ask of a server's answers, and how they wait for what it does."""

import io
import socket
import time
from collections.abc import Callable

import numpy as np
import requests
import soundfile

from support.speech import say_wav


def check_error(response: requests.Response, status: int, code: str, param: str | None = None) -> str:
    """Assert the shape that every error has, and return its message."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert len(response.headers["X-Request-Id"]) == 32
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    message: str = error["message"]
    return message


def wait_for(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait until `condition` holds. Raises AssertionError when it does not within `limit_s` seconds."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


def check_wav(data: bytes) -> None:
    """Assert that the header says exactly what follows it: 24 kHz, mono, 16 bit."""
    assert data[:4] == b"RIFF" and data[8:16] == b"WAVEfmt "
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.samplerate, file.channels, file.subtype) == (24_000, 1, "PCM_16")
        samples = file.read(dtype="float32")
    assert data.count(b"data") and int.from_bytes(data[40:44], "little") == 2 * len(samples) == len(data) - 44
    assert len(samples) > 24_000 and np.abs(samples).max() > 0.05


def waiting(url: str) -> int:
    """Return how many callers wait for their turn."""
    lines = requests.get(f"{url}/metrics", timeout=5).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("mirrorchat_queue_depth "))))


def connected(port: int) -> socket.socket:
    """Return a connection on which a whole question has been sent."""
    body = requests.Request(
        "POST", "http://h/", files={"audio": say_wav("hello")}, data={"language": "en", "text": "Hi"}
    ).prepare()
    assert isinstance(body.body, bytes)
    head = f"POST /process_audio HTTP/1.1\r\nHost: localhost\r\nContent-Type: {body.headers['Content-Type']}\r\n"
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"{head}Content-Length: {len(body.body)}\r\n\r\n".encode() + body.body)
    return client
