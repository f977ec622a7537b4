"""The audio track of an mp4, m4a, mov or 3gp file, fragmented or not (ISO/IEC 14496-12, 14496-14).

Only the boxes on the path to the first audio track are read, at fixed depths. Tables stay in the upload and are read
one entry at a time, so a false count costs nothing. Files that a box names are never opened.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mirrorchat.audio.uploads.tracks import Track, opus_track, unsupported

_MAX_BOXES = 10_000  # at one level; a 60 s recording in fragments of 100 ms has 1,200
_MAX_SAMPLES = 100_000  # 60 s of Opus in 2.5 ms packets takes 24,000


@dataclass(frozen=True)
class _Box:
    name: bytes
    start: int  # of the payload
    end: int
    outer_start: int


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    end = min(end, len(data))
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:
            size = end - start
        if size < head:
            return
        yield _Box(name, start + head, min(start + size, end), start)
        start += size
    raise unsupported("The mp4 file has too many parts.")


def _find(data: bytes, box: _Box | None, *path: bytes) -> _Box | None:
    """Return the first box along `path` inside `box`, or None."""
    for name in path:
        if box is None:
            return None
        box = next((child for child in _boxes(data, box.start, box.end) if child.name == name), None)
    return box


def open_mp4(data: bytes) -> Track:
    """Return the first audio track. Raises UnsupportedAudio if there is none with a supported codec."""
    movie = next((box for box in _boxes(data, 0, len(data)) if box.name == b"moov"), None)
    if movie is None:
        raise unsupported("The mp4 file has no index (was the recording cut off?).")
    for trak in itertools.islice(_boxes(data, movie.start, movie.end), 64):
        handler = _find(data, trak, b"mdia", b"hdlr") if trak.name == b"trak" else None
        if handler is not None and data[handler.start + 8 : handler.start + 12] == b"soun":
            return _audio_track(data, movie, trak)
    raise unsupported("The mp4 file holds no audio track.")


def _audio_track(data: bytes, movie: _Box, trak: _Box) -> Track:
    table = _find(data, trak, b"mdia", b"minf", b"stbl")
    kinds = _find(data, table, b"stsd")
    if table is None or kinds is None:
        raise unsupported("The mp4 file's audio track has no description.")
    size = struct.unpack_from(">I", data, kinds.start + 8)[0]
    entry = data[kinds.start + 8 : min(kinds.start + 8 + size, kinds.end)]
    packets = itertools.chain(_table_samples(data, table), _fragment_samples(data, movie, trak))
    track = _described(entry, packets)
    skip_s, keep_s = _edit(data, movie, trak)
    if track.codec == "opus":  # the decoder drops the codec delay
        skip_s = max(0.0, skip_s - int.from_bytes(track.extradata[10:12], "little") / 48000)
    return replace(track, skip_s=skip_s, keep_s=keep_s)


def _described(entry: bytes, packets: Iterator[bytes]) -> Track:
    """Return the track that the sample description `entry` describes."""
    kind = entry[4:8]
    channels, rate = struct.unpack_from(">H", entry, 24)[0], struct.unpack_from(">H", entry, 32)[0]
    if kind == b"mp4a":
        return _elementary_track(entry, packets)
    if kind == b"Opus":
        inner = entry[entry.index(b"dOps") + 4 :] if b"dOps" in entry else b""
        _version, channels, pre_skip, rate, gain = struct.unpack_from(">BBHIh", inner)
        head = b"OpusHead\x01" + struct.pack("<BHIh", channels, pre_skip, rate, gain) + inner[10 : 12 + channels + 1]
        return opus_track(head, packets)
    if kind == b"alac":
        at = entry.find(b"alac", 36) - 4
        cookie = entry[at : at + 36]
        if at < 0 or len(cookie) < 36 or int.from_bytes(cookie[12:16]) > 1 << 14:
            raise unsupported("The mp4 file's ALAC header is broken.")
        return Track("alac", packets, cookie, cookie[21], int.from_bytes(cookie[32:36]))
    if kind in (b"samr", b"sawb"):
        return Track("amrnb" if kind == b"samr" else "amrwb", packets, b"", 1, 8000 if kind == b"samr" else 16000)
    if kind == b".mp3":
        return Track("mp3float", packets, b"", channels, rate)
    raise unsupported("The mp4 file's audio is neither AAC, ALAC, Opus, mp3 nor amr.")


def _elementary_track(entry: bytes, packets: Iterator[bytes]) -> Track:
    """Return the track that the descriptors in `esds` describe (14496-1, section 7.2.6)."""
    at = entry.find(b"esds") + 8
    if at < 8:
        raise unsupported("The mp4 file's audio has no codec description.")
    codec, setup = 0, b""
    while at < len(entry):
        tag, size, at = _descriptor(entry, at)
        if tag == 3:
            flags = entry[at + 2]
            at += 3 + 2 * bool(flags & 0x80) + 2 * bool(flags & 0x20)
            at += 1 + entry[at] if flags & 0x40 else 0
        elif tag == 4:
            codec = entry[at]
            at += 13
        else:
            setup = entry[at : at + size] if tag == 5 else setup
            at += size
    if codec in (0x40, 0x66, 0x67, 0x68):
        return Track("aac", packets, setup)
    if codec in (0x69, 0x6B):
        return Track("mp3float", packets)
    raise unsupported("The mp4 file's audio is neither AAC, ALAC, Opus, mp3 nor amr.")


def _descriptor(entry: bytes, at: int) -> tuple[int, int, int]:
    """Return a descriptor's tag, its size (up to four bytes of seven bits each) and the start of its payload."""
    tag, size, last = entry[at], 0, at + 4
    while at < last:
        at += 1
        size = size << 7 | entry[at] & 0x7F
        if not entry[at] & 0x80:
            break
    return tag, size, at + 1


