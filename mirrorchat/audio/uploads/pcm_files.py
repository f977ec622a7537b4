"""Files of uncompressed samples: aiff (of Macs), caf (of iPhones), au, and wav with the bytes turned round, as wav.

Only the description of the samples is read. Nothing here allocates memory by a number that the upload states.

Sources: Apple's "AIFF-C, draft 08/26/91" and "Core Audio Format Specification 1.0"; au(5).
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mirrorchat.audio.uploads.containers import wav_of
from mirrorchat.audio.uploads.tracks import unsupported

_MAX_CHUNKS = 1_000
_INTEGER, _FLOAT, _A_LAW, _U_LAW = 1, 3, 6, 7  # wav's numbers of encodings
_AIFC_LITTLE_ENDIAN = (b"sowt", b"42n1", b"42ni", b"23ni")
_AIFC = {
    **dict.fromkeys((b"none", b"twos", b"in24", b"in32", *_AIFC_LITTLE_ENDIAN), _INTEGER),
    **{b"fl32": _FLOAT, b"fl64": _FLOAT, b"alaw": _A_LAW, b"ulaw": _U_LAW},
}


class _Samples(NamedTuple):
    """The encoding of samples. `big_endian`: the highest byte is the first. `signed`: those of 8 bits have a sign."""

    encoding: int
    channels: int
    sample_rate: int
    bits: int
    big_endian: bool = True
    signed: bool = True


def pcm_as_wav(data: bytes) -> bytes | None:
    """Return a file of uncompressed samples as wav; None if `data` is none. Raises UnsupportedAudio."""
    try:
        if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
            return _aiff(data)
        if data[:4] == b"RIFX" and data[8:12] == b"WAVE":
            return _rifx(data)
        if data[:4] == b"caff":
            return _caf(data)
        return _au(data) if data[:4] == b".snd" else None
    except struct.error as error:
        raise unsupported("The header of the upload is broken or cut off.") from error


def _aiff(data: bytes) -> bytes:
    chunks = _chunks(data, 12, ">4sI")
    form = chunks.get(b"COMM", b"")
    channels, _, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", form)
    shift = 16_383 + 63 - (exponent & 0x7FFF)
    rate = mantissa >> shift if 0 <= shift < 64 else 0
    compression = form[18:22].lower() if data[8:12] == b"AIFC" else b"none"
    if compression not in _AIFC:
        raise unsupported("The samples of the aiff file are compressed.")
    encoding = _AIFC[compression]
    sound = chunks.get(b"SSND", b"")
    (skipped,) = struct.unpack_from(">I", sound)
    bits = bits if encoding in (_INTEGER, _FLOAT) else 8
    return _wav(_Samples(encoding, channels, rate, bits, compression not in _AIFC_LITTLE_ENDIAN), sound[8 + skipped :])


def _rifx(data: bytes) -> bytes:
    chunks = _chunks(data, 12, ">4sI")
    encoding, channels, rate, _, _, bits = struct.unpack_from(">HHIIHH", chunks.get(b"fmt ", b""))
    if encoding not in (_INTEGER, _FLOAT, _A_LAW, _U_LAW):
        raise unsupported("The samples of the wav file are compressed.")
    return _wav(_Samples(encoding, channels, rate, bits, signed=False), chunks.get(b"data", b""))


def _caf(data: bytes) -> bytes:
    chunks = _chunks(data, 8, ">4sq")
    rate, name, flags, _, _, channels, bits = struct.unpack_from(">d4sIIIII", chunks.get(b"desc", b""))
    encoding = {b"lpcm": _FLOAT if flags & 1 else _INTEGER, b"alaw": _A_LAW, b"ulaw": _U_LAW}.get(name)
    if encoding is None:
        raise unsupported("The samples of the caf file are compressed.")
    whole_rate = int(rate) if 0 <= rate < 1e6 else 0
    return _wav(_Samples(encoding, channels, whole_rate, bits, not flags & 2), chunks.get(b"data", b"")[4:])


def _au(data: bytes) -> bytes:
    start, _, code, rate, channels = struct.unpack_from(">IIIII", data, 4)
    known = {1: (_U_LAW, 8), 27: (_A_LAW, 8), 6: (_FLOAT, 32), 7: (_FLOAT, 64)}
    known |= {2: (_INTEGER, 8), 3: (_INTEGER, 16), 4: (_INTEGER, 24), 5: (_INTEGER, 32)}
    if code not in known:
        raise unsupported("The samples of the au file are compressed.")
    encoding, bits = known[code]
    return _wav(_Samples(encoding, channels, rate, bits), data[start:])


def _chunks(data: bytes, start: int, head: str) -> dict[bytes, bytes]:
    """Return the chunks of a file, the first of each name. One that claims more than there is ends with the file."""
    return dict(reversed(list(_each_chunk(data, start, head))))


def _each_chunk(data: bytes, position: int, head: str) -> Iterator[tuple[bytes, bytes]]:
    padded = head == ">4sI"  # to an even length
    for _ in range(_MAX_CHUNKS):
        if position + struct.calcsize(head) > len(data):
            return
        name, size = struct.unpack_from(head, data, position)
        position += struct.calcsize(head)
        end = len(data) if size < 0 else position + size  # -1: to the end, in a file that was never completed
        yield name, data[position:end]
        position = end + (size % 2 if padded else 0)


def _wav(samples: _Samples, sound: bytes) -> bytes:
    encoding, channels, rate, bits, big_endian, signed = samples
    width = (bits + 7) // 8
    if not (0 < channels < 1 << 16 and 0 < rate < 1 << 32 and 1 <= width <= 8):
        raise unsupported("The header of the upload is broken.")
    block = channels * width
    sound = sound[: len(sound) // width * width]
    if encoding == _INTEGER and width == 1 and signed:
        sound = (np.frombuffer(sound, np.uint8) ^ 0x80).tobytes()  # wav's samples of 8 bits have none
    elif big_endian and width > 1:
        sound = np.frombuffer(sound, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
    wav_format = struct.pack("<HHIIHH", encoding, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, 8 * width)
    return wav_of(wav_format, sound)
