"""A real server on 127.0.0.1 that speaks as Hugging Face's hub, ModelScope, GitHub and a package index do, or fails.

    with HubServer() as server:
        server.publish("coqui/XTTS-v2", "config.json", b"...")
        server.misbehave("cdn", "config.json", Fault(cut_after=100))
        ...
    server.sent["cdn", "config.json"]  # bytes of bodies

Places: `head` (the hub's answer about a file), `cdn` (the hub's bytes, where `resolve` redirects to), `listing` and
`scope` (ModelScope's list of a repository or a data set, and its bytes), `github` (the bytes of a release page),
`wheel` (those of the package index). Each fault answers one request; then all is well again.
"""

import hashlib
import json
import re
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STOP_LIMIT_S = 10.0


@dataclass(frozen=True)
class Fault:
    """How one request is answered. `body` takes the place of the file's; `claims` is the size that is announced."""

    status: int = 0
    retry_after_s: int | None = None
    cut_after: int | None = None
    drip_s: float | None = None
    body: bytes | None = None
    claims: int | None = None
    ignores_range: bool = False
    shifts_range: int = 0


class HubServer:
    """Serves what was published, until the end of the block."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.sent: Counter[tuple[str, str]] = Counter()
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.hides_sizes = False  # of files: their bytes come without Content-Length, as some mirrors send them
        self.stopping = threading.Event()
        self._faults: defaultdict[tuple[str, str], list[Fault]] = defaultdict(list)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        cast(Any, self._server).hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_LIMIT_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn_url(self) -> str:
        """Return the address of the hub's bytes: another host than the hub's, as theirs is."""
        return f"http://localhost:{self._server.server_port}"

    def publish(self, repository: str, name: str, content: bytes) -> None:
        """Put a file into a repository, on the hub and on ModelScope."""
        self.files[repository, name] = content

    def publish_wheel(self, package: str, version: str, content: bytes) -> None:
        """Put a wheel into the package index, whose pages are under /simple."""
        self.files["wheels", f"{package.replace('-', '_')}-{version}-py3-none-any.whl"] = content

    def misbehave(self, place: str, name: str, *faults: Fault) -> None:
        """Answer the next requests for `name` at `place` with `faults`, one each."""
        self._faults[place, name].extend(faults)

    def fault(self, place: str, name: str) -> Fault:
        """Return how the present request is answered."""
        waiting = self._faults[place, name]
        return waiting.pop(0) if waiting else Fault()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: a client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return cast(HubServer, cast(Any, self.server).hub)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: tests read `requests`."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_CONNECT(self) -> None:
        self._route()

    def _route(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/(cdn|oss)/([^/]+/[^/]+)/([^/]+)", path):
            place = "cdn" if found[1] == "cdn" else "scope"
            return self._file(place, found[2], found[3])
        if found := re.fullmatch(r"/([^/]+/[^/]+)/releases/download/[^/]+/([^/]+)", path):
            location = f"{self.hub.cdn_url}/release-assets/{found[1]}/{found[2]}?signature=abc"
            return self._answer(302, {"Location": location})
        if found := re.fullmatch(r"/release-assets/([^/]+/[^/]+)/([^/]+)", path):
            return self._file("github", found[1], found[2])
        if found := re.fullmatch(r"/simple/([^/]+)/", path):
            return self._page_of_wheels(found[1])
        if found := re.fullmatch(r"/wheels/([^/]+)", path):
            return self._file("wheel", "wheels", found[1])
        if found := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/[^/]+/([^/]+)", path):
            return self._file("cdn", found[1], found[2])
        if found := re.fullmatch(r"/models/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", path):
            return self._file("scope", found[1], found[2])
        if found := re.fullmatch(r"/api/v1/datasets/([^/]+/[^/]+)/oss/tree", path):
            return self._listing(found[1], is_model=False)
        if found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path):
            return self._listing(found[1], is_model=True)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", path):
            return self._resolve(found[1], found[2])
        return self._answer(404, {})

    def _resolve(self, repository: str, name: str) -> None:
        """Answer as the hub does: what the file is, and where its bytes are; those of small ones on the hub itself."""
        content = self.hub.files.get((repository, name))
        fault = self.hub.fault("head", name) if self.command == "HEAD" else Fault()
        if fault.status or content is None:
            missing = {"X-Error-Code": "EntryNotFound"} if content is None else {}
            return self._answer(fault.status or 404, missing | _retry(fault))
        if name.endswith(".json"):
            location = f"/api/resolve-cache/models/{repository}/{COMMIT}/{name}"
            return self._answer(307, {"X-Repo-Commit": COMMIT, "Location": location})
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content) if fault.claims is None else fault.claims),
            "Location": f"{self.hub.cdn_url}/cdn/{repository}/{name}?signature=abc",
        }
        return self._answer(302, headers)

    def _listing(self, repository: str, *, is_model: bool) -> None:
        """Answer as ModelScope does: a repository's list has checksums, a data set's has addresses."""
        fault = self.hub.fault("listing", repository)
        contents = {name: content for (place, name), content in self.hub.files.items() if place == repository}
        files = [
            {"Path": name, "Type": "blob", "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        ]
        objects = [
            {"Key": name, "Url": f"{self.hub.url}/oss/{repository}/{name}", "Size": len(content)}
            for name, content in contents.items()
        ]
        text = json.dumps({"Code": 200, "Data": {"Files": files} if is_model else objects}).encode()
        text = text if fault.body is None else fault.body
        if fault.drip_s is None:
            return self._answer(fault.status or 200, {}, text)
        self.send_response(200)
        self._send_headers({"Content-Length": str(len(text))})
        return self._send_body("listing", repository, text, fault)

    def _page_of_wheels(self, package: str) -> None:
        """Answer with the page of a package: a link to each wheel."""
        start = package.replace("-", "_") + "-"
        names = [name for place, name in self.hub.files if place == "wheels" and name.startswith(start)]
        if not names:
            return self._answer(404, {})
        links = "".join(f'<a href="{self.hub.url}/wheels/{name}">{name}</a>' for name in names)
        return self._answer(200, {"Content-Type": "text/html"}, f"<!DOCTYPE html><html>{links}</html>".encode())

    def _file(self, place: str, repository: str, name: str) -> None:
        fault = self.hub.fault(place, name)
        if "Range" in self.headers:
            self.hub.ranges.append(self.headers["Range"])
        content = self.hub.files.get((repository, name)) if fault.body is None else fault.body
        if fault.status or content is None:
            return self._answer(fault.status or 404, _retry(fault))
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = 0 if wanted is None or fault.ignores_range else int(wanted[1])
        if start >= len(content) > 0:
            return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
        headers = {"ETag": f'"{_git_sha1(content)}"', "X-Repo-Commit": COMMIT}
        if self.hub.hides_sizes:
            headers["Connection"] = "close"
            self.close_connection = True
        else:
            headers["Content-Length"] = str((len(content) if fault.claims is None else fault.claims) - start)
        if start:
            first = start + fault.shifts_range
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if start else 200)
        self._send_headers(headers)
        return self._send_body(place, name, content[start:], fault) if self.command == "GET" else None

    def _send_body(self, place: str, name: str, body: bytes, fault: Fault) -> None:
        body = body if fault.cut_after is None else body[: fault.cut_after]
        try:
            if fault.drip_s is None:
                self.hub.sent[place, name] += len(body)  # before: the client may be through before this thread goes on
                self.wfile.write(body)
            for index in range(len(body) if fault.drip_s is not None else 0):
                self.wfile.write(body[index : index + 1])
                self.hub.sent[place, name] += 1
                if self.hub.stopping.wait(fault.drip_s):
                    break
        except OSError:
            pass  # the client has enough
        if fault != Fault():
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        self._send_headers(headers | {"Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _send_headers(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _git_sha1(content: bytes) -> str:
    """Return the name of a file's content in git, which is the hub's ETag of small ones."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _retry(fault: Fault) -> dict[str, str]:
    return {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
