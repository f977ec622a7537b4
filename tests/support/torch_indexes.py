"""Package indexes on 127.0.0.1 that have builds of torch: pip's own (`/simple`), and those of PyTorch (`/whl/cu126`).

    with TorchIndexes({"simple": ["2.13.0"], "whl/cpu": ["2.13.0+cpu"]}) as indexes:
        ...  # pip with the index f"{indexes.url}/simple"
    indexes.taken  # [("whl/cpu", "2.13.0+cpu")]: which index, and which version

A wheel is a package of a few bytes. An index without versions answers 404.
"""

import io
import threading
import zipfile
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote, unquote

STOP_LIMIT_S = 10.0


class TorchIndexes:
    """Serves `versions` of torch, by the path of the index, until the end of the block."""

    def __init__(self, versions: Mapping[str, Sequence[str]]) -> None:
        self.versions = dict(versions)
        self.asked: list[str] = []
        self.taken: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        cast(Any, self._server).indexes = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "TorchIndexes":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_LIMIT_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def forget(self) -> None:
        """Begin anew to count what is asked for and taken."""
        self.asked.clear()
        self.taken.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: tests read `asked` and `taken`."""

    def do_GET(self) -> None:
        indexes = cast(TorchIndexes, cast(Any, self.server).indexes)
        index, _, name = unquote(self.path).strip("/").rpartition("/")
        versions = indexes.versions.get(index, [])
        if name == "torch":
            indexes.asked.append(index)
            links = "".join(f'<a href="/{index}/{quote(_wheel_name(version))}">torch</a>' for version in versions)
            self._answer(200 if versions else 404, f"<!DOCTYPE html><html>{links}</html>".encode())
            return
        found = [version for version in versions if _wheel_name(version) == name]
        if found:
            indexes.taken.append((index, found[0]))
        self._answer(200 if found else 404, _wheel(found[0]) if found else b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _wheel_name(version: str) -> str:
    return f"torch-{version}-py3-none-any.whl"


def _wheel(version: str) -> bytes:
    """Return a wheel of torch that holds nothing but its version."""
    packed = io.BytesIO()
    folder = f"torch-{version}.dist-info"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("torch/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", f"torch/__init__.py,,\n{folder}/RECORD,,\n")
    return packed.getvalue()
