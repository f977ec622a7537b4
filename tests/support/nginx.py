"""A real nginx with the project's own configuration."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from support.checks import wait_for
from support.places import ROOT
from support.running_server import free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Nginx:
    """A real nginx that runs deploy/nginx.conf, with its ports and folders moved and `changes` made."""

    def __init__(self, folder: Path, backend_port: int, **changes: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.port = port
        site = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
        moved = {"listen 80;": f"listen 127.0.0.1:{port};", "127.0.0.1:9990": f"127.0.0.1:{backend_port}",
                 "/var/log/nginx": str(folder), "/etc/nginx/mirrorchat": str(folder / "site")}  # fmt: skip
        for old, new in (moved | changes).items():
            assert site.count(old) >= 1, f"deploy/nginx.conf no longer has {old!r}"
            site = site.replace(old, new)
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;\n" if os.getuid() == 0 else ""
        self._conf = folder / "nginx.conf"
        self._conf.write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
            f"events {{ worker_connections 256; }}\nhttp {{\n{temporary}{site}\n}}\n",
            encoding="utf-8",
        )

    def __enter__(self) -> "Nginx":
        assert NGINX is not None
        self.process = subprocess.Popen([NGINX, "-c", str(self._conf), "-p", str(self.folder)], stderr=subprocess.PIPE)
        wait_for(self._listens)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)

    def _listens(self) -> bool:
        assert self.process.poll() is None, "nginx ended: " + (self.process.communicate()[1] or b"").decode()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
