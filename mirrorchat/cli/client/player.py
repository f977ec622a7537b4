"""Plays sound through a program of the operating system."""

import queue
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import numpy as np

from mirrorchat.audio.encoders import PcmEncoder, WavEncoder, encode_wav
from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.cli.client.sound_programs import PLAYERS, last_error
from mirrorchat.errors import SoundDeviceError

PIECES_LIMIT = 20_000  # pieces that wait to be played: an hour of XTTS's chunks
PLAY_MARGIN_S = 30.0  # a player that runs this much longer than its sound is taken for stuck


class Player:
    """Plays mono sound, whose rate never changes, through the program `name` (of PLAYERS) while it arrives.

    `add` never waits for earlier sound, which a thread passes to the program. `finish` waits until all is played.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._program = PLAYERS[name]
        self._rate = 0
        self._duration_s = 0.0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self._file: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pieces: queue.Queue[Samples | None] = queue.Queue(PIECES_LIMIT)  # None marks the end
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, audio: Audio) -> None:
        """Play `audio` after the earlier sound."""
        if self._thread is None:
            self._rate = audio.sample_rate
            if self._program.input_format != "file":
                self._start([], subprocess.PIPE)
            self._thread = threading.Thread(target=self._feed, name="player", daemon=True)
            self._thread.start()
        self._duration_s += audio.duration_s
        with suppress(queue.Full):
            self._pieces.put_nowait(audio.samples)

    def finish(self) -> None:
        """Wait until all sound is played. Raises SoundDeviceError when the program fails or does not end."""
        if self._thread is None:
            return
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
            raise SoundDeviceError(f"{self._name} could not play: {last_error(self._errors, status)}")

    def close(self) -> None:
        """Stop playing and free all resources. A second call does nothing."""
        self._stopped.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._thread is not None:
            with suppress(queue.Full):
                self._pieces.put_nowait(None)
            self._thread.join(PLAY_MARGIN_S)
        for file in filter(None, (self._errors, self._file)):
            file.close()

    def _start(self, more: Sequence[str], stdin: int) -> None:
        # The program has a session of its own: Ctrl-C reaches only this process, which then ends the player.
        self._process = subprocess.Popen(
            [self._name, *self._program.arguments(self._rate), *more],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def _feed(self) -> None:
        if self._program.input_format == "file":
            self._play_file()
            return
        assert self._process is not None and self._process.stdin is not None
        encoder = WavEncoder(self._rate) if self._program.input_format == "wav" else PcmEncoder(self._rate)
        with suppress(OSError), self._process.stdin as pipe:  # the pipe breaks when the user ends the player
            pipe.write(encoder.start())
            while (samples := self._pieces.get()) is not None:
                pipe.write(encoder.encode(samples))
                pipe.flush()

    def _play_file(self) -> None:
        pieces: list[Samples] = []
        while (samples := self._pieces.get()) is not None:
            pieces.append(samples)
        if self._stopped.is_set():
            return
        file = self._file = tempfile.NamedTemporaryFile(suffix=".wav")  # noqa: SIM115 - until the player has read it
        file.write(encode_wav(Audio(np.concatenate(pieces), self._rate)))
        file.flush()
        self._start([file.name], subprocess.DEVNULL)
