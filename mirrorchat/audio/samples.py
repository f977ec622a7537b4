"""Audio: samples that carry their rate; decoding of any upload within bounds; resampling; encoding.

An upload passes through `decode` (what is it, is it short enough, is it finite) and `require_speakable` (can there be
words in it). wav is read by libsndfile, every other container by `uploads/containers.py` and its packets by libavcodec.
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

from mirrorchat.audio.uploads.containers import is_wav, open_track, plain_wav
from mirrorchat.audio.uploads.tracks import Track, unsupported
from mirrorchat.errors import AudioTooLong, AudioTooShort, NonFiniteAudio, SilentAudio

Samples = npt.NDArray[np.float32]
_Packet: TypeAlias = "av.Packet[av.stream.Stream]"

MAX_CHANNELS = 8
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 192_000  # Hz
MAX_NUMBERS_PER_S = 384_000  # channels times rate: 2 at 192 kHz or 8 at 48 kHz; bounds the work of a second
KEPT_SAMPLE_RATE = 48_000  # Hz; a higher rate holds no more speech and would cost four times the memory
SHORTEST_S = 0.3
# Dither and the noise of a muted input peak near -80 dBFS, the room behind a phone's microphone at -70 to -50, speech
# so faint that it needs an ear at the loudspeaker at -45. -60 dBFS is still 33 steps of a 16-bit sample.
SILENT_PEAK = 10 ** (-60 / 20)  # 0.001

_PADDING_S = 0.25  # what a codec may add: 2 frames of AAC at 8 kHz
_MAX_PACKET_BYTES = 1 << 18  # the largest real one, 4096 samples of 8-channel 32-bit ALAC, is half of it
_MAX_PACKETS_PER_S = 1_000  # Opus in 2.5 ms packets has 400
_MAX_DUDS = 3_000  # packets with no sound in them, as phones send in pauses: 60 s of amr's 20 ms
_WAV_BLOCK_FRAMES = 1 << 14
# libavcodec's names. Of a layout only the number of channels matters here.
_SAMPLE_TYPES: dict[str, type[np.float32 | np.int16 | np.int32]] = {"flt": np.float32, "s16": np.int16, "s32": np.int32}
_LAYOUTS = ("mono", "stereo", "2.1", "quad", "5.0", "5.1", "6.1", "7.1")


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono sound: `samples`, 1-D float32 in [-1, 1], at `sample_rate` Hz. Each is equal to itself alone."""

    samples: Samples
    sample_rate: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate

    def resample(self, sample_rate: int) -> "Audio":
        """Return the same sound at `sample_rate` Hz (soxr HQ: aliases below -138 dB), clipped to [-1, 1]."""
        if sample_rate == self.sample_rate:
            return self
        samples = soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")
        return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32), sample_rate)


def to_pcm16(samples: Samples) -> npt.NDArray[np.int16]:
    """Return float samples as 16-bit integers, clipped before the cast so that a loud peak cannot wrap round."""
    pcm: npt.NDArray[np.int16] = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    return pcm


