"""`mirrorchat serve` runs the server under gunicorn, as a deployment does."""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import click

from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import CONFIG_VARIABLE, Settings, load_settings

GUNICORN_CONF = "python:mirrorchat.server.gunicorn_conf"


@click.command()
@click.option("--host", metavar="ADDRESS", help="Listen here; 0.0.0.0 admits other computers, and needs api_keys.")
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help=f"The configuration (or {CONFIG_VARIABLE}).",
)  # fmt: skip
@click.option("--reload", is_flag=True, help="For development: restart when the code changes.")
def serve(host: str | None, port: int | None, config: Path | None, reload: bool) -> None:
    """Run the server until SIGTERM or Ctrl-C stops it.

    The first lines name the engine of each stage, and the reason of its choice.
    """
    settings = load_settings(config, host=host, port=port)
    settings.check_served()
    _check_port(settings)
    environ = os.environ | {"MIRRORCHAT_HOST": settings.host, "MIRRORCHAT_PORT": str(settings.port)}
    if config is not None:
        environ[CONFIG_VARIABLE] = str(config.absolute())
    command = [sys.executable, "-m", "gunicorn", "--config", GUNICORN_CONF, *(["--reload"] if reload else [])]
    os.execve(sys.executable, command, environ)  # gunicorn replaces this process, so signals reach it


def _check_port(settings: Settings) -> None:
    """Raise ConfigurationError when the port cannot be opened. gunicorn would retry for 5 s, and explain less."""
    if settings.host.startswith("unix:"):
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigurationError(f"host {settings.host} is not an address of this computer") from None
    with socket.socket(family, kind, protocol) as probe:
        with suppress(OSError):
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as gunicorn does: closing connections free the port
        try:
            probe.bind(address)
        except PermissionError:
            raise ConfigurationError(f"port {settings.port} is for the system: choose 1024 or higher") from None
        except OSError as error:
            raise ConfigurationError(
                f"{settings.host} port {settings.port}: {os.strerror(error.errno or 0)}; if a server runs there,"
                " choose another one with --port"
            ) from None
