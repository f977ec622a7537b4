"""Audio files like those of browsers, phones and programs, made in memory with PyAV and soundfile."""

import io
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
import soundfile

Samples = npt.NDArray[np.float32]


class Kind(NamedTuple):
    """How PyAV writes a file. `delay_s`: the codec delay that the file does not tell its readers to drop."""

    container: str
    codec: str
    sample_rate: int = 48000
    options: Mapping[str, str] = {}
    delay_s: float = 0.0
    lossless: bool = False


class Unseekable(io.BytesIO):
    """A stream without seeking, as in a browser: sizes and durations stay unknown."""

    def seekable(self) -> bool:
        return False


AAC_DELAY_S = 1024 / 48000
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "200000"}
KINDS: dict[str, Kind] = {
    "flac": Kind("flac", "flac", 44100, lossless=True),
    "mp3": Kind("mp3", "libmp3lame", 44100),
    "mp3 at 22 kHz": Kind("mp3", "libmp3lame", 22050),
    "ogg opus": Kind("ogg", "libopus"),
    "ogg vorbis": Kind("ogg", "vorbis", 44100),
    "webm opus": Kind("webm", "libopus"),
    "webm opus, live": Kind("webm", "libopus", options={"live": "1"}),
    "webm vorbis": Kind("webm", "vorbis"),
    "matroska aac": Kind("matroska", "aac", delay_s=AAC_DELAY_S),
    "matroska pcm": Kind("matroska", "pcm_f32le", lossless=True),
    "m4a aac": Kind("ipod", "aac"),
    "m4a aac at 44.1 kHz": Kind("ipod", "aac", 44100),
    "m4a alac": Kind("ipod", "alac", 44100, lossless=True),
    "mp4 aac, fragments": Kind("mp4", "aac", options=FRAGMENTS, delay_s=AAC_DELAY_S),
    "mp4 opus": Kind("mp4", "libopus"),
    "mp4 opus, fragments": Kind("mp4", "libopus", options=FRAGMENTS),
    "mp4 mp3": Kind("mp4", "libmp3lame", 44100),
    "mov aac": Kind("mov", "aac"),
    "aac": Kind("adts", "aac", delay_s=AAC_DELAY_S),
    "amr": Kind("amr", "libopencore_amrnb", 8000, delay_s=0.011),
    "3gp amr": Kind("3gp", "libopencore_amrnb", 8000, delay_s=0.005),
}
WAV_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")


def encode(samples: Samples, kind: Kind) -> bytes:
    """Return `samples`, float32 (n,) or (n, channels) at the kind's rate, as a file of that kind."""
    if kind.codec == "vorbis":  # FFmpeg's own encoder of it is experimental: libsndfile's instead
        ogg = wav(samples, kind.sample_rate, "VORBIS", "OGG")
        return ogg if kind.container == "ogg" else remux(ogg, kind.container)
    samples = samples.reshape(len(samples), -1).astype(np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[samples.shape[1]]
    buffer = Unseekable() if kind.options.get("live") else io.BytesIO()
    with av.open(buffer, "w", format=kind.container, container_options=dict(kind.options)) as container:
        stream = container.add_stream(kind.codec, rate=kind.sample_rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if "amr" in kind.codec:
            stream.bit_rate = 12_200  # what phones record with
        for start in range(0, len(samples), 1024):  # interleaved: PyAV writes past 8 separate channels
            frame = av.AudioFrame.from_ndarray(samples[start : start + 1024].reshape(1, -1), "flt", layout)
            frame.sample_rate, frame.pts, frame.time_base = kind.sample_rate, start, Fraction(1, kind.sample_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def remux(data: bytes, container: str) -> bytes:
    """Return the first audio track of `data` in another container, with the same packets."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(buffer, "w", format=container) as target:
        track = source.streams.audio[0]
        copy = target.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return buffer.getvalue()


def wav(samples: Samples, sample_rate: int, subtype: str = "PCM_16", container: str = "WAV") -> bytes:
    """Return a wav file; `container` may be another one of libsndfile's, such as WAVEX or AIFF."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=container, subtype=subtype)
    return buffer.getvalue()


def raw_wav(
    sound: bytes,
    *,
    form: int = 1,
    channels: int = 1,
    sample_rate: int = 16000,
    bits: int = 16,
    data_size: int | None = None,
    riff_size: int | None = None,
    chunks: bytes = b"",
) -> bytes:
    """Return a wav with any header. `chunks` stand between the format and the samples."""
    block = channels * bits // 8 & 0xFFFF
    byte_rate = sample_rate * block & 0xFFFFFFFF
    fmt = struct.pack("<HHIIHH", form, channels, sample_rate, byte_rate, block, bits)
    size = len(sound) if data_size is None else data_size
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + chunks + b"data" + struct.pack("<I", size) + sound
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def tone(hz: float, seconds: float, sample_rate: int, level: float = 0.5) -> Samples:
    """Return a sine, float32 (n,), peak `level`."""
    at = np.arange(round(seconds * sample_rate)) / sample_rate
    return (level * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def burst(sample_rate: int, hz: float = 1000.0, onset_s: float = 1.0) -> Samples:
    """Return 2 s of silence with half a second of tone from `onset_s` on: shows delay, level and frequency."""
    samples = np.zeros(2 * sample_rate, np.float32)
    start = round(onset_s * sample_rate)
    samples[start : start + sample_rate // 2] = tone(hz, 0.5, sample_rate)
    return samples
