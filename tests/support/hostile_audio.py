"""Hostile uploads: bombs that decode to far more than their size, false headers, and other formats.

`REFUSED` maps a name to what builds the bytes and the error that refuses them; `READ` maps one to bytes that are odd
but hold sound, and how many seconds of it. Sizes stay under 10 MB, what the server takes by default.
"""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable

from mirrorchat.errors import AudioTooLong, AudioTooShort, MirrorChatError, NonFiniteAudio, UnsupportedAudio
from support.audio_files import KINDS, encode, raw_wav, tone, wav
from support.hostile_mp4 import (
    OPUS_SILENCE,
    UPLOAD_BYTES,
    alac_frame_size,
    mp4_empty_samples,
    mp4_endless_edit,
    mp4_nested,
    mp4_of_empty_chunks,
    mp4_of_empty_fragments,
    mp4_of_small_boxes,
    mp4_other_file,
    mp4_overlapping_samples,
    mp4_packed_index,
    mp4_repeating_edit,
    mp4_run,
    mp4_sample_table,
    mp4_sizes_missing,
    mp4_video_only,
)

Build = Callable[[], bytes]

# flac (RFC 9639), built frame by frame so that hours of silence cost no encoding


def _crc(data: bytes, polynomial: int, width: int) -> int:
    remainder, top = 0, 1 << width - 1
    for byte in data:
        remainder ^= byte << width - 8
        for _ in range(8):
            remainder = remainder << 1 ^ polynomial if remainder & top else remainder << 1
        remainder &= (1 << width) - 1
    return remainder


def flac_head(sample_rate: int, channels: int, total: int, *, block: int = 65535) -> bytes:
    """Return `fLaC` and a stream information block for 16-bit audio that claims `total` samples."""
    form = sample_rate << 44 | channels - 1 << 41 | 15 << 36 | total
    return b"fLaC\x80\0\0\x22" + struct.pack(">HH6x", block, block) + form.to_bytes(8) + bytes(16)


