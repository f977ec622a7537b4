"""Demuxing of uploads: the container is told by its bytes, and its first audio track gives compressed packets.

FFmpeg's demuxers are not used, on purpose. They open files that an upload names, unpack compressed headers and trust
counts: a few hundred bytes of mp4 can ask for gigabytes of sample table. The containers that browsers and phones write
are simple, so this module reads them, lazily and with a bound on every loop, and FFmpeg's decoders see only the
packets. Nothing here opens a file, recurses, or allocates memory by a number that the upload states.

A new container needs a line in `_sniff` and a function that returns its `Track`.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), RFC 9559 (Matroska), RFC 9639 (flac), RFC 4867 (amr), ID3v2.4.
"""

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirrorchat.audio.uploads.mp4 import open_mp4
from mirrorchat.audio.uploads.tracks import Track, opus_track, unsupported, vorbis_track

_MAX_PAGES = 30_000  # of Ogg; 60 s of Opus in 2.5 ms packets, each on its own page, takes 24,000
_MAX_ELEMENTS = 100_000  # of Matroska, which may put three around each packet
_MAX_CHUNKS = 1_000  # wav chunks, flac metadata blocks, fields of one webm track
_FEED_BYTES = 1 << 14


def open_track(data: bytes) -> Track:
    """Return the first audio track of the file `data`, in any container but wav (see `plain_wav`).

    Raises UnsupportedAudio for an unknown container or codec. Reading the track's packets may raise it, too.
    """
    data = _without_id3(data)
    opener = _sniff(data)
    if opener is None:
        raise unsupported("The upload is not audio in a known format.")
    try:
        return opener(data)
    except (struct.error, IndexError, StopIteration, OverflowError, ZeroDivisionError) as error:
        raise unsupported("The header of the upload is broken or cut off.") from error


def is_wav(data: bytes) -> bool:
    """Return whether `data` begins as a wav file does."""
    return data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"


def _sniff(data: bytes) -> Callable[[bytes], Track] | None:
    """Return the function that opens the container of `data`, None for an unknown one."""
    for offset, magics, opener in (
        (0, (b"fLaC",), _open_flac),
        (0, (b"OggS",), _open_ogg),
        (0, (b"\x1aE\xdf\xa3",), _open_webm),
        (4, (b"ftyp", b"moov", b"mdat", b"wide"), open_mp4),
        (0, (b"#!AMR",), _open_amr),
    ):
        if data.startswith(magics, offset):
            return opener
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return _open_adts
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:  # sync word and layer III
        return _open_mp3
    return None


def _without_id3(data: bytes) -> bytes:
    """Return `data` without the ID3v2 tags at its start: pictures and texts, which may be compressed 1000 to 1."""
    start = 0
    for _ in range(_MAX_CHUNKS):
        if data[start : start + 3] != b"ID3" or len(data) < start + 10:
            break
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        start += 10 + size + (10 if data[start + 5] & 0x10 else 0)
    if start == 0:
        return data
    while data[start : start + 1] == b"\0":  # some taggers pad the tag with zeros
        start = len(data) - len(data[start:].lstrip(b"\0"))
    return data[start:]


# wav


def plain_wav(data: bytes) -> bytes:
    """Return the wav file `data` with only its format and its samples, and with correct sizes.

    Other chunks are dropped. Sizes may be wrong where a recorder never filled them in or was interrupted.

    Raises UnsupportedAudio for a file without samples.
    """
    position, wav_format = 12, b""
    for _ in range(_MAX_CHUNKS):
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if name == b"fmt ":
            wav_format = data[position : position + min(size, 64)]
        elif name == b"data" and len(wav_format) >= 16:
            # A streamed file is written before its length is known: 0 or 0xFFFFFFFF means "to the end".
            samples = data[position : position + size] if 0 < size < 0xFFFFFFFF else data[position:]
            return wav_of(wav_format, samples)
        elif position > len(data):
            break
        position += size + size % 2
    raise unsupported("The wav file holds no audio.")


def wav_of(wav_format: bytes, samples: bytes) -> bytes:
    block = max(1, int.from_bytes(wav_format[12:14], "little"))
    samples = samples[: len(samples) // block * block]
    chunks = struct.pack("<4sI", b"fmt ", len(wav_format)) + wav_format + b"\0" * (len(wav_format) % 2)
    chunks += struct.pack("<4sI", b"data", len(samples))
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks) + len(samples), b"WAVE") + chunks + samples


# Byte streams that the codec's parser splits into packets


def _slices(data: bytes, start: int = 0) -> Iterator[bytes]:
    return (data[at : at + _FEED_BYTES] for at in range(start, len(data), _FEED_BYTES))


