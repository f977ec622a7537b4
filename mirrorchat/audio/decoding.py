"""Uploads to `Audio`: decoding within bounds of time and memory, and the check that words can be in the result.

libsndfile reads wav, and uncompressed aiff, au and caf as wav. In every other container `uploads/` finds the track, and
libavcodec decodes its packets.
"""

import io
import itertools
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from av.audio.plane import AudioPlane

from mirrorchat.audio.hum import without_hum
from mirrorchat.audio.mix_down import MeanOfChannels, Mix, with_most_speech
from mirrorchat.audio.samples import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Audio, Samples
from mirrorchat.audio.uploads.containers import is_wav, open_track, plain_wav
from mirrorchat.audio.uploads.pcm_files import pcm_as_wav
from mirrorchat.audio.uploads.tracks import Track, unsupported
from mirrorchat.errors import AudioTooLong, AudioTooShort, NonFiniteAudio, SilentAudio

_Packet: TypeAlias = "av.Packet[av.stream.Stream]"

MAX_CHANNELS = 8
MAX_NUMBERS_PER_S = 384_000  # channels times rate: 2 at 192 kHz or 8 at 48 kHz; bounds the work for one second
KEPT_SAMPLE_RATE = 48_000  # Hz; a higher rate holds no more speech and would cost four times the memory
SHORTEST_S = 0.3
# Dither and the noise of a muted input peak near -80 dBFS, room noise in a phone's microphone at -70 to -50, speech
# that is barely audible at -45. -60 dBFS is still 33 steps of a 16-bit sample.
SILENT_PEAK = 10 ** (-60 / 20)  # 0.001

_PADDING_S = 0.25  # what a codec may add: 2 frames of AAC at 8 kHz
_MAX_PACKET_BYTES = 1 << 18  # the largest real packet, 4096 samples of 8-channel 32-bit ALAC, is half of it
_MAX_PACKETS_PER_S = 1_000  # Opus in 2.5 ms packets has 400
_MAX_EMPTY_PACKETS = 3_000  # phones send packets without audio in pauses: 60 s of amr's 20 ms
_WAV_BLOCK_FRAMES = 1 << 14
# libavcodec's names. Of a layout only the number of channels matters here.
_SAMPLE_TYPES: dict[str, type[np.float32 | np.int16 | np.int32]] = {"flt": np.float32, "s16": np.int16, "s32": np.int32}
_LAYOUTS = ("mono", "stereo", "2.1", "quad", "5.0", "5.1", "6.1", "7.1")


def require_speakable(audio: Audio) -> None:
    """Check that words can be in `audio`.

    The peak is measured around the mean, because some broken inputs give a constant offset, which is silence, too.

    Raises AudioTooShort under 0.3 s, and SilentAudio when the peak is under -60 dBFS.
    """
    if audio.duration_s < SHORTEST_S:
        raise AudioTooShort(f"The recording is {audio.duration_s:.2f} s long; the minimum is {SHORTEST_S} s.")
    if np.abs(audio.samples - audio.samples.mean(dtype=np.float64)).max() < SILENT_PEAK:
        raise SilentAudio("The recording is silent. Is the microphone muted?")


def decode(data: bytes | memoryview, *, limit_s: float) -> Audio:
    """Return the first audio track of an upload, mixed down to one channel, resampled to at most 48 kHz.

    The mix is the mean of the channels, unless it loses speech that a channel holds; the file is then decoded once more
    for each candidate. A significant offset and significant hum of the mains are removed.

    The bytes decide what format it is. A file that breaks off gives the audio up to there. `limit_s` (seconds) and
    the size of `data` bound work and memory, whatever the file's headers claim.

    Raises:
        AudioTooLong: the audio is longer than `limit_s`.
        UnsupportedAudio: the format cannot be read, or the audio has not 1 to 8 channels at 4 to 192 kHz.
        NonFiniteAudio: a sample is NaN or infinite.
        AudioTooShort: there is no sample.
    """
    whole = bytes(data)
    if not whole:
        raise AudioTooShort("The upload is empty.")
    mean_of_channels = MeanOfChannels()
    mean = _mixed(whole, limit_s, mean_of_channels)
    doubtful = mean_of_channels.doubtful()
    return with_most_speech(mean, [_mixed(whole, limit_s, channel) for channel in doubtful]) if doubtful else mean


