"""The loudspeaker and the microphone, through whatever program the machine has for them."""

import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import numpy as np

from mirrorchat.audio.encoders import PcmEncoder, WavEncoder, encode_wav
from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.client.terminal import printable
from mirrorchat.errors import SoundDeviceError

RECORDED_RATE_HZ = 16_000
PIECES_LIMIT = 20_000  # that wait to be played: an hour of XTTS's chunks
PLAY_MARGIN_S = 30.0  # beyond the length of what it plays, before a player is taken for stuck
_SHOWN_ERROR_CHARS = 200


@dataclass(frozen=True)
class PlayerProgram:
    """How a program is asked to play. `form` is what it reads from its standard input: `wav` or `pcm`; or `file`,

    where it takes a finished file only, whose name comes last.
    """

    form: str
    arguments: Callable[[int], Sequence[str]]  # of the sample rate in Hz


def _sox_form(rate: int) -> Sequence[str]:
    return ("-q", "-t", "raw", "-r", str(rate), "-e", "signed", "-b", "16", "-c", "1", "-")


# The first one found plays; those that play sound as it comes stand before those that take a file.
PLAYERS: Mapping[str, PlayerProgram] = {
    "ffplay": PlayerProgram("wav", lambda rate: ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-")),
    "mpv": PlayerProgram("wav", lambda rate: ("--no-terminal", "--no-video", "-")),
    "paplay": PlayerProgram("pcm", lambda rate: ("--raw", f"--rate={rate}", "--channels=1", "--format=s16le")),
    "aplay": PlayerProgram("pcm", lambda rate: ("-q", "-t", "raw", "-f", "S16_LE", "-r", str(rate), "-c", "1", "-")),
    "play": PlayerProgram("pcm", _sox_form),
    "pw-play": PlayerProgram("file", lambda rate: ()),
    "afplay": PlayerProgram("file", lambda rate: ()),
}
_FFMPEG_INPUT = ("-f", "avfoundation", "-i", ":0") if sys.platform == "darwin" else ("-f", "alsa", "-i", "default")
# Each writes 16-bit samples, mono, at RECORDED_RATE_HZ, to its standard output.
RECORDERS: Mapping[str, Sequence[str]] = {
    "arecord": ("-q", "-t", "raw", "-f", "S16_LE", "-r", str(RECORDED_RATE_HZ), "-c", "1", "-"),
    "parecord": ("--raw", f"--rate={RECORDED_RATE_HZ}", "--channels=1", "--format=s16le"),
    "rec": _sox_form(RECORDED_RATE_HZ),
    "ffmpeg": (
        *("-nostdin", "-loglevel", "error", *_FFMPEG_INPUT),
        *("-f", "s16le", "-ar", str(RECORDED_RATE_HZ), "-ac", "1", "-"),
    ),
}


def find_player() -> str | None:
    """Return the name of the program that plays, or None where there is none."""
    return next((name for name in PLAYERS if shutil.which(name)), None)


def find_recorder() -> str:
    """Return the name of the program that records. Raises SoundDeviceError where there is none."""
    found = next((name for name in RECORDERS if shutil.which(name)), None)
    if found is None:
        raise SoundDeviceError(
            f"nothing here can record: install alsa-utils, pulseaudio-utils, sox or ffmpeg ({', '.join(RECORDERS)})"
        )
    return found


def require_player(name: str | None = None) -> str:
    """Return `name`, or what `find_player` finds. Raises SoundDeviceError where it is not there."""
    found = find_player() if name is None else name
    if found is None:
        raise SoundDeviceError(
            f"nothing here can play: install ffmpeg, mpv or alsa-utils ({', '.join(PLAYERS)}), or use --out FILE"
        )
    if shutil.which(found) is None:
        raise SoundDeviceError(f"{found} is not installed")
    return found


class Player:
    """Plays mono sound at `sample_rate` Hz through the program `name` while it comes.

    `add` never waits for what was added before; a thread hands it on. `finish` waits until all is heard.
    """

    def __init__(self, name: str, sample_rate: int) -> None:
        self._program = PLAYERS[name]
        self._name = name
        self._rate = sample_rate
        self._duration_s = 0.0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self._file: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pieces: queue.Queue[Samples | None] = queue.Queue(PIECES_LIMIT)  # None: no more
        self._stopped = threading.Event()
        if self._program.form != "file":
            self._start([], subprocess.PIPE)
        self._thread = threading.Thread(target=self._feed, name="player", daemon=True)
        self._thread.start()

    def add(self, samples: Samples) -> None:
        """Play `samples`, 1-D float32, after what came before. A player that was closed plays no more."""
        self._duration_s += len(samples) / self._rate
        with suppress(queue.Full):
            self._pieces.put_nowait(samples)

    def finish(self) -> None:
        """Wait until all is heard. Raises SoundDeviceError when the program fails or does not end."""
        self._pieces.put(None, timeout=PLAY_MARGIN_S)
        limit_s = self._duration_s + PLAY_MARGIN_S
        self._thread.join(limit_s)
        if self._process is None:
            return
        try:
            status = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.close()
            raise SoundDeviceError(f"{self._name} does not end") from None
        if status and not self._stopped.is_set():
            raise SoundDeviceError(f"{self._name} could not play: {self._said() or f'exit status {status}'}")

    def close(self) -> None:
        """Stop playing, and free what is held; a second time does nothing."""
        self._stopped.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with suppress(queue.Full):
            self._pieces.put_nowait(None)
        self._thread.join(PLAY_MARGIN_S)
        for file in filter(None, (self._errors, self._file)):
            file.close()

    def _start(self, more: Sequence[str], stdin: int) -> None:
        # a session of its own: Ctrl-C reaches this program alone, which then ends the player
        self._process = subprocess.Popen(
            [self._name, *self._program.arguments(self._rate), *more],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def _feed(self) -> None:
        if self._program.form == "file":
            self._play_file()
            return
        assert self._process is not None and self._process.stdin is not None
        encoder = WavEncoder(self._rate) if self._program.form == "wav" else PcmEncoder(self._rate)
        with suppress(OSError), self._process.stdin as pipe:  # broken: whoever listens has ended the player
            pipe.write(encoder.start())
            while (samples := self._pieces.get()) is not None:
                pipe.write(encoder.encode(samples))
                pipe.flush()

    def _play_file(self) -> None:
        pieces = [np.zeros(0, np.float32)]
        while (samples := self._pieces.get()) is not None:
            pieces.append(samples)
        if self._stopped.is_set():
            return
        file = self._file = tempfile.NamedTemporaryFile(suffix=".wav")  # noqa: SIM115 - until the player has read it
        file.write(encode_wav(Audio(np.concatenate(pieces), self._rate)))
        file.flush()
        self._start([file.name], subprocess.DEVNULL)

    def _said(self) -> str:
        """Return the last line that the program wrote to its standard error."""
        self._errors.seek(0)
        lines = self._errors.read(65_536).decode("utf-8", "replace").strip().splitlines()
        return printable(lines[-1])[:_SHOWN_ERROR_CHARS] if lines else ""
