"""The options that `ask`, `say` and `hear` share, and what comes in through them."""

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click

from mirrorchat.errors import CommandError
from mirrorchat.settings import CONFIG_VARIABLE, Settings, load_settings

SERVER_VARIABLE = "MIRRORCHAT_SERVER"
KEY_VARIABLE = "MIRRORCHAT_API_KEY"
LANGUAGE_VARIABLE = "MIRRORCHAT_LANGUAGE"
STDIN = "-"
RECORDING_LIMIT_BYTES = 100 * 1024 * 1024  # the most that upload_limit_mb can allow
PLAYER_NAMES = ("ffplay", "mpv", "paplay", "aplay", "play", "pw-play", "afplay")  # sound_devices.PLAYERS
OUT_ENDINGS = (".wav", ".mp3", ".opus", ".ogg", ".aac", ".flac", ".pcm")  # sound_outputs.EXTENSIONS

LANGUAGES = click.Choice(["chinese", "english", "zh", "en"], case_sensitive=False)
Command = TypeVar("Command", bound=Callable[..., Any])


def _applied(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def place_options(command: Command) -> Command:
    """Add `server`, `key_file` and `config`: which engines do the work."""
    return _applied(
        click.option(
            "--server", metavar="URL", envvar=SERVER_VARIABLE,
            help=f"Ask a running server (or {SERVER_VARIABLE}); without it the engines are loaded here.",
        ),
        click.option(
            "--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
            help=f"A file with the server's key; else the key is in {KEY_VARIABLE}.",
        ),
        click.option(
            "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
            help=f"The configuration of the engines (or {CONFIG_VARIABLE}).",
        ),
    )(command)  # fmt: skip


def sound_options(command: Command) -> Command:
    """Add `out`, `play` and `player`: where the speech goes."""
    return _applied(
        click.option(
            "--out", metavar="FILE", callback=_out,
            help=f"Save the speech ({', '.join(OUT_ENDINGS)}); - writes a wav to standard output.",
        ),
        click.option("--play/--no-play", default=None, help="Play it. Default: at a terminal, unless it is saved."),
        click.option("--player", type=click.Choice(PLAYER_NAMES), help="Play with this. Default: the first there is."),
    )(command)  # fmt: skip


def _out(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value not in (None, STDIN) and Path(str(value)).suffix.lower() not in OUT_ENDINGS:
        raise click.BadParameter(f"the name must end in {', '.join(OUT_ENDINGS)}, or be -")
    return value


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def default_language() -> str:
    """Return the language that the environment speaks: Chinese where LANG (or LC_ALL, ...) says so, else English."""
    named = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
    return "chinese" if named.lower().startswith("zh") else "english"


def settings_of(config: Path | None = None, **overrides: Any) -> Settings:
    """Return the settings of `config`, or of the usual place, under `overrides`. Raises ConfigurationError."""
    with redirect_stdout(sys.stderr):  # what the file prints is no result
        return load_settings(config, **overrides)


def unicode_text(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Return what an argument holds. Raises BadParameter where its bytes were no text."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8") from None
    return value


def server_key(key_file: Path | None) -> str:
    """Return the key for a server, or "". Raises CommandError for one that cannot be a key."""
    from mirrorchat.cli.client.server_client import read_key

    if key_file is not None:
        return read_key(key_file)
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not (key.isprintable() or not key):
        raise CommandError(f"{KEY_VARIABLE} must be printable ASCII")
    return key


def read_recording(name: str) -> bytes:
    """Return the bytes of the file `name`, or of standard input for `-`. Raises CommandError; none is decoded here."""
    try:
        if name == STDIN:
            if sys.stdin is None:  # closed by who started this
                raise CommandError("there is no standard input")
            data = sys.stdin.buffer.read(RECORDING_LIMIT_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(RECORDING_LIMIT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > RECORDING_LIMIT_BYTES:
        raise CommandError(f"{name} is larger than {RECORDING_LIMIT_BYTES >> 20} MB")
    return data


def chosen_player(out: str | None, play: bool | None, player: str | None) -> str | None:
    """Return the program that shall play, None where nothing shall be.

    By default sound is played at a terminal, where something here plays and it is not saved. Raises SoundDeviceError
    when `play` asks for it, or `player` names it, and it is not there.
    """
    from mirrorchat.cli.client.sound_devices import find_player, require_player

    if play or (play is None and player is not None):
        return require_player(player)
    if play is None and out is None and sys.stdout.isatty():
        return find_player()
    return None


def say_aside(text: str) -> None:
    """Tell people at a terminal something that is not the result."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
