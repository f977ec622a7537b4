"""The options that `ask`, `say` and `hear` share, and the values they give."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mirrorchat.cli.client.sound_programs import FILE_FORMATS, PLAYERS, find_player, require_player
from mirrorchat.errors import CommandError
from mirrorchat.settings import CONFIG_VARIABLE, UPLOAD_LIMIT_MAX_MB, Settings, load_settings
from mirrorchat.speech.options import BOUNDS, WHOLE_NUMBERS, SpeechOptions

if TYPE_CHECKING:  # it imports numpy, which --help does not need
    from mirrorchat.engines import Language

SERVER_VARIABLE = "MIRRORCHAT_SERVER"
KEY_VARIABLE = "MIRRORCHAT_API_KEY"
LANGUAGE_VARIABLE = "MIRRORCHAT_LANGUAGE"
STDIN = STDOUT = "-"
RECORDING_LIMIT_BYTES = UPLOAD_LIMIT_MAX_MB << 20  # no server accepts more

Command = TypeVar("Command", bound=Callable[..., Any])


def _as_language(_context: click.Context, _option: click.Parameter, name: str | None) -> "Language | None":
    """Return the language of a tag or a name, as every route of the server takes it; None for `auto` and for none.

    Raises BadParameter.
    """
    from mirrorchat.engines import Language

    try:
        return None if name is None else Language.parse_or_auto(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _language_names(_context: click.Context, _option: click.Parameter, begin: str) -> list[str]:
    return [name for name in ("chinese", "english", "zh", "en", "auto") if name.startswith(begin.lower())]


# Of an option that names a language. The command gets the Language, or None.
LANGUAGE: Mapping[str, Any] = {"metavar": "LANGUAGE", "callback": _as_language, "shell_complete": _language_names}


@dataclass(frozen=True)
class EnginePlace:
    """The place of the engines: the server at the URL `server`, or this process with the configuration `config`."""

    server: str | None
    key_file: Path | None
    config: Path | None


@dataclass(frozen=True)
class SoundOptions:
    """The outputs of the speech: the file `out` (or STDOUT), and a player unless `play` is False."""

    out: str | None
    play: bool | None
    player: str | None


def place_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of EnginePlace. The command gets them as the argument `place`."""

    @click.option(
        "--server",
        metavar="URL",
        envvar=SERVER_VARIABLE,
        help=f"Use this running server (or {SERVER_VARIABLE}). Default: load the engines here.",
    )
    @click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help=f"A file with the key of the server. Default: {KEY_VARIABLE}.",
    )
    @click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help=f"The configuration of the engines (or {CONFIG_VARIABLE}).",
    )
    @wraps(command)
    def with_place(server: str | None, key_file: Path | None, config: Path | None, **options: Any) -> None:
        command(place=EnginePlace(server, key_file, config), **options)

    return with_place  # fmt: skip


def sound_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of SoundOptions. The command gets them as the argument `sound`."""

    @click.option(
        "--out",
        metavar="FILE",
        callback=_out,
        help=f"Save the speech ({', '.join(FILE_FORMATS)}); - writes a wav to standard output.",
    )
    @click.option("--play/--no-play", default=None, help="Play the speech. Default: at a terminal, unless it is saved.")
    @click.option("--player", type=click.Choice(list(PLAYERS)), help="The player. Default: the first one installed.")
    @wraps(command)
    def with_sound(out: str | None, play: bool | None, player: str | None, **options: Any) -> None:
        command(sound=SoundOptions(out, play, player), **options)

    return with_sound  # fmt: skip


def speech_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of SpeechOptions. The command gets them as the argument `spoken`."""

    @click.option("--speed", type=_within("speed"), help="Speak so many times as fast.")
    @click.option("--temperature", type=_within("temperature"), help="Of XTTS: the temperature of the sampling.")
    @click.option("--top-k", type=_within("top_k"), help="Of XTTS: sample among so many tokens; 0 means all.")
    @click.option("--top-p", type=_within("top_p"), help="Of XTTS: sample among the tokens of this probability.")
    @click.option(
        "--repetition-penalty", type=_within("repetition_penalty"), help="Of XTTS: how much it avoids repetition."
    )
    @wraps(command)
    def with_options(**options: Any) -> None:
        given = {name: options.pop(name) for name in BOUNDS}
        if any(value != value for value in given.values()):
            raise click.BadParameter("nan is not a number")
        command(spoken=SpeechOptions(**given), **options)

    return with_options  # fmt: skip


def _within(name: str) -> click.IntRange | click.FloatRange:
    """Return the type of the values of an option of speech."""
    low, high = BOUNDS[name]
    return click.IntRange(int(low), int(high)) if name in WHOLE_NUMBERS else click.FloatRange(low, high)


def _out(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value not in (None, STDOUT) and Path(str(value)).suffix.lower() not in FILE_FORMATS:
        raise click.BadParameter(f"the name must end in {', '.join(FILE_FORMATS)}, or be -")
    return value


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def language_option(command: Command) -> Command:
    return click.option(
        "--language", envvar=LANGUAGE_VARIABLE, default=default_language, **LANGUAGE,
        help=f"The language of the recording, or auto (or {LANGUAGE_VARIABLE}). Default: that of LANG.",
    )(command)  # fmt: skip


def default_language() -> str:
    """Return the language of the environment: Chinese if LC_ALL, LC_MESSAGES or LANG names it, otherwise English."""
    named = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
    return "chinese" if named.lower().startswith("zh") else "english"


def settings_of(config: Path | None = None, **overrides: Any) -> Settings:
    """Return the settings of `config` (or of the default file) with `overrides`. Raises ConfigurationError."""
    with redirect_stdout(sys.stderr):  # output of the file is not a result
        return load_settings(config, **overrides)


def unicode_text(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Return `value` unchanged. Raises BadParameter when its bytes were not UTF-8."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8") from None
    return value


def server_key(key_file: Path | None) -> str:
    """Return the key of the server, or "" for none. Raises CommandError for an invalid key."""
    from mirrorchat.cli.client.server_client import read_key

    if key_file is not None:
        return read_key(key_file)
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not (key.isprintable() or not key):
        raise CommandError(f"{KEY_VARIABLE} must be printable ASCII")
    return key


def read_recording(name: str) -> bytes:
    """Return the bytes of the file `name`, or of standard input for `-`. Raises CommandError if it is not readable."""
    try:
        if name == STDIN:
            if sys.stdin is None:  # the parent process closed it
                raise CommandError("there is no standard input")
            data = sys.stdin.buffer.read(RECORDING_LIMIT_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(RECORDING_LIMIT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > RECORDING_LIMIT_BYTES:
        raise CommandError(f"{name} is larger than {UPLOAD_LIMIT_MAX_MB} MiB")
    return data


def chosen_player(sound: SoundOptions) -> str | None:
    """Return the program that plays the speech, or None.

    By default speech is played at a terminal if a program is installed and the speech is not saved. Raises
    SoundDeviceError when the options require a program that is not installed.
    """
    if sound.play or (sound.play is None and sound.player is not None):
        return require_player(sound.player)
    if sound.play is None and sound.out is None and sys.stdout.isatty():
        return find_player()
    return None


def check_standard_output(sound: SoundOptions, *, as_json: bool) -> None:
    """Raise UsageError when both the speech and the JSON would go to standard output."""
    if as_json and sound.out == STDOUT:
        raise click.UsageError("--json and --out - both use standard output")


def note(text: str) -> None:
    """Print a note to standard error if that is a terminal."""
    if sys.stderr.isatty():
        click.echo(text, err=True)
