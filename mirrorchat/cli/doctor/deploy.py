"""Checks the programs of a deployment for `mirrorchat doctor`: gunicorn, nginx and its limits, ffmpeg."""

import importlib.metadata
import os
import re
import shutil
from pathlib import Path

from mirrorchat.cli.doctor.findings import Finding, ok, problem, warning
from mirrorchat.models.packages import ROOT
from mirrorchat.settings import Settings

_SBIN = ("/usr/sbin", "/usr/local/sbin")  # not every user has these in PATH
_NGINX_CONF = Path("deploy") / "nginx.conf"


def deploy_findings(settings: Settings, root: Path = ROOT) -> list[Finding]:
    """Return the findings about gunicorn, nginx and ffmpeg."""
    return [_gunicorn(), *_nginx(settings, root), _ffmpeg()]


def _gunicorn() -> Finding:
    try:
        return ok("gunicorn", importlib.metadata.version("gunicorn"))
    except importlib.metadata.PackageNotFoundError:
        return problem("gunicorn", "not installed: no server can run", "`rm -f .venv/installed && scripts/environment`")


def _nginx(settings: Settings, root: Path) -> list[Finding]:
    program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))
    if program is None:
        remedy = (
            "`sudo apt install nginx` before you admit other users: it keeps slow callers off the threads of the server"
        )
        return [warning("nginx", "not installed", f"{remedy} (deploy/nginx.conf)")]
    return [ok("nginx", program), *_limits(settings, root / _NGINX_CONF)]


def _limits(settings: Settings, conf: Path) -> list[Finding]:
    """Compare the limits of the settings with those of nginx in `conf`."""
    text = conf.read_text(encoding="utf-8") if conf.is_file() else ""
    body = re.search(r"client_max_body_size (\d+)m;", text)
    wait = re.search(r"proxy_read_timeout (\d+)s;", text)
    low = []
    if body and settings.upload_limit_mb > int(body[1]):
        low.append(f"client_max_body_size {body[1]}m is under upload_limit_mb = {settings.upload_limit_mb}")
    if wait and settings.turn_deadline_s >= int(wait[1]):
        low.append(f"proxy_read_timeout {wait[1]}s is not above turn_deadline_s = {settings.turn_deadline_s:g}")
    remedy = "raise it in your copy of deploy/nginx.conf, then run `sudo nginx -s reload`"
    return [warning("nginx.conf", found, remedy) for found in low]


def _ffmpeg() -> Finding:
    program = shutil.which("ffmpeg")
    own = f"PyAV {importlib.metadata.version('av')} has its own FFmpeg"
    return ok("ffmpeg", f"{program}, not used: {own}" if program else f"not installed, not needed: {own}")
