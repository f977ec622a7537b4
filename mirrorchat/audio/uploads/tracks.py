"""An audio track as its container describes it, and the codec headers that Ogg, Matroska and mp4 share.

Sources: RFC 7845 (Opus), the Vorbis I specification.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mirrorchat.errors import UnsupportedAudio

READS = (
    "wav, flac, mp3, ogg (opus, vorbis), webm (opus, vorbis), m4a or mp4 (aac, alac, opus), aac, amr, and "
    "uncompressed aiff, au and caf"
)


def unsupported(why: str) -> UnsupportedAudio:
    """Return the error for an upload that cannot be read; its message lists the formats that can."""
    return UnsupportedAudio(f"{why} This server reads {READS}.")


@dataclass(frozen=True)
class Track:
    """One audio track. Its values are what the file claims; the decoder may find others.

    `codec` is the name of libavcodec's decoder and `extradata` its configuration. `packets` is lazy. If `framed` is
    false, its items are slices of a byte stream that the codec's parser splits into packets. `channels` and
    `sample_rate` (Hz) are 0 if only the stream states them. The first `skip_s` seconds of the decoded audio are
    dropped (codec delay, or an edit list), and at most `keep_s` seconds are kept.
    """

    codec: str
    packets: Iterator[bytes]
    extradata: bytes = b""
    channels: int = 0
    sample_rate: int = 0
    skip_s: float = 0.0
    keep_s: float | None = None
    framed: bool = True


def opus_track(head: bytes, packets: Iterator[bytes]) -> Track:
    """Return an Opus track from its identification header, `OpusHead` (RFC 7845). Raises UnsupportedAudio."""
    if len(head) < 19:
        raise unsupported("The Opus header is broken.")
    return Track("opus", packets, head, head[9], 48000)  # the decoder drops the codec delay


def vorbis_track(head: bytes, books: bytes, packets: Iterator[bytes]) -> Track:
    """Return a Vorbis track from its identification and setup headers.

    Raises UnsupportedAudio for a setup header that would take too much memory.
    """
    channels, sample_rate = struct.unpack_from("<BI", head, 11)
    _check_vorbis_books(books)
    # Three headers in Matroska's lacing. The comment is empty: nothing reads the uploaded one.
    comment = b"\x03vorbis" + bytes(8) + b"\x01"
    extradata = bytes((2, len(head), len(comment))) + head + comment + books
    return Track("vorbis", packets, extradata, channels, sample_rate)


_MAX_BOOKS_BYTES = 1 << 15  # encoders write 3 to 10 kB
_MAX_BOOK_FLOATS = 1 << 19  # libvorbis's own books come to about 2 ** 17 floats in all


class _Bits:
    """Reads bits in Vorbis's order, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.position, self.end = int.from_bytes(data, "little"), 0, 8 * len(data)

    def read(self, count: int) -> int:
        if self.position + count > self.end:
            raise IndexError("past the end of the Vorbis header")
        self.position += count
        return self.value >> self.position - count & (1 << count) - 1


def _check_vorbis_books(books: bytes) -> None:
    """Refuse a setup header whose code books, which are run-length coded, expand to many times its size."""
    if not books.startswith(b"\x05vorbis") or len(books) > _MAX_BOOKS_BYTES:
        raise unsupported("The Vorbis header is broken.")
    bits, floats = _Bits(books[7:]), 0
    for _ in range(bits.read(8) + 1):
        floats += _vorbis_book_floats(bits)
        if floats > _MAX_BOOK_FLOATS:
            raise unsupported("The Vorbis header asks for too much memory.")


def _vorbis_book_floats(bits: _Bits) -> int:
    """Read one code book (Vorbis I, section 3.2.1) and return how many floats a decoder keeps for it."""
    if bits.read(24) != 0x564342:
        raise unsupported("The Vorbis header is broken.")
    dimensions, entries = bits.read(16), bits.read(24)
    if not 1 <= dimensions <= 16 or entries > 1 << 16:  # libavcodec's limits
        raise unsupported("The Vorbis header asks for too much memory.")
    _skip_code_lengths(bits, entries)
    lookup = bits.read(4)
    if lookup:
        bits.read(64)
        width = bits.read(4) + 1
        bits.read(1)
        bits.read(width * (_lattice_side(entries, dimensions) if lookup == 1 else entries * dimensions))
    return entries * (dimensions if lookup else 1)


def _skip_code_lengths(bits: _Bits, entries: int) -> None:
    if bits.read(1):  # ordered: the number of entries of each length, from a first length on
        for _ in range(bits.read(5), 33):
            if entries <= 0:
                break
            entries -= bits.read(entries.bit_length())
        return
    sparse = bits.read(1)
    for _ in range(entries):
        if not sparse or bits.read(1):
            bits.read(5)


def _lattice_side(entries: int, dimensions: int) -> int:
    """Return the largest integer whose power of `dimensions` is at most `entries`."""
    side: int = round(entries ** (1 / dimensions)) + 1
    while int(side**dimensions) > entries:
        side -= 1
    return side
