"""HTTPS on a LAN: the local authority's certificate, and real nginx and Caddy in front of the server."""

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from support.chat_server import ChatServer, answer, hang_before_headers
from support.checks import check_error, wait_for
from support.nginx import Nginx, needs_nginx
from support.places import ROOT
from support.running_server import RunningServer, free_port
from support.speech import say_wav

MAKE = ROOT / "deploy" / "make_certificate"
CADDY = shutil.which("caddy")
NAMES = "localhost, 127.0.0.1, speech.example"


def make(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MAKE, folder, *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def curl(authority: Path, url: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Call `url` as a caller who trusts `authority` and nobody else."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--cacert", str(authority), *more, url]
    return subprocess.run(command, capture_output=True, timeout=90)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    made = make(folder, "localhost", "127.0.0.1", "speech.example")
    assert made.returncode == 0, made.stdout
    return folder


def test_a_certificate_is_for_the_names_given_and_nothing_is_overwritten(tmp_path: Path) -> None:
    assert make(tmp_path, "speech.local", "192.0.2.7", "2001:db8::7").returncode == 0
    authority, server = tmp_path / "ca.crt", tmp_path / "server.crt"
    text = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", server], capture_output=True, text=True).stdout
    for name in ("DNS:speech.local", "IP Address:192.0.2.7", "IP Address:2001:DB8:0:0:0:0:0:7", "CA:FALSE"):
        assert name in text
    verified = subprocess.run(["openssl", "verify", "-CAfile", authority, server], capture_output=True)
    assert verified.returncode == 0
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"ca.crt", "ca.key", "server.crt", "server.key"}
    again = make(tmp_path, "other.local")
    assert again.returncode == 1 and "is there already" in again.stdout
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_authority_signs_again(tmp_path: Path) -> None:
    assert make(tmp_path, "first.local").returncode == 0
    authority = (tmp_path / "ca.crt").read_bytes()
    for name in ("server.crt", "server.key"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    assert make(tmp_path).returncode == 0  # for this machine's own names
    assert (tmp_path / "ca.crt").read_bytes() == authority
    (tmp_path / "ca.key").unlink()
    (tmp_path / "server.crt").unlink()
    (tmp_path / "server.key").unlink()
    assert make(tmp_path).returncode == 1  # a CA that cannot sign is not replaced


@pytest.mark.parametrize("name", ["a b", "a,DNS:b", "$(id)", "*.*\n"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    refused = make(tmp_path / "new", name)
    assert refused.returncode == 1 and "neither a name nor an address" in refused.stdout
    assert not (tmp_path / "new").exists()


@contextmanager
def secure_nginx(folder: Path, backend_port: int, certificates: Path) -> Iterator[tuple[str, Nginx]]:
    """Run nginx with nginx.conf and nginx-https.conf; yield the address of HTTPS, and nginx."""
    site, port = folder / "site", free_port()
    site.mkdir()
    for name in ("server.crt", "server.key"):
        shutil.copy(certificates / name, site)
    text = (ROOT / "deploy" / "nginx-https.conf").read_text(encoding="utf-8")
    moved = {"listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;", "/etc/nginx/mirrorchat/": f"{site}/"}
    for old, new in moved.items():
        assert old in text
        text = text.replace(old, new)
    (site / "nginx-https.conf").write_text(text, encoding="utf-8")
    with Nginx(folder, backend_port) as proxy:
        yield f"https://127.0.0.1:{port}", proxy


@needs_nginx
def test_nginx_with_the_local_authority(tmp_path: Path, embedded_server: RunningServer, certificates: Path) -> None:
    (tmp_path / "question.wav").write_bytes(say_wav("hello there"))
    authority = certificates / "ca.crt"
    fields = ["-F", f"audio=@{tmp_path}/question.wav", "-F", "language=english", "-F", "text=Hi"]
    with secure_nginx(tmp_path, embedded_server.port, certificates) as (url, proxy):
        answer = curl(authority, f"{url}/process_audio", *fields)
        assert answer.returncode == 0 and answer.stdout[:4] == b"RIFF", answer.stderr
        stranger = curl(Path("/etc/ssl/certs/ca-certificates.crt"), f"{url}/readyz")
        assert stranger.returncode in (60, 77)  # who does not trust the authority is told
        plain = requests.post(f"{proxy.url}/process_audio?x=1", timeout=10, allow_redirects=False)
        assert plain.status_code == 308
        assert plain.headers["Location"] == "https://127.0.0.1/process_audio?x=1"
        old = curl(authority, f"{url}/readyz", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")
        assert old.returncode == 35


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer("Here I am.")) as running:
        yield running


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, chat: ChatServer) -> Iterator[RunningServer]:
    """A server that asks for no key, limits addresses, and knows the names of the proxy in front of it."""
    names = {"MIRRORCHAT_ALLOWED_HOSTS": NAMES}
    folder = tmp_path_factory.mktemp("limited")
    with RunningServer(folder, environ=names, rate_limit_per_minute=20, chatgpt_apis=[chat.api()]) as running:
        yield running


def check_names_and_pages(port: int, authority: Path, other_name: bytes) -> None:
    """Assert who may use a server without keys through HTTPS on `port`: its own page, by the names that are listed.

    `other_name` is in the response to a request by another name.
    """

    def called(name: str, *headers: str) -> bytes:
        more = [word for header in headers for word in ("-H", header)]
        where = ["--resolve", f"{name}:{port}:127.0.0.1", "--interface", "127.0.0.8"]
        return curl(authority, f"https://{name}:{port}/engines", *where, *more).stdout

    for name in ("speech.example", "127.0.0.1"):
        assert b"embedded" in called(name, f"Origin: https://{name}:{port}", "Sec-Fetch-Site: same-origin")
        assert b"embedded" in called(name, f"Origin: https://{name}:{port}")
        assert b"foreign_page" in called(name, "Origin: https://evil.example")
        assert b"foreign_page" in called(name, f"Origin: http://{name}:{port}")
    assert b"embedded" in called("localhost", "X-Forwarded-Host: evil.example")
    other = called("localhost", f"Host: evil.example:{port}", "X-Forwarded-Host: localhost")
    assert other_name in other and b"embedded" not in other


@needs_nginx
def test_through_nginx_a_caller_is_its_own_address_and_no_other(
    tmp_path: Path, limited: RunningServer, certificates: Path
) -> None:
    authority = certificates / "ca.crt"
    with secure_nginx(tmp_path, limited.port, certificates) as (url, _):
        statuses = []
        for number in range(60):  # whoever they say they are, all come from one address
            forged = ["-H", f"X-Forwarded-For: 192.0.2.{number}", "--interface", "127.0.0.9"]
            status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
            statuses.append(curl(authority, f"{url}/openapi.json", *forged, *status).stdout.decode())
            if statuses[-1] != "200":
                break
    assert len(statuses) > 20 and statuses[-1] == "429"
    # what a proxy on this machine says is believed: of that caller, and of another
    refused, other = (
        requests.get(f"{limited.url}/openapi.json", headers={"X-Forwarded-For": address}, timeout=10)
        for address in ("127.0.0.9", "192.0.2.9")
    )
    check_error(refused, 429, "rate_limit_exceeded")
    assert other.status_code == 200


@needs_nginx
def test_names_and_pages_through_nginx(tmp_path: Path, limited: RunningServer, certificates: Path) -> None:
    with secure_nginx(tmp_path, limited.port, certificates) as (url, _):
        check_names_and_pages(int(url.rpartition(":")[2]), certificates / "ca.crt", b"unknown_host")


@needs_nginx
def test_http_is_sent_to_https_and_its_errors_are_not(
    tmp_path: Path, embedded_server: RunningServer, certificates: Path
) -> None:
    with secure_nginx(tmp_path, embedded_server.port, certificates) as (url, proxy):
        plain = requests.get(f"{url.replace('https', 'http')}/a?b=c", timeout=10, allow_redirects=False)
        assert (plain.status_code, plain.headers["Location"]) == (308, f"{url}/a?b=c")
        too_long = requests.get(f"{proxy.url}/{'a' * 40_000}", timeout=10, allow_redirects=False)
        assert (too_long.status_code, too_long.json()["error"]["code"]) == (414, "url_too_long")


@pytest.mark.skipif(CADDY is None, reason="caddy is not installed")
def test_names_and_pages_through_caddy(tmp_path: Path, limited: RunningServer) -> None:
    with running_caddy(tmp_path, limited.port) as (port, _, authority):
        check_names_and_pages(port, authority, b"")  # which Caddy itself does not serve


@contextmanager
def running_caddy(folder: Path, backend_port: int) -> Iterator[tuple[int, int, Path]]:
    """Run deploy/Caddyfile with its ports and folders moved; yield the ports of HTTPS and HTTP, and its authority."""
    assert CADDY is not None
    port, plain_port = free_port(), free_port()
    # nothing of this machine is made to trust its authority
    moved = f"{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {plain_port}\n\thttps_port {port}\n\tservers {{"
    text = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    assert text.count("{\n\tservers {") == 1
    (folder / "Caddyfile").write_text(text.replace("{\n\tservers {", moved), encoding="utf-8")
    environ = os.environ | {
        "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config"),
        "MIRRORCHAT_PORT": str(backend_port), "MIRRORCHAT_ALLOWED_HOSTS": NAMES, "GOMAXPROCS": "1",
    }  # fmt: skip
    with (folder / "caddy.log").open("wb") as log:
        process = subprocess.Popen([CADDY, "run", "--config", str(folder / "Caddyfile")], env=environ, stderr=log)
    try:
        authority = folder / "data/caddy/pki/authorities/local/root.crt"
        answered = (0, 22)  # 22: with an error
        wait_for(
            lambda: authority.exists() and curl(authority, f"https://localhost:{port}/readyz").returncode in answered
        )
        yield port, plain_port, authority
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.skipif(CADDY is None, reason="caddy is not installed")
def test_caddy_without_a_server_says_so(tmp_path: Path) -> None:
    with running_caddy(tmp_path, free_port()) as (port, _, authority):
        head, _, body = curl(authority, f"https://localhost:{port}/readyz", "--include").stdout.partition(b"\r\n\r\n")
    assert head.split()[1] == b"503" and b"retry-after: 5" in head.lower()
    assert json.loads(body)["error"]["code"] == "unavailable"


@pytest.mark.skipif(CADDY is None, reason="caddy is not installed")
def test_caddy(tmp_path: Path, limited: RunningServer, chat: ChatServer) -> None:
    (tmp_path / "question.wav").write_bytes(say_wav("hello there"))
    (tmp_path / "large").write_bytes(bytes(13 * 1024 * 1024))
    fields = ["-F", f"audio=@{tmp_path}/question.wav", "-F", "language=english", "-F", "text=Hi"]
    with running_caddy(tmp_path, limited.port) as (port, plain_port, authority):
        url = f"https://localhost:{port}/process_audio"
        for more in ([], ["-F", "stream=true"]):
            answered = curl(authority, url, *fields, *more)
            assert answered.returncode == 0 and answered.stdout[:4] == b"RIFF", answered.stderr
        plain = requests.get(f"http://localhost:{plain_port}/readyz", timeout=10, allow_redirects=False)
        assert plain.status_code == 308 and plain.headers["Location"].startswith("https://localhost")
        large = curl(authority, url, "-F", f"audio=@{tmp_path}/large")
        assert large.returncode == 22 and b"upload_too_large" in large.stdout
        chat.behaviour = hang_before_headers
        for more in ([], ["-F", "stream=true", "-F", "response_format=sse"]):
            before = len(chat.requests)
            assert curl(authority, url, *fields, *more, "--max-time", "2").returncode == 28
            assert chat.requests[before].closed_early.wait(10)  # who hangs up ends the turn
