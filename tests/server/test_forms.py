"""Forms at their limits: each limit has its own message, and what is no multipart form is not read."""

from collections.abc import Mapping

import pytest
import requests
from support.checks import check_error
from support.running_server import RunningServer
from support.speech import say_wav
from support.usage import forget_peak, memory_mb, processor_s

ROUTES = ("/process_audio", "/v1/audio/transcriptions", "/v1/audio/voices")
FIRST_FIELDS = ("audio", "file", "audio_sample")
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


def post(server: RunningServer, route: str, body: bytes, headers: Mapping[str, str] = MULTIPART) -> requests.Response:
    return requests.post(f"{server.url}{route}", data=body, headers=headers, timeout=60)


@pytest.mark.parametrize(("route", "field"), list(zip(ROUTES, FIRST_FIELDS, strict=True)))
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/json", ""])
def test_another_body_is_refused_unread(embedded_server: RunningServer, route: str, field: str, kind: str) -> None:
    pid, body = embedded_server.worker_pid, b"a=1&" * 2_975_000  # 11.9 MB
    post(embedded_server, route, b"a=1")  # the first error of a route takes longer
    forget_peak(pid)
    used_s, used_mb = processor_s(pid), memory_mb(pid, "VmRSS")
    message = check_error(post(embedded_server, route, body, {"Content-Type": kind}), 400, "missing_field", field)
    assert "multipart/form-data" in message
    assert processor_s(pid) - used_s < 0.05
    assert memory_mb(pid, "VmHWM") - used_mb < 20


@pytest.mark.parametrize(("route", "most"), list(zip(ROUTES, (16, 512, 512), strict=True)))
def test_too_many_parts(embedded_server: RunningServer, route: str, most: int) -> None:
    body = PART % (b"language", b"english") * (most + 1) + b"--b--\r\n"
    assert f"more than {most} parts" in check_error(post(embedded_server, route, body), 413, "upload_too_large")


@pytest.mark.parametrize("route", ROUTES)
def test_too_large_a_field(embedded_server: RunningServer, route: str) -> None:
    message = check_error(post(embedded_server, route, PART % (b"text", b"a" * 600_000)), 413, "upload_too_large")
    assert "a field" in message and "500000 bytes" in message


def test_too_large_a_head_of_a_part(embedded_server: RunningServer) -> None:
    head = b"--b\r\nX-Letters: " + b"a" * 5_000_000
    assert "a field" in check_error(post(embedded_server, ROUTES[0], head), 413, "upload_too_large")


def test_too_large_an_upload(embedded_server: RunningServer) -> None:
    message = check_error(embedded_server.ask(bytes(13 * 1024 * 1024), "english"), 413, "upload_too_large", "audio")
    assert message == "the upload is larger than 12 MiB"


BROKEN = {
    "no end": PART % (b"language", b"english"),
    "no disposition": b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n",
    "no boundary": b"a" * 1000,
    "no text": b"--b\r\nContent-Disposition: form-data; name=\xff\r\n\r\nz\r\n--b--\r\n",
    "half a head": b"--b\r\nContent-Dispo",
    "empty": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_form(embedded_server: RunningServer, name: str) -> None:
    message = check_error(post(embedded_server, ROUTES[0], BROKEN[name]), 400, "invalid_request")
    assert "broken or not complete" in message


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=é", f"multipart/form-data; boundary={71 * chr(45)}"]
)
def test_a_form_without_a_boundary(embedded_server: RunningServer, kind: str) -> None:
    headers = {"Content-Type": kind.encode().decode("latin-1")}
    assert "boundary" in check_error(post(embedded_server, ROUTES[0], b"--b--", headers), 400, "invalid_request")


def test_a_form_holds_what_was_sent(embedded_server: RunningServer) -> None:
    """A file that looks like parts, fields in any order, and a preamble and an epilogue, which forms may have."""
    file = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n' + say_wav("yes") + b"\r\n"
    text = PART % (b"text", "Was heißt 你好?".encode())
    body = b"a preamble\r\n" + PART % (b"language", b"english") + file + text + PART % (b"response_format", b"json")
    answer = post(embedded_server, ROUTES[0], body + b"--b--\r\nan epilogue")
    assert answer.json()["transcript"] == "Was heißt 你好?"
