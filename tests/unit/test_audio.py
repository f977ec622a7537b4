"""Decoding: the formats that browsers and phones write are decoded; bombs, false headers and damage cost little."""

import io
import json
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from support.audio_files import KINDS, WAV_SUBTYPES, burst, encode, raw_wav, tone, wav
from support.hostile_audio import READ, REFUSED
from support.places import ROOT

from mirrorchat.audio.decoding import decode, require_speakable
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio, to_pcm16
from mirrorchat.errors import AudioTooLong, AudioTooShort, NonFiniteAudio, SilentAudio, UnsupportedAudio

Samples = npt.NDArray[np.float32]
CLIPS = ROOT.parent / "shared" / "clips"
LIMIT_S = 60.0
INDEX_AT_END = {"m4a aac", "m4a aac at 44.1 kHz", "m4a alac", "mp4 opus", "mp4 mp3", "mov aac", "3gp amr"}


def frequency(samples: Samples, sample_rate: int) -> float:
    """Return the strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(spectrum.argmax() * sample_rate / (1 << 18))


def level(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def onset_s(audio: Audio) -> float:
    loud = np.flatnonzero(np.abs(audio.samples) > np.abs(audio.samples).max() / 4)
    return float(loud[0] / audio.sample_rate)


def check_burst(audio: Audio, sample_rate: int, delay_s: float, duration_s: float = 2.0) -> None:
    """Check the decoded audio of `burst`: rate, length, onset, frequency and level."""
    assert audio.sample_rate == sample_rate
    assert audio.samples.dtype == np.float32 and audio.samples.ndim == 1
    assert audio.duration_s == pytest.approx(duration_s, abs=delay_s + 0.06)
    assert onset_s(audio) == pytest.approx(1.0 + delay_s, abs=0.004)
    middle = audio.samples[round((1.1 + delay_s) * sample_rate) : round((1.4 + delay_s) * sample_rate)]
    assert frequency(middle, sample_rate) == pytest.approx(1000, abs=3)
    assert level(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.15)


@pytest.mark.parametrize("name", KINDS)
def test_each_format_keeps_onset_pitch_and_level(name: str) -> None:
    kind = KINDS[name]
    check_burst(decode(encode(burst(kind.sample_rate), kind), limit_s=LIMIT_S), kind.sample_rate, kind.delay_s)


@pytest.mark.parametrize("subtype", WAV_SUBTYPES)
def test_each_kind_of_wav(subtype: str) -> None:
    check_burst(decode(wav(burst(16000), 16000, subtype), limit_s=LIMIT_S), 16000, 0.0)


@pytest.mark.parametrize("container", ["WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_other_wav_headers(container: str, subtype: str) -> None:
    samples = burst(44100)
    audio = decode(wav(samples, 44100, subtype, container), limit_s=LIMIT_S)
    assert np.abs(audio.samples - samples).max() < 1e-4


PCM = ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
PCM_FILES = [
    *((container, each, "FILE") for container in ("AIFF", "AU", "CAF") for each in PCM),
    *(("AIFF", each, "LITTLE") for each in ("PCM_16", "PCM_24", "PCM_32")),
    *(("CAF", each, "LITTLE") for each in ("PCM_16", "PCM_24", "FLOAT")),
    *(("WAV", each, "BIG") for each in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW")),
]


@pytest.mark.parametrize(("container", "subtype", "endian"), PCM_FILES)
def test_files_of_uncompressed_samples(container: str, subtype: str, endian: str) -> None:
    samples, buffer = np.stack([burst(44100), 0.5 * burst(44100)], axis=1), io.BytesIO()
    soundfile.write(buffer, samples, 44100, format=container, subtype=subtype, endian=endian)
    audio = decode(buffer.getvalue(), limit_s=LIMIT_S)
    assert audio.sample_rate == 44100 and len(audio.samples) == len(samples)
    coarse = subtype in ("ULAW", "ALAW", "PCM_S8", "PCM_U8")
    assert np.abs(audio.samples - samples.mean(axis=1)).max() < (0.03 if coarse else 1e-4)


@pytest.mark.parametrize(("container", "subtype"), [("CAF", "ALAC_16"), ("AU", "G721_32"), ("AIFF", "IMA_ADPCM")])
def test_compressed_samples_in_them_are_refused(container: str, subtype: str) -> None:
    with pytest.raises(UnsupportedAudio, match="are compressed"):
        decode(wav(burst(8000), 8000, subtype, container), limit_s=LIMIT_S)


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize("container", ["AIFF", "AU", "CAF"])
def test_uncompressed_samples_that_break_off(container: str, part: float) -> None:
    data = wav(burst(16000), 16000, "PCM_16", container)
    audio = decode(data[: int(part * len(data))], limit_s=LIMIT_S)
    assert audio.duration_s == pytest.approx(part * len(burst(16000)) / 16000, abs=0.2)


def test_memoryview_is_read_like_bytes() -> None:
    data = wav(burst(16000), 16000)
    audio = decode(memoryview(data), limit_s=LIMIT_S)
    assert np.array_equal(audio.samples, decode(data, limit_s=LIMIT_S).samples)


@pytest.mark.parametrize("name", ["flac", "m4a alac", "matroska pcm"])
def test_lossless_formats_give_the_samples_back(name: str) -> None:
    samples = burst(KINDS[name].sample_rate)
    audio = decode(encode(samples, KINDS[name]), limit_s=LIMIT_S)
    assert len(audio.samples) == len(samples)
    assert np.abs(audio.samples - samples).max() < 2e-4


def test_24_bit_flac_keeps_its_level() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, burst(48000), 48000, format="FLAC", subtype="PCM_24")
    audio = decode(buffer.getvalue(), limit_s=LIMIT_S)
    assert np.abs(audio.samples - burst(48000)).max() < 1e-6


@pytest.mark.parametrize("name", ["wav", "flac", "ogg opus", "m4a aac", "m4a alac", "mp3", "ogg vorbis"])
def test_stereo_is_averaged(name: str) -> None:
    sample_rate = 48000 if name == "wav" else KINDS[name].sample_rate
    stereo = np.stack([tone(600, 1.0, sample_rate, 0.6), tone(1500, 1.0, sample_rate, 0.2)], axis=1)
    audio = decode(wav(stereo, sample_rate) if name == "wav" else encode(stereo, KINDS[name]), limit_s=LIMIT_S)
    at = np.arange(sample_rate // 4, sample_rate // 2) / sample_rate
    part = audio.samples[sample_rate // 4 : sample_rate // 2]
    for hz, peak in ((600, 0.3), (1500, 0.1)):
        assert 2 * abs(np.mean(part * np.exp(-2j * np.pi * hz * at))) == pytest.approx(peak, rel=0.08)


@pytest.mark.parametrize("channels", range(1, 9))
def test_one_to_eight_channels(channels: int) -> None:
    samples = np.zeros((16000, channels), np.float32)
    samples[:, -1] = tone(440, 1.0, 16000, 0.8)
    for data in (wav(samples, 16000), wav(samples, 16000, "PCM_16", "FLAC")):
        audio = decode(data, limit_s=LIMIT_S)
        assert np.abs(audio.samples - samples[:, -1] / channels).max() < 2e-4


@pytest.mark.parametrize("name", ["aac", "m4a aac", "ogg opus", "webm opus"])
@pytest.mark.parametrize("channels", [6, 8])
def test_surround_sound_in_packets(name: str, channels: int) -> None:
    sample_rate = KINDS[name].sample_rate
    samples = np.zeros((sample_rate, channels), np.float32)
    samples[:, 0] = tone(600, 1.0, sample_rate, 0.8)
    audio = decode(encode(samples, KINDS[name]), limit_s=LIMIT_S)
    part = audio.samples[sample_rate // 4 : sample_rate * 3 // 4]
    assert frequency(part, sample_rate) == pytest.approx(600, abs=3)
    assert level(part) == pytest.approx(0.8 / np.sqrt(2) / channels, rel=0.2)


@pytest.mark.parametrize("sample_rate", [4000, 8000, 22050, 44100, 48000])
def test_rate_is_kept(sample_rate: int) -> None:
    audio = decode(wav(tone(440, 1.0, sample_rate), sample_rate), limit_s=LIMIT_S)
    assert (audio.sample_rate, len(audio.samples)) == (sample_rate, sample_rate)


@pytest.mark.parametrize("sample_rate", [88200, 96000, 192000])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_high_rates_come_down_to_48_khz(sample_rate: int, container: str) -> None:
    both = tone(1000, 1.0, sample_rate) + tone(30000, 1.0, sample_rate, 0.4)
    audio = decode(wav(both, sample_rate, "PCM_24", container), limit_s=LIMIT_S)
    assert audio.sample_rate == 48000
    assert audio.duration_s == pytest.approx(1.0, abs=0.001)
    inner = slice(4800, -4800)
    assert np.abs(audio.samples[inner] - tone(1000, 1.0, 48000)[: len(audio.samples)][inner]).max() < 1e-4


@pytest.mark.parametrize("sample_rate", [3999, 192001])
def test_rates_beyond_the_bounds_are_refused(sample_rate: int) -> None:
    with pytest.raises(UnsupportedAudio, match=f"{sample_rate} samples per second"):
        decode(wav(tone(440, 1.0, sample_rate), sample_rate), limit_s=LIMIT_S)


# Length


@pytest.mark.parametrize("name", ["wav", "ogg opus", "m4a aac", "mp3", "aac", "webm opus", "flac"])
def test_the_limit_counts_audio_without_padding(name: str) -> None:
    sample_rate = 16000 if name == "wav" else KINDS[name].sample_rate
    for seconds in (3.0, 3.5):
        samples = tone(440, seconds, sample_rate)
        data = wav(samples, sample_rate) if name == "wav" else encode(samples, KINDS[name])
        if seconds == 3.0:
            assert decode(data, limit_s=3.0).duration_s == pytest.approx(3.0, abs=0.03)
        else:
            with pytest.raises(AudioTooLong, match="longer than 3 s"):
                decode(data, limit_s=3.0)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in INDEX_AT_END])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_recording_gives_the_audio_before_the_end(name: str, part: float) -> None:
    kind = KINDS[name]
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 4 * kind.sample_rate).astype(np.float32)
    data = encode(noise, kind)
    audio = decode(data[: round(part * len(data))], limit_s=LIMIT_S)
    assert audio.duration_s == pytest.approx(4 * part, abs=0.6)


def test_a_truncated_m4a_is_refused_with_the_reason() -> None:
    data = encode(burst(48000), KINDS["m4a aac"])
    with pytest.raises(UnsupportedAudio, match="no index"):
        decode(data[: len(data) // 2], limit_s=LIMIT_S)


def test_a_damaged_packet_is_skipped() -> None:
    data = bytearray(encode(tone(440, 4.0, 44100), KINDS["mp3"]))
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    audio = decode(bytes(data), limit_s=LIMIT_S)
    assert audio.duration_s == pytest.approx(4.0, abs=0.3)


# Bombs and liars


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Return the results of benchmarks/hostile_uploads.py, which decodes each upload in a process of its own."""
    script = ROOT / "benchmarks" / "hostile_uploads.py"
    run = subprocess.run([sys.executable, script, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return {row["upload"]: row for row in json.loads(run.stdout.splitlines()[-1])["rows"]}


@pytest.mark.parametrize("name", [*REFUSED, *READ])
def test_hostile_uploads_cost_little(name: str, measured: dict[str, Any]) -> None:
    row = measured[name]
    if name in REFUSED:
        error = REFUSED[name][1]
        assert row["outcome"] == f"{error.__name__} ({error.status})"
    else:
        assert float(row["outcome"].split()[0]) == pytest.approx(READ[name][1], abs=0.06)
    assert row["memory_mb"] < 50
    assert row["cpu_s"] < 2  # the benchmark shows 0.5 s; this catches only work without a bound


def test_refusals_list_the_formats() -> None:
    with pytest.raises(UnsupportedAudio, match=r"wav, flac, mp3, ogg \(opus, vorbis\), webm .*m4a") as caught:
        decode(b"#EXTM3U\nfile:///etc/passwd\n", limit_s=LIMIT_S)
    assert "passwd" not in caught.value.message
    assert caught.value.param is None, "only a route knows its form"


def test_a_nan_that_signals_is_no_warning() -> None:
    samples = tone(440, 1.0, 48000)
    samples[24_000] = mark = np.float32(0.123)
    data = encode(samples, KINDS["matroska pcm"]).replace(mark.tobytes(), b"\x01\x00\x80\x7f")
    with pytest.raises(NonFiniteAudio):
        decode(data, limit_s=LIMIT_S)


def test_loud_floats_are_clipped() -> None:
    audio = decode(wav(tone(440, 1.0, 16000, 3.0), 16000, "FLOAT"), limit_s=LIMIT_S)
    assert audio.samples.max() == 1.0
    assert audio.samples.min() == -1.0


# Whether words can be in it


def test_speech_like_sound_passes() -> None:
    require_speakable(Audio(tone(200, 0.3, 16000, 0.002), 16000))


def test_too_short() -> None:
    with pytest.raises(AudioTooShort, match=r"0\.29 s"):
        require_speakable(Audio(tone(200, 0.29, 16000), 16000))
    with pytest.raises(AudioTooShort):
        require_speakable(Audio(np.zeros(0, np.float32), 16000))


@pytest.mark.parametrize("offset", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("noise", [0.0, 0.0009])
def test_silence_and_constant_offsets(offset: float, noise: float) -> None:
    samples = np.clip(tone(200, 1.0, 16000, noise) + np.float32(offset), -1, 1)
    with pytest.raises(SilentAudio):
        require_speakable(Audio(samples.astype(np.float32), 16000))


# Resampling and writing


def test_resampling_lets_no_alias_through() -> None:
    audio = Audio(tone(9000, 2.0, 44100, 0.9), 44100).resample(16000)
    assert audio.sample_rate == 16000
    assert audio.duration_s == pytest.approx(2.0, abs=1e-3)
    inner = audio.samples[1600:-1600]  # the tone's sudden ends hold every frequency
    assert 20 * np.log10(level(inner) / (0.9 / np.sqrt(2))) < -100


def test_resampling_keeps_what_fits() -> None:
    audio = Audio(tone(1000, 2.0, 44100, 0.5), 44100).resample(16000)
    assert np.abs(audio.samples - tone(1000, 2.0, 16000, 0.5))[1600:-1600].max() < 1e-4


def test_resampling_to_the_same_rate_and_past_full_scale() -> None:
    square = Audio(np.sign(tone(300, 1.0, 44100)).astype(np.float32), 44100)
    assert square.resample(44100) is square
    assert np.abs(square.resample(16000).samples).max() <= 1.0


def test_pcm_is_clipped_and_not_wrapped() -> None:
    samples = np.array([0, 1, -1, 1.5, -9, 0.5], np.float32)
    assert to_pcm16(samples).tolist() == [0, 32767, -32767, 32767, -32767, 16384]
    assert to_pcm16(samples).dtype == np.int16


def test_written_wav_is_plain() -> None:
    samples = tone(440, 0.5, 24000)
    data = encode_wav(Audio(samples, 24000))
    size = 2 * len(samples)
    form = struct.pack("<IHHIIHH", 16, 1, 1, 24000, 48000, 2, 16)
    header = struct.pack("<4sI8s", b"RIFF", 36 + size, b"WAVEfmt ") + form + struct.pack("<4sI", b"data", size)
    assert data[:44] == header
    assert data[44:] == to_pcm16(samples).tobytes()
    assert data == raw_wav(to_pcm16(samples).tobytes(), sample_rate=24000)


# Real recordings


@pytest.mark.parametrize("name", KINDS)
def test_real_speech_survives_each_format(name: str) -> None:
    clips = sorted(CLIPS.glob("*.wav"))
    if not clips:
        pytest.skip("clips absent: ../shared/clips")
    kind = KINDS[name]
    clip = decode(clips[len(name) % len(clips)].read_bytes(), limit_s=LIMIT_S)
    original = Audio(clip.samples[: 8 * clip.sample_rate], clip.sample_rate).resample(kind.sample_rate)
    audio = decode(encode(original.samples, kind), limit_s=LIMIT_S)
    require_speakable(audio)
    least = 0.6 if "amr" in name else 0.9  # amr models speech, and cuts what is under 80 Hz
    assert best_correlation(original.resample(8000).samples, audio.resample(8000).samples) > least


def best_correlation(first: Samples, second: Samples) -> float:
    """Return the correlation of two sounds at 8 kHz at the best lag within 30 ms of none."""
    length = min(len(first), len(second)) - 480
    base = first[240 : 240 + length]
    return max(float(np.corrcoef(base, second[lag : lag + length])[0, 1]) for lag in range(0, 480))
