"""The outputs of a command's speech: a loudspeaker, a file, standard output, or none."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from mirrorchat.audio.encoders import ENCODERS, WavEncoder, encode_wav
from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.client.player import Player
from mirrorchat.cli.client.sound_programs import FILE_FORMATS
from mirrorchat.errors import CommandError, SoundDeviceError

STDOUT = "-"


class Output(Protocol):
    """Takes the pieces of one sound, whose rate never changes, while they arrive."""

    def add(self, audio: Audio) -> None: ...

    def finish(self) -> None:
        """Return when all sound is played or written. Raises SoundDeviceError, CommandError or OSError on failure."""
        ...

    def close(self) -> None:
        """Free all resources, finished or not. A second call does nothing."""
        ...


class SoundFile:
    """Writes a file when the sound is complete, in the format of its extension. A failure leaves no partial file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._format = FILE_FORMATS[path.suffix.lower()]
        self._rate = 0
        self._pieces: list[Samples] = []

    def add(self, audio: Audio) -> None:
        self._rate = audio.sample_rate
        self._pieces.append(audio.samples)

    def finish(self) -> None:
        """Write the file. Raises CommandError when it cannot be written."""
        if not self._pieces:
            return
        # A longer version of the file's name could exceed the limit of names.
        part = self._path.with_name(f".mirrorchat-{os.getpid()}.part")
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
        if self._format == "wav":
            return encode_wav(Audio(samples, self._rate))  # its header has the length
        encoder = ENCODERS[self._format](self._rate)
        try:
            return encoder.start() + encoder.encode(samples) + encoder.finish()
        finally:
            encoder.close()


class StandardOutput:
    """Writes a wav of undefined length while the sound arrives."""

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
        """Do nothing: all sound is written."""

    def close(self) -> None:
        """Do nothing: there are no resources."""


class Outputs:
    """Passes one sound to several outputs. Raises CommandError when its rate changes."""

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

    def start_over(self) -> None:
        """Forget the sound so far where it has not been heard or read: in a file."""
        self.duration_s = 0.0
        for output in self._outputs:
            if isinstance(output, SoundFile):
                output.close()

    def play_out(self) -> None:
        """Return when the loudspeaker has played what there is of a sound that broke off; no file is written."""
        for output in self._outputs:
            if isinstance(output, Player):
                with suppress(SoundDeviceError):
                    output.finish()

    def close(self) -> None:
        for output in self._outputs:
            output.close()


def chosen_outputs(out: str | None, player: str | None) -> Outputs:
    """Return the outputs: the file `out` (or STDOUT) and the program `player`. Either may be None.

    Raises CommandError for a file in a folder that does not exist or cannot be written.
    """
    outputs: list[Output] = []
    if out == STDOUT:
        outputs.append(StandardOutput())
    elif out is not None:
        path = Path(out)
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise CommandError(f"{out} cannot be written: {path.parent} is not a folder that can be written to")
        outputs.append(SoundFile(path))  # comes first, so that it is written even if the player fails
    if player is not None:
        outputs.append(Player(player))
    return Outputs(outputs)
