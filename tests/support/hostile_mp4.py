"""Hostile mp4 files (ISO/IEC 14496-12). `hostile_audio.py` states the expected result of each."""

import struct
import zlib

from support.audio_files import KINDS, encode, tone

UPLOAD_BYTES = 10_000_000
HUGE = 0x7FFFFFFF
OPUS_SILENCE = b"\xf8\xff\xfe"  # 20 ms


def box(name: bytes, *payload: bytes) -> bytes:
    body = b"".join(payload)
    return struct.pack(">I4s", 8 + len(body), name) + body


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def opus_entry(rate: int = 48000, channels: int = 1) -> bytes:
    sound = bytes(6) + struct.pack(">H8xHHIHH", 1, channels, 16, 0, rate & 0xFFFF, 0)
    return box(b"Opus", sound, box(b"dOps", struct.pack(">BBHIhB", 0, channels, 312, 48000, 0, 0)))


def mp4(
    *,
    entry: bytes | None = None,
    sizes: bytes = b"",
    runs: bytes = b"",
    offsets: bytes = b"",
    handler: bytes = b"soun",
    edits: bytes = b"",
    movie: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """Return an mp4 of one track with the given tables; `movie` and `tail` follow the track and the index."""
    described = box(b"stsd", numbers(0, 1), opus_entry() if entry is None else entry)
    tables = box(b"stsz", numbers(0), sizes) + box(b"stsc", numbers(0), runs) + box(b"stco", numbers(0), offsets)
    media = box(b"mdhd", numbers(0, 0, 0, 48000, 0, 0)) + box(b"hdlr", numbers(0, 0), handler, bytes(13))
    media += box(b"minf", box(b"stbl", described, tables))
    trak = box(b"trak", box(b"tkhd", numbers(0, 0, 0, 1), bytes(68)), edits, box(b"mdia", media))
    head = box(b"mvhd", numbers(0, 0, 0, 1000, 0), bytes(80))
    return box(b"ftyp", b"isom", numbers(0)) + box(b"moov", head, trak, movie) + tail


def mp4_sample_table() -> bytes:
    """2 billion samples of one size, in one chunk, by three numbers."""
    return mp4(sizes=numbers(1, HUGE), runs=numbers(1, 1, HUGE, 1), offsets=numbers(1, UPLOAD_BYTES))


def mp4_sizes_missing() -> bytes:
    """2 billion samples without their sizes."""
    return mp4(sizes=numbers(0, HUGE), runs=numbers(1, 1, HUGE, 1), offsets=numbers(1, 0))


def mp4_empty_samples() -> bytes:
    """2 million chunks that claim 2 billion empty samples each."""
    return mp4(sizes=numbers(0, HUGE) + bytes(4_000_000), runs=numbers(1, 1, HUGE, 1), offsets=bytes(4_000_000))


def mp4_of_empty_chunks() -> bytes:
    """2.5 million chunks of no sample: a loop that yields nothing."""
    return mp4(sizes=numbers(1, HUGE), runs=numbers(1, 1, 0, 1), offsets=bytes(9_900_000))


def mp4_of_empty_fragments() -> bytes:
    """Half a million empty fragments."""
    return mp4(tail=box(b"moof", box(b"traf")) * (UPLOAD_BYTES // 16))


def mp4_overlapping_samples() -> bytes:
    """2 million samples that are each the whole file."""
    return mp4(sizes=numbers(UPLOAD_BYTES, HUGE), runs=numbers(1, 1, 1, 1), offsets=bytes(8_000_000))


def mp4_run() -> bytes:
    """A fragment of 2 billion samples in 12 bytes."""
    extends = box(b"mvex", box(b"trex", numbers(0, 1, 1, 0, 1, 0)))
    traf = box(b"traf", box(b"tfhd", numbers(0, 1)), box(b"trun", numbers(1, HUGE, UPLOAD_BYTES)))
    return mp4(movie=extends, tail=box(b"moof", traf))


def mp4_packed_index() -> bytes:
    """An index under zlib: 400 MB of zeros in 400 kB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    cmov = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", numbers(400 << 20), packed))
    return box(b"ftyp", b"qt  ", numbers(0)) + box(b"moov", cmov)


def mp4_nested() -> bytes:
    """100,000 boxes inside one another."""
    depth = 100_000
    return box(b"ftyp", b"isom") + b"".join(struct.pack(">I4s", 8 * (depth - at), b"moov") for at in range(depth))


def mp4_of_small_boxes() -> bytes:
    """A million empty boxes before the index."""
    return box(b"ftyp", b"isom") + box(b"free") * (UPLOAD_BYTES // 8) + mp4()


def mp4_video_only() -> bytes:
    """A film without sound, 65,535 x 65,535 pixels."""
    film = box(b"avc1", bytes(6), struct.pack(">H16xHH", 1, 65535, 65535), bytes(50))
    return mp4(entry=film, handler=b"vide", sizes=numbers(1, 9), runs=numbers(1, 1, 9, 1), offsets=numbers(1, 0))


def mp4_other_file() -> bytes:
    """A track whose samples are in another file."""
    real = encode(tone(440, 1.0, 48000), KINDS["m4a aac"])
    return real.replace(b"dinf", b"dinX").replace(b"url \0\0\0\1", b"url \0\0\0\0")


def mp4_endless_edit() -> bytes:
    """An edit list that begins 12 h into one second of audio."""
    edit = box(b"edts", box(b"elst", numbers(0, 1, 1000, HUGE, 1 << 16)))
    packets = OPUS_SILENCE * 50
    plain = mp4(edits=edit, sizes=numbers(3, 50), runs=numbers(1, 1, 50, 1), offsets=numbers(1, 0))
    start = len(plain) + 8
    return mp4(edits=edit, sizes=numbers(3, 50), runs=numbers(1, 1, 50, 1), offsets=numbers(1, start)) + box(
        b"mdat", packets
    )


def mp4_repeating_edit() -> bytes:
    """An edit list that plays the same second 100,000 times; it is decoded once."""
    edits = numbers(1000, 0, 1 << 16) * 100_000
    edit = box(b"edts", box(b"elst", numbers(0, 100_000), edits))
    tables = {"sizes": numbers(3, 50), "runs": numbers(1, 1, 50, 1)}
    start = len(mp4(edits=edit, offsets=numbers(1, 0), **tables)) + 8
    return mp4(edits=edit, offsets=numbers(1, start), **tables) + box(b"mdat", OPUS_SILENCE * 50)


def alac_frame_size() -> bytes:
    """ALAC frames of 2 billion samples, by the header."""
    cookie = box(b"alac", numbers(0, HUGE), bytes((0, 16, 40, 10, 14, 8)), bytes(10), numbers(48000))
    entry = box(b"alac", bytes(6), struct.pack(">H8xHHIHH", 1, 8, 16, 0, 48000, 0), cookie)
    return mp4(entry=entry, sizes=numbers(16, 9), runs=numbers(1, 1, 9, 1), offsets=numbers(1, 0))
