"""Speech as bytes while it is being made: wav, raw pcm, Ogg Opus, mp3, AAC and FLAC, each written piece by piece.

How a sound is cut into pieces never shows in what is decoded from them. An encoder keeps a fraction of a second at
most: what it has made is handed over at once.
"""

import struct
from collections.abc import Callable
from typing import Protocol

import av
import numpy as np

from mirrorchat.audio.samples import Samples, to_pcm16

UNKNOWN_SIZE = 0xFFFFFFFF  # what a wav header says of a length that is not known yet
# A second; speech in one channel is transparent at these.
OPUS_BIT_RATE, MP3_BIT_RATE, AAC_BIT_RATE = 48_000, 64_000, 64_000
PAGE_US = 40_000  # of Opus in one Ogg page; FFmpeg keeps two pages back


class Encoder(Protocol):
    """Writes one mono sound: `start`, any number of `encode`, `finish`. For one thread; any call may return b""."""

    content_type: str

    def start(self) -> bytes:
        """Return what comes before all sound."""
        ...

    def encode(self, samples: Samples) -> bytes:
        """Return what can be written with a further piece, 1-D float32 in [-1, 1]."""
        ...

    def finish(self) -> bytes:
        """Return the rest; the encoder is of no use afterwards."""
        ...

    def close(self) -> None:
        """Free what it holds, also when it was not finished; a second time does nothing."""
        ...


class PcmEncoder:
    """16-bit little-endian samples and nothing else; rate and channels are in the content type."""

    def __init__(self, sample_rate: int) -> None:
        self.content_type = f"audio/pcm; rate={sample_rate}; channels=1"

    def start(self) -> bytes:
        return b""

    def encode(self, samples: Samples) -> bytes:
        return to_pcm16(samples).astype("<i2").tobytes()

    def finish(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing to free."""


class WavEncoder(PcmEncoder):
    """A 16-bit wav whose header leaves its length open, as players read from a pipe."""

    def __init__(self, sample_rate: int) -> None:
        self.content_type = "audio/wav"
        self._sample_rate = sample_rate

    def start(self) -> bytes:
        rate = self._sample_rate
        form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        size = struct.pack("<I", UNKNOWN_SIZE)
        return b"RIFF" + size + b"WAVEfmt " + form + b"data" + size


class _Sink:
    """A file that can only be written to, and emptied."""

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
    """What libavcodec's `codec` and libavformat's `container` make of a sound at `sample_rate` Hz, which both know.

    A `bit_rate` of 0 is for codecs that lose nothing.
    """

    def __init__(
        self, content_type: str, container: str, codec: str, sample_rate: int, bit_rate: int, **options: str
    ) -> None:
        self.content_type = content_type
        self._sample_rate = sample_rate
        self._sink = _Sink()
        # bitexact: the same speech gives the same bytes; flush_packets: nothing waits in a buffer
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
        """Close the file, which else would hold its buffers and two threads until the garbage is collected."""
        self._file.close()


def opus_encoder(sample_rate: int) -> AvEncoder:
    """Return an encoder to Opus in Ogg, for sounds at 8, 12, 16, 24 or 48 kHz; players see 48 kHz whatever went in."""
    kind = "audio/ogg; codecs=opus"
    return AvEncoder(kind, "ogg", "libopus", sample_rate, OPUS_BIT_RATE, page_duration=str(PAGE_US))


def mp3_encoder(sample_rate: int) -> AvEncoder:
    """Return an encoder to bare mp3 frames: no tags, and no first frame with the length, since it is not known."""
    return AvEncoder("audio/mpeg", "mp3", "libmp3lame", sample_rate, MP3_BIT_RATE, write_xing="0", id3v2_version="0")


def aac_encoder(sample_rate: int) -> AvEncoder:
    """Return an encoder to AAC in ADTS frames, which need no header."""
    return AvEncoder("audio/aac", "adts", "aac", sample_rate, AAC_BIT_RATE)


def flac_encoder(sample_rate: int) -> AvEncoder:
    """Return an encoder to FLAC of 16 bits whose header leaves the length open."""
    return AvEncoder("audio/flac", "flac", "flac", sample_rate, 0, metadata_header_padding="0")


ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "wav": WavEncoder,
    "opus": opus_encoder,
    "mp3": mp3_encoder,
    "pcm": PcmEncoder,
    "aac": aac_encoder,
    "flac": flac_encoder,
}  # each takes the sample rate in Hz