def encode_wav(audio: Audio) -> bytes:
    """Return `audio` as a whole mono 16-bit wav file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm16(audio.samples), audio.sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def require_speakable(audio: Audio) -> None:
    """Check that words can be in `audio`. Raises AudioTooShort under 0.3 s and SilentAudio under -60 dBFS.

    The peak is taken around the mean, so that a constant offset, which some broken inputs give, is silence too.
    """
    if audio.duration_s < SHORTEST_S:
        raise AudioTooShort(f"The recording is {audio.duration_s:.2f} s long; {SHORTEST_S} s is the least.")
    if np.abs(audio.samples - audio.samples.mean(dtype=np.float64)).max() < SILENT_PEAK:
        raise SilentAudio("The recording is silent. Is the microphone muted?")


def decode(data: bytes | memoryview, *, limit_s: float) -> Audio:
    """Return the sound in an upload: its first track, all channels averaged, at its own rate or 48 kHz if that is less.

    The format is told by the bytes. A file that breaks off gives what is there. Work and memory are bounded by
    `limit_s` (seconds) and the size of `data`, whatever its headers claim.

    Raises AudioTooLong past `limit_s`; UnsupportedAudio for anything that is not sound in 1 to 8 channels at 4 to
    192 kHz in a format that is read; NonFiniteAudio for NaN or infinity; AudioTooShort where there is no sample at all.
    """
    whole = bytes(data)
    if not whole:
        raise AudioTooShort("The upload is empty.")
    if is_wav(whole):
        return _join(_up_to(_wav_blocks(whole), limit_s), limit_s)
    track = open_track(whole)
    blocks = _up_to(_packet_blocks(track, int(limit_s * _MAX_PACKETS_PER_S)), limit_s, min(track.skip_s, 1.0))
    return _join(_cut(blocks, track.skip_s, track.keep_s), limit_s)


@dataclass(frozen=True)
class _Block:
    """A stretch of mono sound, 1-D float32, not yet checked or clipped: blocks may be tiny, so that is done at once."""

    samples: Samples
    sample_rate: int


def _mono(channels: npt.NDArray[np.float32], sample_rate: int) -> _Block:
    """Return the average of `channels`, shape (channels, n); what is not finite in one is not finite in it."""
    if len(channels) == 1:
        return _Block(channels[0], sample_rate)
    with np.errstate(over="ignore", invalid="ignore"):
        return _Block(channels.mean(axis=0, dtype=np.float32), sample_rate)


def _check_form(channels: int, sample_rate: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise unsupported(f"The recording has {channels} channels; 1 to {MAX_CHANNELS} are read.")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise unsupported(
            f"The recording has {sample_rate} samples per second; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} are read."
        )
    if channels * sample_rate > MAX_NUMBERS_PER_S:
        raise unsupported(f"The recording has {channels} channels at {sample_rate} Hz, which is more than is read.")


# What libsndfile raises, itself or through its Python wrapper.
_SNDFILE_ERRORS = (soundfile.SoundFileError, AttributeError, MemoryError, OSError, OverflowError, TypeError, ValueError)


def _wav_blocks(data: bytes) -> Iterator[_Block]:
    """Yield the sound of a wav file. The one place where libsndfile's errors become ours."""
    try:
        with soundfile.SoundFile(io.BytesIO(plain_wav(data))) as file:
            _check_form(file.channels, file.samplerate)
            while len(block := file.read(_WAV_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield _mono(block.T, file.samplerate)
    except _SNDFILE_ERRORS as error:
        raise unsupported("The wav file cannot be decoded.") from error


# What libavcodec raises through PyAV: FFmpegError for bad data; the others leak from PyAV's own code.
_AV_ERRORS = (av.FFmpegError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


@contextmanager
def _av_errors_as_ours() -> Iterator[None]:
    try:
        yield
    except _AV_ERRORS as error:
        raise unsupported("The upload cannot be decoded.") from error


def _packet_blocks(track: Track, most_packets: int) -> Iterator[_Block]:
    """Yield the sound in a track's packets. A damaged packet is passed over, as after a gap in a recording."""
    decoder = _decoder(track)
    found, duds, sample_rate = False, 0, 0
    for count, packet in enumerate(itertools.chain(_av_packets(decoder, track), [None])):
        blocks = _frame_blocks(decoder, packet)
        duds += not blocks and packet is not None
        if duds > _MAX_DUDS or count > most_packets:
            raise unsupported("The upload holds too many packets without sound.")
        for block in blocks:
            if sample_rate and block.sample_rate != sample_rate:
                raise unsupported("The recording changes its sample rate midway.")
            found, sample_rate = True, block.sample_rate
            yield block
    if not found and (duds or not track.framed):
        raise unsupported("The upload cannot be decoded.")


def _decoder(track: Track) -> av.AudioCodecContext:
    if track.channels or track.sample_rate:
        _check_form(track.channels, track.sample_rate)
    with _av_errors_as_ours():
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
    """Yield the packets for `decoder`: the track's own, or those that the codec's parser cuts from its bytes."""
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
    """Yield `packets` up to the place where the file breaks off or its tables make no sense."""
    with suppress(struct.error, IndexError, OverflowError):
        yield from packets


def _parsed(decoder: av.AudioCodecContext, data: bytes | None) -> list[_Packet]:
    with _av_errors_as_ours():
        return decoder.parse(data)


def _frame_blocks(decoder: av.AudioCodecContext, packet: "_Packet | None") -> list[_Block]:
    """Return the sound in one packet, none if it is damaged; for None what the decoder still holds."""
    with _av_errors_as_ours():
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError:
            return []
        return [_frame_block(frame) for frame in frames]


def _frame_block(frame: av.AudioFrame) -> _Block:
    channels = frame.layout.nb_channels
    _check_form(channels, frame.sample_rate)
    kind = _SAMPLE_TYPES[frame.format.name.removesuffix("p")]
    # PyAV's own `planes` and `to_ndarray` look for a null behind the last pointer, and crash on frames of 8 channels.
    planar = frame.format.is_planar
    numbers = frame.samples if planar else frame.samples * channels
    planes = [np.frombuffer(bytes(AudioPlane(frame, i)), kind, numbers) for i in range(channels if planar else 1)]
    array: npt.NDArray[Any] = np.stack(planes) if planar else planes[0].reshape(-1, channels).T
    if kind == np.float32:
        return _mono(array, frame.sample_rate)
    scale = np.float32(2.0 ** (1 - 8 * array.itemsize))
    return _Block(array.mean(axis=0, dtype=np.float32) * scale, frame.sample_rate)


# Blocks to Audio


def _up_to(blocks: Iterator[_Block], limit_s: float, run_in_s: float = 0.0) -> Iterator[_Block]:
    """Pass `blocks` on. Raises AudioTooLong at the one that goes beyond `limit_s` and what codecs add at both ends."""
    length = 0
    for block in blocks:
        length += len(block.samples)
        if length > (limit_s + run_in_s + _PADDING_S) * block.sample_rate:
            raise AudioTooLong(f"The recording is longer than {limit_s:g} s.")
        yield block


def _cut(blocks: Iterator[_Block], skip_s: float, keep_s: float | None) -> Iterator[_Block]:
    """Leave out the first `skip_s` seconds and all behind the following `keep_s`."""
    position = 0
    for block in blocks:
        begin = round(skip_s * block.sample_rate)
        end = sys.maxsize if keep_s is None else begin + round(keep_s * block.sample_rate)
        if position >= end:
            return
        yield _Block(block.samples[max(0, begin - position) : max(0, end - position)], block.sample_rate)
        position += len(block.samples)


def _join(blocks: Iterator[_Block], limit_s: float) -> Audio:
    """Return the blocks as one, checked and clipped, at 48 kHz at most. Raises AudioTooShort and NonFiniteAudio."""
    kept, sample_rate = [np.zeros(0, np.float32)], KEPT_SAMPLE_RATE
    down: soxr.ResampleStream | None = None
    for block in blocks:
        sample_rate, samples = block.sample_rate, block.samples
        if sample_rate > KEPT_SAMPLE_RATE:
            down = down or soxr.ResampleStream(sample_rate, KEPT_SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            samples = down.resample_chunk(samples)
        kept.append(samples)
    if down is not None:
        sample_rate = KEPT_SAMPLE_RATE
        kept.append(down.resample_chunk(np.zeros(0, np.float32), last=True))
    joined = np.concatenate(kept)[: round(limit_s * sample_rate)]
    if not len(joined):
        raise AudioTooShort("The recording holds no sound.")
    if not np.isfinite(joined).all():
        raise NonFiniteAudio("The recording holds samples that are not finite numbers.")
    return Audio(np.clip(joined, -1.0, 1.0, out=joined), sample_rate)
