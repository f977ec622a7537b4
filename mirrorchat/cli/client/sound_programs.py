"""The programs that play and record sound, and the formats in which speech is saved. Does not import numpy."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from mirrorchat.cli.client.terminal import printable
from mirrorchat.errors import SoundDeviceError

RECORDED_RATE_HZ = 16_000
_SHOWN_ERROR_CHARS = 200

# The extension of a file's name, and its format (of audio.encoders.ENCODERS).
FILE_FORMATS = {
    ".wav": "wav",
    ".mp3": "mp3",
    ".opus": "opus",
    ".ogg": "opus",
    ".aac": "aac",
    ".flac": "flac",
    ".pcm": "pcm",
}


@dataclass(frozen=True)
class PlayerProgram:
    """The input and the arguments of a program that plays sound.

    `input_format` is `wav` or `pcm` for a program that reads its standard input, and `file` for one that plays only a
    complete file, whose name is the last argument. `arguments` takes the sample rate in Hz.
    """

    input_format: str
    arguments: Callable[[int], Sequence[str]]


def _sox_arguments(rate_hz: int) -> Sequence[str]:
    return ("-q", "-t", "raw", "-r", str(rate_hz), "-e", "signed", "-b", "16", "-c", "1", "-")


# The first installed program plays. Programs that play while the sound arrives come before those that play a file.
PLAYERS: Mapping[str, PlayerProgram] = {
    "ffplay": PlayerProgram("wav", lambda rate: ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-")),
    "mpv": PlayerProgram("wav", lambda rate: ("--no-terminal", "--no-video", "-")),
    "paplay": PlayerProgram("pcm", lambda rate: ("--raw", f"--rate={rate}", "--channels=1", "--format=s16le")),
    "aplay": PlayerProgram("pcm", lambda rate: ("-q", "-t", "raw", "-f", "S16_LE", "-r", str(rate), "-c", "1", "-")),
    "play": PlayerProgram("pcm", _sox_arguments),
    "pw-play": PlayerProgram("file", lambda rate: ()),
    "afplay": PlayerProgram("file", lambda rate: ()),
}
_FFMPEG_INPUT = ("-f", "avfoundation", "-i", ":0") if sys.platform == "darwin" else ("-f", "alsa", "-i", "default")
# The arguments with which each program writes mono 16-bit samples at RECORDED_RATE_HZ to its standard output.
RECORDERS: Mapping[str, Sequence[str]] = {
    "arecord": ("-q", "-t", "raw", "-f", "S16_LE", "-r", str(RECORDED_RATE_HZ), "-c", "1", "-"),
    "parecord": ("--raw", f"--rate={RECORDED_RATE_HZ}", "--channels=1", "--format=s16le"),
    "rec": _sox_arguments(RECORDED_RATE_HZ),
    "ffmpeg": (
        *("-nostdin", "-loglevel", "error", *_FFMPEG_INPUT),
        *("-f", "s16le", "-ar", str(RECORDED_RATE_HZ), "-ac", "1", "-"),
    ),
}


def find_player() -> str | None:
    """Return the name of the first installed program that plays, or None."""
    return next((name for name in PLAYERS if shutil.which(name)), None)


def find_recorder() -> str:
    """Return the name of the first installed program that records. Raises SoundDeviceError if there is none."""
    found = next((name for name in RECORDERS if shutil.which(name)), None)
    if found is None:
        raise SoundDeviceError(
            "no program for recording is installed: install alsa-utils, pulseaudio-utils, sox or ffmpeg"
            f" ({', '.join(RECORDERS)})"
        )
    return found


def require_player(name: str | None = None) -> str:
    """Return `name`, or by default the result of `find_player`. Raises SoundDeviceError if it is not installed."""
    found = find_player() if name is None else name
    if found is None:
        raise SoundDeviceError(
            "no program for playing is installed: install ffmpeg, mpv or alsa-utils"
            f" ({', '.join(PLAYERS)}), or use --out FILE"
        )
    if shutil.which(found) is None:
        raise SoundDeviceError(f"{found} is not installed")
    return found


def last_error(errors: IO[bytes], status: int | None) -> str:
    """Return the last line of a program's standard error, which is in the file `errors`, or its exit status."""
    errors.seek(0)
    lines = errors.read(65_536).decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1])[:_SHOWN_ERROR_CHARS] if lines else f"exit status {status}"