def _open_flac(data: bytes) -> Track:
    if data[4] & 0x7F or data[5:8] != b"\0\0\x22":
        raise unsupported("The flac file does not begin with its stream information.")
    stream_info = int.from_bytes(data[18:26], "big")
    position, last = 4, False
    for _ in range(_MAX_CHUNKS):
        last, position = bool(data[position] & 0x80), position + 4 + int.from_bytes(data[position + 1 : position + 4])
        if last:
            channels, sample_rate = (stream_info >> 41 & 7) + 1, stream_info >> 44
            return Track("flac", _slices(data, position), data[8:42], channels, sample_rate, framed=False)
    raise unsupported("The flac file has too many metadata blocks.")


def _open_adts(data: bytes) -> Track:
    return Track("aac", _slices(data), framed=False)


def _open_mp3(data: bytes) -> Track:
    rates = (44100, 48000, 32000, 44100)
    mpeg1 = data[1] & 0x18 == 0x18
    rate = rates[data[2] >> 2 & 3] // (1 if mpeg1 else 2 if data[1] & 0x10 else 4)
    return Track("mp3float", _slices(data), skip_s=_mp3_run_in(data, 1152 if mpeg1 else 576) / rate, framed=False)


def _mp3_run_in(data: bytes, frame_samples: int) -> int:
    """Return how many samples the encoder put first, by LAME's tag. The tag's own frame decodes to silence."""
    at = max(data[:64].find(b"Xing"), data[:64].find(b"Info"))
    if at < 0 or len(data) < at + 144:
        return 0
    encoder_delay = int.from_bytes(data[at + 141 : at + 144]) >> 12
    return frame_samples + (encoder_delay + 529 if encoder_delay else 0)  # 529 samples are the decoder's delay


_AMR_NB_BYTES = (12, 13, 15, 17, 19, 20, 26, 31, 5, 0, 0, 0, 0, 0, 0, 0)
_AMR_WB_BYTES = (17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0, 0, 0, 0, 0)


def _open_amr(data: bytes) -> Track:
    for magic, codec, sizes, rate in (
        (b"#!AMR\n", "amrnb", _AMR_NB_BYTES, 8000),
        (b"#!AMR-WB\n", "amrwb", _AMR_WB_BYTES, 16000),
    ):
        if data.startswith(magic):
            return Track(codec, _amr_packets(data, len(magic), sizes), channels=1, sample_rate=rate)
    raise unsupported("The amr file has more than one channel.")


def _amr_packets(data: bytes, position: int, sizes: tuple[int, ...]) -> Iterator[bytes]:
    while position < len(data):
        end = position + 1 + sizes[data[position] >> 3 & 15]
        yield data[position:end]
        position = end


# Ogg


@dataclass(frozen=True)
class _Page:
    begins: bool
    continues: bool
    serial: int
    lacing: bytes
    body: bytes


def _ogg_pages(data: bytes) -> Iterator[_Page]:
    position = 0
    for _ in range(_MAX_PAGES):
        position = data.find(b"OggS", position)
        if position < 0 or position + 27 > len(data):
            return
        flags, serial, segments = data[position + 5], data[position + 14 : position + 18], data[position + 26]
        lacing = data[position + 27 : position + 27 + segments]
        start = position + 27 + segments
        position = start + sum(lacing)
        yield _Page(bool(flags & 2), bool(flags & 1), int.from_bytes(serial), lacing, data[start:position])
    raise unsupported("The ogg file has too many pages.")


def _first_ogg_stream(data: bytes) -> Iterator[_Page]:
    """Yield the pages of the first Opus or Vorbis stream, without those of concurrent streams."""
    serial, started = None, False
    for page in _ogg_pages(data):
        if page.begins and started:
            raise unsupported("The ogg file holds several recordings, one after the other.")
        started = not page.begins
        if serial is None and page.begins and page.body.startswith((b"OpusHead", b"\x01vorbis")):
            serial = page.serial
        if page.serial == serial:
            yield page


def _ogg_packets(data: bytes) -> Iterator[bytes]:
    partial = bytearray()
    for page in _first_ogg_stream(data):
        start = end = 0
        if not page.continues:
            partial.clear()
        for size in page.lacing:
            end += size
            if size < 255:
                yield bytes(partial) + page.body[start:end]
                partial.clear()
                start = end
        partial += page.body[start:]


def _open_ogg(data: bytes) -> Track:
    packets = _ogg_packets(data)
    head = next(packets, b"")
    if head.startswith(b"OpusHead"):
        next(packets, None)  # the tags
        return opus_track(head, packets)
    if head.startswith(b"\x01vorbis"):
        next(packets, None)
        return vorbis_track(head, next(packets, b""), packets)
    raise unsupported("The ogg file holds no Opus or Vorbis track.")


# WebM and Matroska

