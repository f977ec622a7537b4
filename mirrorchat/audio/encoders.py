"""Streaming encoders: speech becomes wav, raw PCM, Ogg Opus, mp3, AAC or FLAC while it is synthesized.

The decoded audio does not depend on how it was divided into pieces. An encoder buffers a fraction of a second at most.
`encode_wav` writes a whole wav file.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Protocol

import av
import numpy as np

from mirrorchat.audio.samples import Audio, Samples, pcm16_bytes

UNKNOWN_SIZE = 0xFFFFFFFF  # in a wav header: the length is not known yet
WAV_HEADER_BYTES = 44
# Bits per second; mono speech is transparent at these rates.
OPUS_BIT_RATE, MP3_BIT_RATE, AAC_BIT_RATE = 48_000, 64_000, 64_000
PAGE_US = 40_000  # of Opus in one Ogg page; FFmpeg buffers two pages


class Encoder(Protocol):
    """Encodes one mono stream: `start`, any number of `encode`, `finish`.

        encoder = ENCODERS["opus"](24_000)
        data = encoder.start() + encoder.encode(samples) + encoder.finish()

    Any call may return b"". Not thread-safe.
    """

    content_type: str

    def start(self) -> bytes:
        """Return the header."""
        ...

    def encode(self, samples: Samples) -> bytes:
        """Take the next samples, shape (n,), float32 in [-1, 1], and return the bytes that are complete."""
        ...

    def finish(self) -> bytes:
        """Return the remaining bytes. No other method but `close` may be called afterwards."""
        ...

    def close(self) -> None:
        """Free the encoder's memory and threads, finished or not. A second call does nothing."""
        ...


class PcmEncoder:
    """Raw 16-bit little-endian samples. The content type has the rate and the number of channels."""

    def __init__(self, sample_rate: int) -> None:
        self.content_type = f"audio/pcm; rate={sample_rate}; channels=1"

    def start(self) -> bytes:
        return b""

    def encode(self, samples: Samples) -> bytes:
        return pcm16_bytes(samples)

    def finish(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing to free."""


class WavEncoder(PcmEncoder):
    """A 16-bit wav whose header states no length; players read it from a pipe."""

    def __init__(self, sample_rate: int) -> None:
        self.content_type = "audio/wav"
        self._sample_rate = sample_rate

    def start(self) -> bytes:
        return _wav_header(self._sample_rate, UNKNOWN_SIZE, UNKNOWN_SIZE)


def encode_wav(audio: Audio) -> bytes:
    """Return `audio` as a whole mono 16-bit wav file."""
    pcm = pcm16_bytes(audio.samples)
    return _wav_header(audio.sample_rate, WAV_HEADER_BYTES - 8 + len(pcm), len(pcm)) + pcm


def _wav_header(rate: int, riff_bytes: int, data_bytes: int) -> bytes:
    """Return the header of a mono 16-bit wav at `rate` Hz. Each size counts what follows its own field."""
    pcm_format = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI8s", b"RIFF", riff_bytes, b"WAVEfmt ") + pcm_format + struct.pack("<4sI", b"data", data_bytes)
    )


class _Sink:
    """A write-only file in memory. `take` returns its content and empties it."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


class AvEncoder:
    """Encodes with libavcodec's `codec` into libavformat's `container`; both must support `sample_rate` (Hz).

    `bit_rate` is in bits per second, 0 for lossless codecs.
    """

    def __init__(
        self, content_type: str, container: str, codec: str, bit_rate: int, sample_rate: int, **options: str
    ) -> None:
        self.content_type = content_type
        self._sample_rate = sample_rate
        self._sink = _Sink()
        # bitexact: the same speech gives the same bytes. flush_packets: no packet waits in a buffer.
        settings = {"flush_packets": "1", "fflags": "bitexact"} | options
        self._file = av.open(self._sink, "w", format=container, options=settings)
        stream = self._file.add_stream(codec, rate=sample_rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        self._stream = stream

    def start(self) -> bytes:
        self._file.start_encoding()
        return self._sink.take()

    def encode(self, samples: Samples) -> bytes:
        if len(samples):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "flt", "mono")
            frame.sample_rate = self._sample_rate
            self._file.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        self._file.mux(self._stream.encode(None))
        self._file.close()
        return self._sink.take()

    def close(self) -> None:
        """Close the file. Its buffers and two threads would otherwise live until garbage collection."""
        self._file.close()


ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "wav": WavEncoder,
    # For 8, 12, 16, 24 or 48 kHz. Players see 48 kHz at any of these.
    "opus": partial(AvEncoder, "audio/ogg; codecs=opus", "ogg", "libopus", OPUS_BIT_RATE, page_duration=str(PAGE_US)),
    # Bare mp3 frames: no tags, and no first frame that would state the length.
    "mp3": partial(AvEncoder, "audio/mpeg", "mp3", "libmp3lame", MP3_BIT_RATE, write_xing="0", id3v2_version="0"),
    "pcm": PcmEncoder,
    "aac": partial(AvEncoder, "audio/aac", "adts", "aac", AAC_BIT_RATE),
    # 16-bit samples; the header states no length.
    "flac": partial(AvEncoder, "audio/flac", "flac", "flac", 0, metadata_header_padding="0"),
}
"""Encoders by the names that requests use. Each takes the sample rate in Hz."""