def flac_silence(seconds: float, sample_rate: int, channels: int) -> bytes:
    """Return silence in blocks of 65,535 samples, about 14 bytes each."""
    total = round(seconds * sample_rate)
    blocks = [flac_head(sample_rate, channels, total)]
    for number in range(total // 65535):
        head = b"\xff\xf8\x70" + bytes([channels - 1 << 4 | 8]) + chr(number).encode() + b"\xff\xfe"
        head += bytes([_crc(head, 0x07, 8)])
        frame = head + bytes(3 * channels)  # each channel: a constant, 16 bits of zero
        blocks.append(frame + _crc(frame, 0x8005, 16).to_bytes(2))
    return b"".join(blocks)


def flac_ten_hours() -> bytes:
    """10 h of silence at 16 kHz in 130 kB; a plain read takes 2.2 GB."""
    return flac_silence(36000, 16000, 1)


def flac_eight_channels() -> bytes:
    """2 h of 8 channels at 48 kHz: 2.8 G samples."""
    return flac_silence(7200, 48000, 8)


def flac_fastest() -> bytes:
    """An hour of 2 channels at 192 kHz, the most numbers per second that are decoded."""
    return flac_silence(3600, 192000, 2)


def flac_of_sync_words() -> bytes:
    """10 MB that look like frame headers, which a parser tries one by one."""
    return flac_head(16000, 1, 0) + b"\xff\xf8\x54\x08\0\x5d" * (UPLOAD_BYTES // 6)


def flac_of_metadata() -> bytes:
    """2.5 million empty metadata blocks."""
    return b"fLaC\0" + flac_head(16000, 1, 0)[5:] + b"\x01\0\0\0" * (UPLOAD_BYTES // 4)


# Ogg (RFC 3533); readers that check page sums are not the ones attacked here, so those stay 0


def ogg(packets: Iterable[bytes], *, serial: int = 1, last: bool = True) -> bytes:
    """Return packets under 255 bytes as one stream; the first has a page of its own."""
    whole = list(packets)
    pages = [whole[:1], *(whole[at : at + 255] for at in range(1, len(whole), 255))]
    return b"".join(
        ogg_page(page, 2 if number == 0 else 4 if last and number == len(pages) - 1 else 0, serial, number)
        for number, page in enumerate(pages)
    )


def ogg_page(packets: list[bytes], flags: int, serial: int, number: int) -> bytes:
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0, serial, number, 0, len(packets))
    return head + bytes(map(len, packets)) + b"".join(packets)


def opus_head(channels: int = 1) -> bytes:
    mapping = bytes((1, channels, 0, *range(channels))) if channels > 2 else b"\0"
    return b"OpusHead\x01" + struct.pack("<BHIh", channels, 312, 48000, 0) + mapping


OPUS_TAGS = b"OpusTags" + bytes(8)


def opus_ten_hours() -> bytes:
    """10 h of 20 ms packets in 7.3 MB."""
    return ogg([opus_head(), OPUS_TAGS, *[OPUS_SILENCE] * 1_800_000])


def opus_of_broken_packets() -> bytes:
    """4.7 million packets of one byte, none of which decodes."""
    return ogg([opus_head(), OPUS_TAGS, *[b"\xfb"] * 4_700_000])


def opus_of_short_packets() -> bytes:
    """2.5 ms packets: the most decoder calls per second of audio."""
    return ogg([opus_head(), OPUS_TAGS, *[b"\xe0\xff\xfe"] * 2_300_000])


def ogg_of_empty_pages() -> bytes:
    """350,000 empty pages."""
    return ogg([opus_head(), OPUS_TAGS]) + ogg_page([], 0, 1, 2) * (UPLOAD_BYTES // 27)


def ogg_chained() -> bytes:
    """70,000 recordings one after another, each with its own serial number."""
    return b"".join(ogg([opus_head(), OPUS_TAGS, OPUS_SILENCE], serial=number) for number in range(70_000))


def ogg_side_by_side() -> bytes:
    """200,000 streams that begin at once."""
    return b"".join(ogg_page([opus_head()], 2, number, 0) for number in range(200_000))


def opus_many_channels() -> bytes:
    """200 channels in every packet."""
    return ogg([opus_head(200), OPUS_TAGS, *[OPUS_SILENCE] * 100])


class _BitWriter:
    def __init__(self) -> None:
        self.value, self.length = 0, 0

    def add(self, number: int, bits: int) -> None:
        self.value |= number << self.length
        self.length += bits

    def data(self) -> bytes:
        return self.value.to_bytes(self.length // 8 + 1, "little")


def vorbis_code_books() -> bytes:
    """256 code books of 65,536 x 16 numbers, each in 30 bytes: 1 GB for a decoder to keep."""
    bits = _BitWriter()
    bits.add(255, 8)
    for _ in range(256):
        for number, width in ((0x564342, 24), (16, 16), (1 << 16, 24), (1, 1), (15, 5), (1 << 16, 17)):
            bits.add(number, width)
        for number, width in ((1, 4), (0, 64), (0, 4), (0, 1), (0, 2)):  # a lattice of 2 values to the 16th
            bits.add(number, width)
    head = b"\x01vorbis" + struct.pack("<IBIiiiBB", 0, 1, 48000, 0, 0, 0, 0xB8, 1)
    books = b"\x05vorbis" + bits.data()
    first = ogg_page([head], 2, 1, 0)
    pieces = [books[at : at + 255] for at in range(0, len(books), 255)]
    pages = [pieces[at : at + 200] for at in range(0, len(pieces), 200)]
    body = [ogg_page(page, 1 if number else 0, 1, 2 + number) for number, page in enumerate(pages)]
    return first + ogg_page([b"\x03vorbis" + bytes(8) + b"\x01"], 0, 1, 1) + b"".join(body)


# WebM (RFC 9559)


def element(name: str, payload: bytes) -> bytes:
    return bytes.fromhex(name) + (1 << 56 | len(payload)).to_bytes(8) + payload


def webm(*parts: bytes, codec: bytes = b"A_OPUS", private: bytes | None = None, extra: bytes = b"") -> bytes:
    """Return a webm with one track and `parts` after it; `extra` goes into the track's entry."""
    entry = element("d7", b"\1") + element("83", b"\2") + element("86", codec)
    entry += element("63a2", opus_head() if private is None else private) + extra
    segment = b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + element("1654ae6b", element("ae", entry))
    return element("1a45dfa3", element("4282", b"webm")) + segment + b"".join(parts)


def block(packet: bytes, flags: int = 0x80) -> bytes:
    return element("a3", b"\x81\0\0" + bytes([flags]) + packet)


def webm_of_small_elements() -> bytes:
    """5 million empty elements."""
    return webm(b"\xec\x80" * (UPLOAD_BYTES // 2))


def webm_of_clusters() -> bytes:
    """2 million empty clusters."""
    return webm(b"\x1f\x43\xb6\x75\x80" * (UPLOAD_BYTES // 5))


def webm_nested() -> bytes:
    """A million clusters inside one another, each open-ended."""
    return webm(b"\x1f\x43\xb6\x75\x01" * 1 + b"\xff" * 7 + (b"\x1f\x43\xb6\x75\xff") * (UPLOAD_BYTES // 5))


def webm_packed() -> bytes:
    """Packets under zlib, 10 MB of zeros each, 256 of them laced into one block."""
    encoding = element("6d80", element("6240", element("5034", element("4254", b"\0"))))
    packed = zlib.compress(bytes(10_000_000))
    laced = bytes([0x81, 0, 0, 0x84, 255]) + packed * 256
    return webm(element("1f43b675", element("e7", b"\0") + element("a3", laced)), extra=encoding)


def webm_laced() -> bytes:
    """256 packets laced into one block."""
    return webm(element("1f43b675", block(b"\xff" + OPUS_SILENCE * 256, 0x84)))


def webm_many_channels() -> bytes:
    """Raw audio with 1024 channels."""
    return webm(codec=b"A_PCM/FLOAT/IEEE", extra=element("e1", element("9f", b"\4\0")))


def matroska_attachment_only() -> bytes:
    """A picture in a Matroska file and no track."""
    attachment = element("1941a469", element("61a7", element("465c", bytes(1_000_000))))
    return element("1a45dfa3", element("4282", b"matroska")) + element("18538067", attachment)


def matroska_with_attachment() -> bytes:
    """Audio after a 5 MB picture."""
    picture = element("466e", b"../../etc/passwd") + element("465c", bytes(5_000_000))
    return webm(element("1941a469", element("61a7", picture)), element("1f43b675", block(OPUS_SILENCE) * 100))


# wav


def wav_floats(value: float) -> Build:
    """One second of quiet audio with one sample that is `value`."""

    def build() -> bytes:
        samples = tone(440, 1.0, 16000)
        samples[8000] = value
        return wav(samples, 16000, "FLOAT")

    return build


def wav_of_small_chunks() -> bytes:
    """A million empty chunks before the samples."""
    return raw_wav(bytes(3200), chunks=b"junk\0\0\0\0" * (UPLOAD_BYTES // 8))


# mp3, aac, amr


def id3(frame: bytes, *, version: int = 4, flags: int = 0) -> bytes:
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + size + frame


def second_of(kind: str) -> bytes:
    sample_rate = KINDS[kind].sample_rate
    return encode(tone(440, 1.0, sample_rate), KINDS[kind])


def mp3_behind_large_tag() -> bytes:
    """A second of mp3 after 8 MB of pictures."""
    return id3(b"APIC" + bytes(8_000_000)) + second_of("mp3")


def mp3_behind_packed_tag() -> bytes:
    """A second of mp3 after a tag frame that decompresses to 260 MB."""
    packed = zlib.compress(bytes(260_000_000))
    size = bytes(len(packed) + 4 >> shift & 0x7F for shift in (21, 14, 7, 0))
    plain = bytes(260_000_000 >> shift & 0x7F for shift in (21, 14, 7, 0))
    return id3(b"TXXX" + size + b"\0\x09" + plain + packed) + second_of("mp3")


def mp3_behind_many_tags() -> bytes:
    """A million empty tags."""
    return id3(b"") * (UPLOAD_BYTES // 10)


def noise_behind(head: bytes) -> Build:
    """10 MB of noise that claims to be a stream."""
    return lambda: head + random.Random(1).randbytes(UPLOAD_BYTES - len(head))


def aac_of_eight_channels() -> bytes:
    """A second of mono aac whose later frames claim 7.1, which crashes a binding that counts pointers."""
    data = bytearray(encode(tone(440, 2.0, 48000), KINDS["aac"]))
    position, number = 0, 0
    while position + 7 <= len(data):
        size = (data[position + 3] & 3) << 11 | data[position + 4] << 3 | data[position + 5] >> 5
        if number > 20:  # channel configuration 7: 1 bit in one byte, 2 in the next
            data[position + 2] |= 1
            data[position + 3] |= 0xC0
        position, number = position + size, number + 1
    return bytes(data)


def hours_of(kind: str) -> Build:
    """A second of a stream repeated up to 10 MB."""

    def build() -> bytes:
        second = second_of(kind)
        return second * (UPLOAD_BYTES // len(second))

    return build


def amr_of_nothing() -> bytes:
    """10 million frames that state that nothing was sent."""
    return b"#!AMR\n" + b"\x7c" * UPLOAD_BYTES


# Not sound


def zipped() -> bytes:
    """A zip of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("question.wav", bytes(50_000_000))
    return buffer.getvalue()


def always(data: bytes) -> Build:
    return lambda: data


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"

REFUSED: dict[str, tuple[Build, type[MirrorChatError]]] = {
    "flac, 10 h": (flac_ten_hours, AudioTooLong),
    "flac, 8 channels, 2 h": (flac_eight_channels, AudioTooLong),
    "flac, 2 channels at 192 kHz, 1 h": (flac_fastest, AudioTooLong),
    "flac, sync words": (flac_of_sync_words, UnsupportedAudio),
    "flac, metadata blocks": (flac_of_metadata, UnsupportedAudio),
    "flac, 8 channels at 192 kHz": (lambda: flac_silence(10, 192000, 8), UnsupportedAudio),
    "flac at 1 Hz": (lambda: flac_silence(1e6, 1, 1), UnsupportedAudio),
    "flac at 384 kHz": (lambda: flac_silence(2, 384000, 1), UnsupportedAudio),
    "opus, 10 h": (opus_ten_hours, AudioTooLong),
    "opus, broken packets": (opus_of_broken_packets, UnsupportedAudio),
    "opus, 2.5 ms packets": (opus_of_short_packets, AudioTooLong),
    "opus, 200 channels": (opus_many_channels, UnsupportedAudio),
    "ogg, empty pages": (ogg_of_empty_pages, UnsupportedAudio),
    "ogg, chained": (ogg_chained, UnsupportedAudio),
    "ogg, side by side": (ogg_side_by_side, UnsupportedAudio),
    "vorbis, code books": (vorbis_code_books, UnsupportedAudio),
    "webm, small elements": (webm_of_small_elements, UnsupportedAudio),
    "webm, empty clusters": (webm_of_clusters, UnsupportedAudio),
    "webm, nested clusters": (webm_nested, UnsupportedAudio),
    "webm, packed packets": (webm_packed, UnsupportedAudio),
    "webm, laced packets": (webm_laced, UnsupportedAudio),
    "webm, pcm of 1024 channels": (webm_many_channels, UnsupportedAudio),
    "matroska, attachment only": (matroska_attachment_only, UnsupportedAudio),
    "mp4, sample table": (mp4_sample_table, AudioTooShort),
    "mp4, sizes missing": (mp4_sizes_missing, AudioTooShort),
    "mp4, empty samples": (mp4_empty_samples, AudioTooShort),
    "mp4, empty chunks": (mp4_of_empty_chunks, AudioTooShort),
    "mp4, empty fragments": (mp4_of_empty_fragments, UnsupportedAudio),
    "mp4, overlapping samples": (mp4_overlapping_samples, UnsupportedAudio),
    "mp4, run of samples": (mp4_run, AudioTooShort),
    "mp4, packed index": (mp4_packed_index, UnsupportedAudio),
    "mp4, nested boxes": (mp4_nested, UnsupportedAudio),
    "mp4, small boxes": (mp4_of_small_boxes, UnsupportedAudio),
    "mp4, film without sound": (mp4_video_only, UnsupportedAudio),
    "mp4, edit beyond the end": (mp4_endless_edit, AudioTooShort),
    "alac, frame size": (alac_frame_size, UnsupportedAudio),
    "wav, NaN": (wav_floats(float("nan")), NonFiniteAudio),
    "wav, infinity": (wav_floats(float("inf")), NonFiniteAudio),
    "wav, 1024 channels": (lambda: raw_wav(bytes(2_048_000), channels=1024), UnsupportedAudio),
    "wav, no channels": (lambda: raw_wav(bytes(32000), channels=0), UnsupportedAudio),
    "wav at 1 Hz": (lambda: raw_wav(bytes(200_000), sample_rate=1), UnsupportedAudio),
    "wav at 384 kHz": (lambda: raw_wav(bytes(2_000_000), sample_rate=384000), UnsupportedAudio),
    "wav at 4 GHz": (lambda: raw_wav(bytes(2_000_000), sample_rate=0xFFFFFFFF), UnsupportedAudio),
    "wav, 8 bit, 20 min": (lambda: raw_wav(bytes(9_600_000), sample_rate=8000, bits=8), AudioTooLong),
    "wav, small chunks": (wav_of_small_chunks, UnsupportedAudio),
    "wav, header only": (lambda: raw_wav(b""), AudioTooShort),
    "aiff, empty chunks": (always(b"FORM\0\0\0\0AIFF" + b"NONE\0\0\0\0" * 100_000), UnsupportedAudio),
    "aiff, an exabyte a second": (
        always(b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12\x7f\xff" + b"\xff" * 30 + bytes(500_000)),
        UnsupportedAudio,
    ),
    "caf, a chunk of exabytes": (always(b"caff\0\1\0\0desc" + b"\x7f" * 8 + bytes(500_000)), UnsupportedAudio),
    "au, 4 GB of header": (always(b".snd" + struct.pack(">IIIII", 0xFFFFFFFF, 0, 3, 8000, 1)), AudioTooShort),
    "au, 65,535 channels": (
        always(b".snd" + struct.pack(">IIIII", 24, 0, 3, 8000, 65_535) + bytes(1_000_000)),
        UnsupportedAudio,
    ),
    "mp3, an hour": (hours_of("mp3"), AudioTooLong),
    "mp3, noise": (noise_behind(b"\xff\xfb\x90\x00"), UnsupportedAudio),
    "mp3, only tags": (mp3_behind_many_tags, UnsupportedAudio),
    "aac, an hour": (hours_of("aac"), AudioTooLong),
    "aac, noise": (noise_behind(b"\xff\xf1\x50\x80\x2e\x7f\xfc"), UnsupportedAudio),
    "amr, 2 h": (lambda: b"#!AMR\n" + second_of("amr")[6:] * 6000, AudioTooLong),
    "amr, empty frames": (amr_of_nothing, UnsupportedAudio),
    "playlist": (always(PLAYLIST), UnsupportedAudio),
    "concat list": (always(b"ffconcat version 1.0\nfile /etc/passwd\n"), UnsupportedAudio),
    "ffmetadata": (always(b";FFMETADATA1\ntitle=/etc/passwd\n"), UnsupportedAudio),
    "html": (always(b"<!doctype html><title>404</title>" * 1000), UnsupportedAudio),
    "text in UTF-16": (always("你好，世界".encode("utf-16") * 1000), UnsupportedAudio),
    "zip": (zipped, UnsupportedAudio),
    "noise": (noise_behind(b""), UnsupportedAudio),
    "zeros": (always(bytes(1_000_000)), UnsupportedAudio),
    "one byte": (always(b"R"), UnsupportedAudio),
    "nothing": (always(b""), AudioTooShort),
}


def second_of_pcm() -> bytes:
    return (tone(440, 1.0, 16000) * 32767).astype("<i2").tobytes()


def flac_claiming(total: int) -> Build:
    """A second of flac whose header claims another length."""

    def build() -> bytes:
        data = bytearray(wav(tone(440, 1.0, 16000), 16000, "PCM_16", "FLAC"))
        data[21] = data[21] & 0xF0 | total >> 32
        data[22:26] = (total & 0xFFFFFFFF).to_bytes(4)
        return bytes(data)

    return build


READ: dict[str, tuple[Build, float]] = {
    "wav, 4 GB claimed": (lambda: raw_wav(second_of_pcm(), data_size=0xFFFFFFF0, riff_size=0xFFFFFFFF), 1.0),
    "wav, streamed": (lambda: raw_wav(second_of_pcm(), data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF), 1.0),
    "wav, sizes never filled in": (lambda: raw_wav(second_of_pcm(), data_size=0, riff_size=0), 1.0),
    "wav, RIFF size too small": (lambda: raw_wav(second_of_pcm(), riff_size=4), 1.0),
    "wav, odd chunk in front": (lambda: raw_wav(second_of_pcm(), chunks=b"LIST\3\0\0\0abc\0"), 1.0),
    "wav, half a sample at the end": (lambda: raw_wav(second_of_pcm() + b"\1"), 1.0),
    "wav, loud floats": (lambda: wav(tone(440, 1.0, 16000, 1e30), 16000, "FLOAT"), 1.0),
    "flac, 10 h claimed": (flac_claiming(576_000_000), 1.0),
    "flac, 10 samples claimed": (flac_claiming(10), 1.0),
    "flac, no length": (flac_claiming(0), 1.0),
    "matroska, attachment in front": (matroska_with_attachment, 2.0),
    "mp4, other file named": (mp4_other_file, 1.0),
    "mp4, edit repeated": (mp4_repeating_edit, 1.0),
    "aac that turns into 8 channels": (aac_of_eight_channels, 2.0),
    "mp3 behind a large tag": (mp3_behind_large_tag, 1.0),
    "mp3 behind a packed tag": (mp3_behind_packed_tag, 1.0),
}
HOSTILE: dict[str, Build] = {name: build for name, (build, _) in [*REFUSED.items(), *READ.items()]}
