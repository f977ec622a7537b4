"""Where a command's speech goes: to the loudspeaker, into a file, to standard output, or nowhere."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from mirrorchat.audio.encoders import ENCODERS, WavEncoder, encode_wav
from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.client.sound_devices import Player
from mirrorchat.errors import CommandError

STDOUT = "-"
# What a file's name may end in, and the form (of ENCODERS) that it means.
EXTENSIONS = {
    ".wav": "wav",
    ".mp3": "mp3",
    ".opus": "opus",
    ".ogg": "opus",
    ".aac": "aac",
    ".flac": "flac",
    ".pcm": "pcm",
}


class Output(Protocol):
    """Takes one sound, whose rate never changes, as it comes."""

    def add(self, audio: Audio) -> None: ...

    def finish(self) -> None:
        """Return when all that was added is out. Raises SoundDeviceError, CommandError or OSError when it is not."""
        ...

    def close(self) -> None:
        """Free what is held, whether it was finished or not; a second time does nothing."""
        ...


class Loudspeaker:
    """Plays through the program `name` (of PLAYERS)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._player: Player | None = None

    def add(self, audio: Audio) -> None:
        if self._player is None:
            self._player = Player(self._name, audio.sample_rate)
        self._player.add(audio.samples)

    def finish(self) -> None:
        if self._player is not None:
            self._player.finish()

    def close(self) -> None:
        if self._player is not None:
            self._player.close()


class SoundFile:
    """Writes a file once all is there, in the form that its name ends in (EXTENSIONS); what fails leaves no part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._form = EXTENSIONS[path.suffix.lower()]
        self._rate = 0
        self._pieces: list[Samples] = []

    def add(self, audio: Audio) -> None:
        self._rate = audio.sample_rate
        self._pieces.append(audio.samples)

    def finish(self) -> None:
        """Write the file. Raises CommandError when it cannot be written."""
        if not self._pieces:
            return
        part = self._path.with_name(
            f".mirrorchat-{os.getpid()}.part"
        )  # the file's own name may be as long as one can be
        try:
            part.write_bytes(self._encoded(np.concatenate(self._pieces)))
            part.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise CommandError(f"{self._path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        self._pieces.clear()

    def _encoded(self, samples: Samples) -> bytes:
        if self._form == "wav":
            return encode_wav(Audio(samples, self._rate))  # its header tells the length
        encoder = ENCODERS[self._form](self._rate)
        try:
            return encoder.start() + encoder.encode(samples) + encoder.finish()
        finally:
            encoder.close()


class StandardOutput:
    """Writes a wav whose header leaves its length open, as it comes."""

    def __init__(self) -> None:
        self._encoder: WavEncoder | None = None

    def add(self, audio: Audio) -> None:
        begin = b""
        if self._encoder is None:
            self._encoder = WavEncoder(audio.sample_rate)
            begin = self._encoder.start()
        sys.stdout.buffer.write(begin + self._encoder.encode(audio.samples))
        sys.stdout.buffer.flush()

    def finish(self) -> None:
        """All is written."""

    def close(self) -> None:
        """Nothing to free."""


class Outputs:
    """One sound to several places. Raises CommandError when its rate changes."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self._rate = 0
        self.duration_s = 0.0

    def add(self, audio: Audio) -> None:
        if self._rate not in (0, audio.sample_rate):
            raise CommandError("the sample rate of the answer changes midway")
        self._rate = audio.sample_rate
        self.duration_s += audio.duration_s
        for output in self._outputs:
            output.add(audio)

    def finish(self) -> None:
        for output in self._outputs:
            output.finish()

    def close(self) -> None:
        for output in self._outputs:
            output.close()


def chosen_outputs(out: str | None, player: str | None) -> Outputs:
    """Return the file `out` (STDOUT: standard output) and the loudspeaker, by the program `player`; None: not there.

    Raises CommandError for a file that could not be written.
    """
    outputs: list[Output] = []
    if out == STDOUT:
        outputs.append(StandardOutput())
    elif out is not None:
        path = Path(out)
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise CommandError(f"{out} cannot be written: {path.parent} is not a folder that can be written to")
        outputs.append(SoundFile(path))  # first: it is there even when the player fails
    if player is not None:
        outputs.append(Loudspeaker(player))
    return Outputs(outputs)