def _timescale(data: bytes, box: _Box | None) -> int:
    """Return the ticks per second that `mvhd` or `mdhd` states."""
    if box is None:
        return 0
    return int.from_bytes(data[box.start + (20 if data[box.start] == 1 else 12) :][:4])


def _edit(data: bytes, movie: _Box, trak: _Box) -> tuple[float, float | None]:
    """Return the seconds to skip and to keep by a simple edit list: empty edits, then one segment of the track.

    Any other edit list (several segments, other speeds) is ignored: the whole track is decoded.
    """
    box = _find(data, trak, b"edts", b"elst")
    ticks = _timescale(data, _find(data, trak, b"mdia", b"mdhd"))
    movie_ticks = _timescale(data, _find(data, movie, b"mvhd"))
    if box is None or not ticks or not movie_ticks:
        return 0.0, None
    entry_format = ">Qq" if data[box.start] == 1 else ">Ii"
    step, count = struct.calcsize(entry_format) + 4, int.from_bytes(data[box.start + 4 : box.start + 8])
    starts = range(box.start + 8, box.end - step + 1, step)[: min(count, 8)]
    edits = [struct.unpack_from(entry_format, data, at) for at in starts]
    segments = [edit for edit in edits if edit[1] >= 0]
    if len(segments) != 1:
        return 0.0, None
    duration, begin = segments[0]
    return begin / ticks, duration / movie_ticks if duration else None


# Samples, as mp4 calls the packets