def _mixed(data: bytes, limit_s: float, mix: Mix) -> Audio:
    """Return the recording in `data`, whose channels `mix` makes into one signal. Raises as `decode` does."""
    wav = plain_wav(data) if is_wav(data) else pcm_as_wav(data)
    if wav is not None:
        audio = _join(_up_to(_wav_blocks(wav, mix), limit_s), limit_s)
    else:
        track = open_track(data)
        packets = _packet_blocks(track, int(limit_s * _MAX_PACKETS_PER_S), mix)
        blocks = _up_to(packets, limit_s, min(track.skip_s, 1.0))
        audio = _join(_trimmed(blocks, track.skip_s, track.keep_s), limit_s)
    return without_hum(audio)


def decode_speech(data: bytes, *, limit_s: float) -> Audio:
    """Return the recording in `data`. Raises as `decode` and `require_speakable` do."""
    audio = decode(data, limit_s=limit_s)
    require_speakable(audio)
    return audio


@dataclass(frozen=True)
class _Block:
    """A stretch of mono audio, shape (n,), float32. `_join` checks and clips all blocks at once: they may be tiny."""

    samples: Samples
    sample_rate: int


def _check_format(channels: int, sample_rate: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise unsupported(f"The recording has {channels} channels; the server reads 1 to {MAX_CHANNELS}.")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        allowed = f"the server reads {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
        raise unsupported(f"The recording has {sample_rate} samples per second; {allowed}.")
    if channels * sample_rate > MAX_NUMBERS_PER_S:
        raise unsupported(f"The recording has {channels} channels at {sample_rate} Hz: too many samples per second.")


# What libsndfile raises, itself or through its Python wrapper.
_SNDFILE_ERRORS = (soundfile.SoundFileError, AttributeError, MemoryError, OSError, OverflowError, TypeError, ValueError)
# What libavcodec raises through PyAV: FFmpegError for bad data; the others leak from PyAV's own code.
_AV_ERRORS = (av.FFmpegError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


@contextmanager
def _as_unsupported(
    errors: tuple[type[Exception], ...] = _AV_ERRORS, message: str = "The upload cannot be decoded."
) -> Iterator[None]:
    """Raise a library's `errors` as UnsupportedAudio."""
    try:
        yield
    except errors as error:
        raise unsupported(message) from error


def _wav_blocks(data: bytes, mix: Mix) -> Iterator[_Block]:
    """Yield the audio of a plain wav file."""
    with (
        _as_unsupported(_SNDFILE_ERRORS, "The wav file cannot be decoded."),
        soundfile.SoundFile(io.BytesIO(data)) as file,
    ):
        _check_format(file.channels, file.samplerate)
        while len(block := file.read(_WAV_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield _Block(mix(block.T), file.samplerate)


def _packet_blocks(track: Track, most_packets: int, mix: Mix) -> Iterator[_Block]:
    """Yield the audio in a track's packets. Damaged packets are skipped: to a listener they are gaps.

    Raises UnsupportedAudio for more than `most_packets`, too many empty ones, or a change of the sample rate.
    """
    decoder = _decoder(track)
    found, empty_packets, sample_rate = False, 0, 0
    for count, packet in enumerate(itertools.chain(_av_packets(decoder, track), [None])):
        blocks = _frame_blocks(decoder, packet, mix)
        empty_packets += not blocks and packet is not None
        if empty_packets > _MAX_EMPTY_PACKETS or count > most_packets:
            raise unsupported("The upload holds too many packets without audio.")
        for block in blocks:
            if sample_rate and block.sample_rate != sample_rate:
                raise unsupported("The recording changes its sample rate midway.")
            found, sample_rate = True, block.sample_rate
            yield block
    if not found and (empty_packets or not track.framed):
        raise unsupported("The upload cannot be decoded.")


def _decoder(track: Track) -> av.AudioCodecContext:
    if track.channels or track.sample_rate:
        _check_format(track.channels, track.sample_rate)
    with _as_unsupported():
        decoder = av.CodecContext.create(track.codec, "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.thread_count = 1
        if track.extradata:
            decoder.extradata = track.extradata
        if track.channels:
            decoder.sample_rate = track.sample_rate
            decoder.layout = _LAYOUTS[track.channels - 1]
        decoder.open()
    return decoder


def _av_packets(decoder: av.AudioCodecContext, track: Track) -> Iterator[_Packet]:
    """Yield the packets for `decoder`: the track's own, or those that the codec's parser finds in its bytes."""
    for data in _unbroken(track.packets):
        if not track.framed:
            yield from _parsed(decoder, data)
        elif len(data) > _MAX_PACKET_BYTES:
            raise unsupported("The upload holds a packet that is too large.")
        elif data:
            yield av.Packet(data)
    while not track.framed and (rest := _parsed(decoder, None)):
        yield from rest


def _unbroken(packets: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `packets` until the file breaks off or its tables make no sense."""
    with suppress(struct.error, IndexError, OverflowError):
        yield from packets


def _parsed(decoder: av.AudioCodecContext, data: bytes | None) -> list[_Packet]:
    with _as_unsupported():
        return decoder.parse(data)


def _frame_blocks(decoder: av.AudioCodecContext, packet: "_Packet | None", mix: Mix) -> list[_Block]:
    """Return the audio in `packet`, nothing if it is damaged. None flushes the decoder."""
    with _as_unsupported():
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError:
            return []
        return [_frame_block(frame, mix) for frame in frames]


def _frame_block(frame: av.AudioFrame, mix: Mix) -> _Block:
    channels = frame.layout.nb_channels
    _check_format(channels, frame.sample_rate)
    dtype = _SAMPLE_TYPES[frame.format.name.removesuffix("p")]
    # PyAV's `planes` and `to_ndarray` look for a null after the last pointer, and crash on frames with 8 channels.
    planar = frame.format.is_planar
    numbers = frame.samples if planar else frame.samples * channels
    planes = [np.frombuffer(bytes(AudioPlane(frame, i)), dtype, numbers) for i in range(channels if planar else 1)]
    array: npt.NDArray[Any] = np.stack(planes) if planar else planes[0].reshape(-1, channels).T
    mono = mix(array.astype(np.float32, copy=False))
    if dtype != np.float32:  # floats are left as they are: arithmetic with a NaN that signals makes numpy warn
        mono = mono * np.float32(2.0 ** (1 - 8 * array.itemsize))
    return _Block(mono, frame.sample_rate)


# Blocks to Audio


def _up_to(blocks: Iterator[_Block], limit_s: float, run_in_s: float = 0.0) -> Iterator[_Block]:
    """Yield `blocks`. Raises AudioTooLong beyond `limit_s` plus what codecs add at both ends."""
    length = 0
    for block in blocks:
        length += len(block.samples)
        if length > (limit_s + run_in_s + _PADDING_S) * block.sample_rate:
            raise AudioTooLong(f"The recording is longer than {limit_s:g} s.")
        yield block


def _trimmed(blocks: Iterator[_Block], skip_s: float, keep_s: float | None) -> Iterator[_Block]:
    """Yield `blocks` without the first `skip_s` seconds, and at most `keep_s` seconds of them."""
    position = 0
    for block in blocks:
        begin = round(skip_s * block.sample_rate)
        end = sys.maxsize if keep_s is None else begin + round(keep_s * block.sample_rate)
        if position >= end:
            return
        yield _Block(block.samples[max(0, begin - position) : max(0, end - position)], block.sample_rate)
        position += len(block.samples)


def _join(blocks: Iterator[_Block], limit_s: float) -> Audio:
    """Concatenate, check and clip `blocks`, at 48 kHz at most. Raises AudioTooShort and NonFiniteAudio."""
    parts, sample_rate = [np.zeros(0, np.float32)], KEPT_SAMPLE_RATE
    resampler: soxr.ResampleStream | None = None
    for block in blocks:
        sample_rate, samples = block.sample_rate, block.samples
        if sample_rate > KEPT_SAMPLE_RATE:
            resampler = resampler or soxr.ResampleStream(sample_rate, KEPT_SAMPLE_RATE, 1, "float32", quality="HQ")
            samples = resampler.resample_chunk(samples)
        parts.append(samples)
    if resampler is not None:
        sample_rate = KEPT_SAMPLE_RATE
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    joined = np.concatenate(parts)[: round(limit_s * sample_rate)]
    if not len(joined):
        raise AudioTooShort("The recording holds no audio.")
    if not np.isfinite(joined).all():
        raise NonFiniteAudio("The recording holds samples that are not finite numbers.")
    return Audio(np.clip(joined, -1.0, 1.0, out=joined), sample_rate)
