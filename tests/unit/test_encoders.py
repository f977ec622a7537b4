"""Encoders that write as they go: what is decoded is what went in, however it was cut, and it comes early."""

import gc
import io
import os
import struct

import av
import numpy as np
import pytest
import soundfile
from support.speech import say

from mirrorchat.audio.encoders import ENCODERS
from mirrorchat.audio.samples import Audio, Samples, to_pcm16

RATE = 24_000
NAMES = sorted(ENCODERS)
MP3_DELAY = 1105  # samples: what LAME and its decoders put before a sound that has no header to tell of it


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Return some seconds of speech at 24 kHz, float32 (n,), with a length that is no multiple of a codec's frames."""
    samples = say("This is how the answer sounds, and here is a second sentence.").resample(RATE).samples
    return samples[: len(samples) // 1000 * 1000 + 7]


def encode(name: str, samples: Samples, step: int) -> list[bytes]:
    """Return the result of each call of an encoder that gets `step` samples at a time."""
    encoder = ENCODERS[name](RATE)
    begin = encoder.start()
    pieces = [encoder.encode(samples[start : start + step]) for start in range(0, len(samples), step)]
    return [begin, *pieces, encoder.finish()]


def decode(data: bytes) -> Audio:
    """Decode a file with FFmpeg, as players do."""
    with av.open(io.BytesIO(data), "r") as file:
        stream = file.streams.audio[0]
        frames = [frame.to_ndarray().reshape(-1) for frame in file.decode(stream)]
        return Audio(np.concatenate(frames).astype(np.float32), stream.rate)


def noise_ratio_db(original: Samples, heard: Samples) -> float:
    """Return the level of `original` above its difference to `heard`, which has the same length, in dB."""
    return float(10 * np.log10((original**2).sum() / ((original - heard) ** 2).sum()))


@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_the_steps_changes_no_byte(name: str, speech: Samples) -> None:
    whole = b"".join(encode(name, speech, len(speech)))
    assert len(whole) > 10_000
    for step in (1, 777, 24_000):
        part = speech[:5_000] if step == 1 else speech
        assert b"".join(encode(name, part, step)) == b"".join(encode(name, part, len(part)))


def test_pcm_is_the_samples(speech: Samples) -> None:
    assert b"".join(encode("pcm", speech, 999)) == to_pcm16(speech).tobytes()
    assert ENCODERS["pcm"](RATE).content_type == "audio/pcm; rate=24000; channels=1"


def test_other_libraries_read_a_wav_without_length(speech: Samples) -> None:
    data = b"".join(encode("wav", speech, 999))
    assert struct.unpack("<I", data[4:8]) == struct.unpack("<I", data[40:44]) == (0xFFFFFFFF,)
    assert data[44:] == to_pcm16(speech).tobytes()
    assert decode(data).sample_rate == RATE
    np.testing.assert_array_equal(decode(data).samples, to_pcm16(speech))
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.samplerate, file.channels, file.subtype) == (RATE, 1, "PCM_16")
        np.testing.assert_array_equal(file.read(dtype="int16"), to_pcm16(speech))


def test_opus_keeps_position_and_length(speech: Samples) -> None:
    data = b"".join(encode("opus", speech, 2400))
    heard = decode(data)
    assert data[:4] == b"OggS" and heard.sample_rate == 48_000
    assert len(heard.samples) == 2 * len(speech)
    assert noise_ratio_db(speech, heard.resample(RATE).samples) > 15.0


def test_mp3_begins_after_the_codec_delay(speech: Samples) -> None:
    heard = decode(b"".join(encode("mp3", speech, 2400)))
    assert heard.sample_rate == RATE
    assert MP3_DELAY <= len(heard.samples) - len(speech) < MP3_DELAY + 2 * 576
    assert noise_ratio_db(speech, heard.samples[MP3_DELAY : MP3_DELAY + len(speech)]) > 15.0


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_buffers_little(name: str, speech: Samples) -> None:
    first, *pieces, last = encode(name, speech, RATE // 100)
    sizes = np.cumsum([len(piece) for piece in pieces])
    assert sizes[12] > 0  # the first 130 ms give data
    silent, longest = 0, 0
    for piece in pieces:
        silent = 0 if piece else silent + 1
        longest = max(longest, silent)
    assert longest <= 12
    assert len(last) < 0.1 * sizes[-1]  # `finish` gives no more than a tenth of 3.6 s
    assert len(first) < 200


@pytest.mark.parametrize("name", NAMES)
def test_empty_streams_and_abandoned_encoders_are_harmless(name: str) -> None:
    assert len(b"".join(encode(name, np.zeros(0, np.float32), 1))) < 500
    abandoned = ENCODERS[name](RATE)
    abandoned.start()
    abandoned.encode(np.zeros(5_000, np.float32))
    del abandoned


def test_loud_peaks_do_not_wrap_round() -> None:
    loud = np.array([2.0, -2.0], np.float32)
    assert struct.unpack("<2h", b"".join(encode("pcm", loud, 1))) == (32767, -32767)


@pytest.mark.parametrize("name", NAMES)
def test_a_closed_encoder_holds_no_thread(name: str, speech: Samples) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    gc.disable()  # it would free the threads in the end
    try:
        for _ in range(5):
            encoder = ENCODERS[name](RATE)
            encoder.start()
            encoder.encode(speech)
            encoder.close()
            encoder.close()
        del encoder
        assert threads() <= before
    finally:
        gc.enable()