def _numbers(data: bytes, box: _Box | None, width: int, skip: int) -> memoryview:
    """Return a table's big-endian numbers of `width` bytes each, without its header of `skip` bytes."""
    if box is None:
        return memoryview(b"")
    raw = memoryview(data)[box.start + skip : box.end]
    return raw[: len(raw) // width * width]


def _table_samples(data: bytes, table: _Box) -> Iterator[bytes]:
    sizes_box = _find(data, table, b"stsz")
    if sizes_box is None:
        return
    same, count = struct.unpack_from(">II", data, sizes_box.start + 4)
    sizes = _numbers(data, sizes_box, 4, 12)
    counts = _chunk_counts(_numbers(data, _find(data, table, b"stsc"), 12, 8))
    sample = 0
    chunks = zip(_chunk_offsets(data, table), counts, strict=False)
    for offset, in_chunk in itertools.islice(chunks, _MAX_SAMPLES):
        for _ in range(in_chunk):
            if sample >= min(count, _MAX_SAMPLES) or (not same and 4 * sample >= len(sizes)):
                return
            size = same or int.from_bytes(sizes[4 * sample : 4 * sample + 4])
            yield data[offset : offset + size]
            offset, sample = offset + size, sample + 1


def _chunk_offsets(data: bytes, table: _Box) -> Iterator[int]:
    short = _find(data, table, b"stco")
    width = 8 if short is None else 4
    raw = _numbers(data, short or _find(data, table, b"co64"), width, 8)
    return (int.from_bytes(raw[at : at + width]) for at in range(0, len(raw), width))


def _chunk_counts(runs: memoryview) -> Iterator[int]:
    """Yield the number of samples in each chunk. `runs` are (first chunk, samples per chunk, description)."""
    for at in range(0, len(runs), 12):
        first, in_chunk = struct.unpack_from(">II", runs, at)
        following = struct.unpack_from(">I", runs, at + 12)[0] if at + 12 < len(runs) else 1 << 32
        yield from itertools.repeat(in_chunk, max(0, following - first))


def _fragment_samples(data: bytes, movie: _Box, trak: _Box) -> Iterator[bytes]:
    header = _find(data, trak, b"tkhd")
    if header is None:
        return
    at = header.start + (20 if data[header.start] == 1 else 12)
    track_id = data[at : at + 4]
    default_size = _default_size(data, movie, track_id)
    for moof in _boxes(data, 0, len(data)):
        if moof.name == b"moof":
            for traf in _boxes(data, moof.start, moof.end):
                if traf.name == b"traf":
                    yield from _run_samples(data, moof, traf, track_id, default_size)


def _default_size(data: bytes, movie: _Box, track_id: bytes) -> int:
    extends = _find(data, movie, b"mvex")
    for box in _boxes(data, extends.start, extends.end) if extends is not None else ():
        if box.name == b"trex" and data[box.start + 4 : box.start + 8] == track_id:
            return int.from_bytes(data[box.start + 16 : box.start + 20])
    return 0


def _run_samples(data: bytes, moof: _Box, traf: _Box, track_id: bytes, default_size: int) -> Iterator[bytes]:
    header = _find(data, traf, b"tfhd")
    if header is None or data[header.start + 4 : header.start + 8] != track_id:
        return
    flags, at, offset = int.from_bytes(data[header.start : header.start + 4]), header.start + 8, moof.outer_start
    if flags & 1:
        offset, at = struct.unpack_from(">Q", data, at)[0], at + 8
    at += 4 * bool(flags & 2) + 4 * bool(flags & 8)
    if flags & 0x10:
        default_size = struct.unpack_from(">I", data, at)[0]
    base = offset
    for run in _boxes(data, traf.start, traf.end):
        if run.name == b"trun":
            for start, size in _run_sizes(data, run, base, offset, default_size):
                yield data[start : start + size]
                offset = start + size


def _run_sizes(data: bytes, run: _Box, base: int, offset: int, default_size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of each sample of the box `trun`; they are contiguous."""
    flags, count = struct.unpack_from(">II", data, run.start)
    at = run.start + 8
    if flags & 1:
        offset, at = base + struct.unpack_from(">i", data, at)[0], at + 4
    at += 4 * bool(flags & 4)
    stride = 4 * (flags >> 8 & 15).bit_count()
    # Without fields per sample, nothing in the file confirms the count.
    entries = range(at, min(run.end, at + stride * count), stride) if stride else (at,) * min(count, _MAX_SAMPLES)
    for entry in entries:
        size = default_size
        if flags & 0x200:
            size = struct.unpack_from(">I", data, entry + 4 * bool(flags & 0x100))[0]
        yield offset, size
        offset += size
