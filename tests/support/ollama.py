"""A real HTTP server in the place of an Ollama: it lists models as Ollama does, and records what it is asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class OllamaServer:
    """Lists `models`, all of one `family`, at a free port. `asked` has the method and path of each request."""

    def __init__(self, *models: str, family: str = "qwen2") -> None:
        listed = [{"name": name, "model": name, "size": 1, "details": {"family": family}} for name in models]
        body = json.dumps({"models": listed}).encode()
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"GET {self.path}")
                self.send_response(200 if self.path == "/api/tags" else 404)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                asked.append(f"POST {self.path}")

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "OllamaServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