_SEGMENT, _CLUSTER, _BLOCK_GROUP, _TRACKS = 0x18538067, 0x1F43B675, 0xA0, 0x1654AE6B
_TRANSPARENT = frozenset({_SEGMENT, _CLUSTER, _BLOCK_GROUP, _TRACKS})
_TRACK_ENTRY, _SIMPLE_BLOCK, _BLOCK = 0xAE, 0xA3, 0xA1
_TRACK_NUMBER, _CODEC_ID, _CODEC_PRIVATE, _AUDIO, _ENCODINGS = 0xD7, 0x86, 0x63A2, 0xE1, 0x6D80
_AUDIO_RATE, _AUDIO_CHANNELS = 0xB5, 0x9F
_WEBM_CODECS = {b"A_AAC": "aac", b"A_MPEG/L3": "mp3float", b"A_PCM/FLOAT/IEEE": "pcm_f32le"}


def _vint(data: bytes, position: int) -> tuple[int, int, int]:
    """Return an EBML number with its length marker, its number of bits without the marker, and the next position."""
    length = 9 - data[position].bit_length()
    return int.from_bytes(data[position : position + length]), 7 * length, position + length


def _elements(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (id, start, end) of every element, including those inside segments, clusters, groups and track lists.

    The sizes of such masters are ignored: a browser that is recording leaves them open.
    """
    position = 0
    for _ in range(_MAX_ELEMENTS):
        if position >= len(data) or not data[position]:
            return
        name, _bits, position = _vint(data, position)
        if position >= len(data) or not data[position]:
            return
        size, bits, position = _vint(data, position)
        if name not in _TRANSPARENT:
            end = position + (size & (1 << bits) - 1)
            yield name, position, min(end, len(data))
            position = end
    raise unsupported("The webm file has too many parts.")


def _children(data: bytes, start: int, end: int) -> dict[int, bytes]:
    inside = data[start:end]
    return {name: inside[a:b] for name, a, b in itertools.islice(_elements(inside), _MAX_CHUNKS)}


def _open_webm(data: bytes) -> Track:
    for name, start, end in _elements(data):
        if name in (_SIMPLE_BLOCK, _BLOCK):
            break
        if name == _TRACK_ENTRY:
            entry = _children(data, start, end)
            if entry.get(_CODEC_ID, b"").startswith(b"A_"):
                return _webm_track(data, entry)
    raise unsupported("The webm file holds no audio track.")


def _webm_track(data: bytes, entry: dict[int, bytes]) -> Track:
    if _ENCODINGS in entry:
        raise unsupported("The webm file's packets are compressed or encrypted once more.")
    packets = _webm_packets(data, int.from_bytes(entry.get(_TRACK_NUMBER, b"\1")))
    codec, private = entry[_CODEC_ID].rstrip(b"\0"), entry.get(_CODEC_PRIVATE, b"")
    if codec == b"A_OPUS":
        return opus_track(private, packets)
    if codec == b"A_VORBIS":
        head_size, comment_size, start = _xiph_sizes(private)
        head, books = private[start : start + head_size], private[start + head_size + comment_size :]
        return vorbis_track(head, books, packets)
    if codec not in _WEBM_CODECS:
        raise unsupported("The webm file's audio is neither Opus, Vorbis nor AAC.")
    audio = _children(entry.get(_AUDIO, b""), 0, len(data))
    channels = int.from_bytes(audio.get(_AUDIO_CHANNELS, b"\1"))
    rate = _ebml_float(audio.get(_AUDIO_RATE, b""))
    return Track(_WEBM_CODECS[codec], packets, private, channels, rate)


def _xiph_sizes(private: bytes) -> tuple[int, int, int]:
    """Return the sizes of the first two of three laced packets, and the start of the first one."""
    if private[0] != 2:
        raise unsupported("The Vorbis header is broken.")
    sizes, position = [0, 0], 1
    for which in (0, 1):
        while private[position] == 255:
            sizes[which] += 255
            position += 1
        sizes[which] += private[position]
        position += 1
    return sizes[0], sizes[1], position


def _ebml_float(raw: bytes) -> int:
    """Return a sample rate in Hz: 8000, Matroska's default, if none is stated, 0 if it makes no sense."""
    if len(raw) not in (4, 8):
        return 8000
    (value,) = struct.unpack(">f" if len(raw) == 4 else ">d", raw)
    return int(value) if 0 <= value < 1 << 31 else 0


def _webm_packets(data: bytes, track: int) -> Iterator[bytes]:
    for name, start, end in _elements(data):
        if name not in (_SIMPLE_BLOCK, _BLOCK) or end - start < 4 or not data[start]:
            continue
        number, bits, start = _vint(data, start)
        if number & (1 << bits) - 1 != track or start + 3 > end:
            continue
        if data[start + 2] & 6:
            raise unsupported("The webm file laces several packets into one block.")
        yield data[start + 3 : end]
