"""What wires add to a recording: a constant offset, and the hum of the mains with its harmonics.

Both are loud for a level, a voice activity detector and a pitch follower. They are removed where they are significant;
every other recording stays as it is, bit for bit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

SIGNIFICANT_OFFSET = 0.15  # of the peak
SIGNIFICANT_HUM = 1e-3  # of the power: hum that is weaker, -30 dB, disturbs nothing
MAINS_HZ = (50.0, 60.0)
HARMONICS = 20
# What hum is louder by than the frequencies around it, in every second, at the frequency of the mains and at twice it,
# where a steady voice reaches 17 dB.
STANDS_OUT_DB = (12.0, 25.0)

_BLOCK_S = 0.01
_OFFSET_WINDOW_S = 0.1  # an offset that drifts is followed, which no voice is: it has nothing below 60 Hz
_HUM_WINDOW_S = 1.0  # hum is steady; a voice only crosses its frequencies
_PAUSE_S = 0.2
_SWELL = 1.25  # how much louder than in the pauses hum may be
_STEADY = 0.4  # the least share of its mean that hum keeps in the pauses
_SEARCH_RATE_HZ = 1_000
_WITHIN_HZ, _BESIDE_HZ, _AROUND_HZ = 2.0, 5.0, 20.0  # of hum, of another tone, and of the rest
_SILENT = 1e-5  # -50 dB below the loudest piece
_SHORTEST_S = 0.7  # in less, hum cannot be told from a voice


def without_hum(audio: Audio) -> Audio:
    """Return `audio` without a significant offset and significant hum; the same object if there is neither."""
    level = _without_offset(audio)
    mains_hz = _mains_of(level)
    clean = level if mains_hz is None else _without_harmonics(level, mains_hz)
    return audio if clean is audio else Audio(np.clip(clean.samples, -1.0, 1.0), audio.sample_rate)


def _without_offset(audio: Audio) -> Audio:
    block = _block_of(audio)
    whole = len(audio.samples) // block
    if whole < 2:
        return audio
    means = audio.samples[: whole * block].reshape(whole, block).mean(axis=1, dtype=np.float64)
    offset = _smoothed(means[:, None], _OFFSET_WINDOW_S)[:, 0].real
    peak = float(audio.samples.max() - audio.samples.min()) / 2
    if np.abs(offset).max() < SIGNIFICANT_OFFSET * peak:
        return audio
    offsets = np.interp(np.arange(len(audio.samples)), (np.arange(whole) + 0.5) * block, offset)
    return Audio((audio.samples - offsets).astype(np.float32), audio.sample_rate)


def _mains_of(audio: Audio) -> float | None:
    """Return the frequency in Hz of the mains whose hum is significant in `audio`, or None."""
    if audio.duration_s < _SHORTEST_S:
        return None
    slow = audio.resample(_SEARCH_RATE_HZ)
    power = float(np.mean(np.square(audio.samples, dtype=np.float64)))
    spectra = _spectra(slow)
    for mains_hz in MAINS_HZ:
        above_db = [_stands_out_db(spectra, mains_hz * number) - STANDS_OUT_DB[number - 1] for number in (1, 2)]
        if max(above_db) < 0.0:
            continue
        line_hz = mains_hz * (1 + int(np.argmax(above_db)))
        tone = _Tones.of(slow, np.array([line_hz])).smoothed(_HUM_WINDOW_S)
        amplitudes = tone.amplitudes[:, 0]
        if 2.0 * float(np.mean(np.abs(amplitudes) ** 2)) < SIGNIFICANT_HUM * power:
            continue
        turn = float(np.angle(np.vdot(amplitudes[:-1], amplitudes[1:])))  # in a block, as the mains are never exact
        return (line_hz + turn / (2.0 * np.pi * tone.block / _SEARCH_RATE_HZ)) * mains_hz / line_hz
    return None


def _without_harmonics(audio: Audio, mains_hz: float) -> Audio:
    lines_hz: Array = mains_hz * np.arange(1, HARMONICS + 1, dtype=np.float64)
    tones = _Tones.of(audio, lines_hz[lines_hz < 0.45 * audio.sample_rate])
    hum = tones.smoothed(_HUM_WINDOW_S).limited(_SWELL * tones.in_pauses(audio)).sound()
    return Audio((audio.samples - hum[: len(audio.samples)]).astype(np.float32), audio.sample_rate)


def _spectra(audio: Audio) -> Array:
    """Return the power spectra of pieces of a second, half of each in the next: shape (pieces, frequencies in Hz).

    Pieces of digital silence, where a device had not begun, are left out.
    """
    length, rate = len(audio.samples), audio.sample_rate
    starts = range(0, max(1, length - rate + 1), rate // 2)
    pieces = [audio.samples[start : start + rate] for start in starts]
    spectra = np.stack([np.abs(np.fft.rfft(piece * np.hanning(len(piece)), rate)) ** 2 for piece in pieces])
    power = spectra.sum(axis=1)
    loud: Array = spectra[power >= _SILENT * power.max()]
    return loud


def _stands_out_db(spectra: Array, hz: float) -> float:
    """Return how far a frequency stands above those around it in every one of the spectra."""
    distance = np.abs(np.arange(spectra.shape[1]) - hz)
    line = spectra[:, distance <= _WITHIN_HZ].max(axis=1)
    beside = spectra[:, (distance > _WITHIN_HZ) & (distance <= _BESIDE_HZ)].max(axis=1)
    around = np.median(spectra[:, (distance > _BESIDE_HZ) & (distance <= _AROUND_HZ)], axis=1)
    return float(10.0 * np.log10(((line + 1e-12) / (np.maximum(beside, around) + 1e-12)).min()))


@dataclass(frozen=True)
class _Tones:
    """The complex `amplitudes` of tones in blocks of a recording, (blocks, tones), at the frequencies `hz`, (tones,).

    `block` is the length of a block in samples.
    """

    amplitudes: Complex
    hz: Array
    block: int
    sample_rate: int

    @classmethod
    def of(cls, audio: Audio, hz: Array) -> "_Tones":
        block = _block_of(audio)
        blocks = np.pad(audio.samples, (0, -len(audio.samples) % block)).reshape(-1, block)
        silent = cls(np.zeros((len(blocks), len(hz)), np.complex128), hz, block, audio.sample_rate)
        amplitudes = (blocks @ silent._within().conj()) * silent._between().conj() / block
        return cls(amplitudes, hz, block, audio.sample_rate)

    def smoothed(self, window_s: float) -> "_Tones":
        return _Tones(_smoothed(self.amplitudes, window_s), self.hz, self.block, self.sample_rate)

    def in_pauses(self, audio: Audio) -> Array:
        """Return the amplitude of each tone in the pauses, shape (tones,); 0 for one that is not steady, a voice."""
        whole = len(audio.samples) // self.block
        power = np.square(audio.samples[: whole * self.block].reshape(whole, self.block)).mean(axis=1)
        begun = power >= _SILENT * power.max()
        short = np.abs(_smoothed(self.amplitudes, _PAUSE_S)[:whole][begun])
        quiet: Array = np.percentile(short, 20, axis=0)
        steady: Array = np.where(quiet >= _STEADY * np.sqrt(np.mean(short**2, axis=0)), quiet, 0.0)
        return steady

    def limited(self, amplitudes: Array) -> "_Tones":
        """Return the tones, each with at most one of `amplitudes`, (tones,)."""
        gain = np.minimum(1.0, amplitudes / np.maximum(np.abs(self.amplitudes), 1e-12))
        return _Tones(self.amplitudes * gain, self.hz, self.block, self.sample_rate)

    def sound(self) -> Array:
        """Return the samples of the tones."""
        turned = self.amplitudes * self._between()
        samples: Array = 2.0 * (turned @ self._within().T).real
        return samples.ravel()

    def _within(self) -> Complex:
        """Return the carriers within a block, (block, tones)."""
        carriers: Complex = np.exp(2j * np.pi * np.outer(np.arange(self.block), self.hz) / self.sample_rate)
        return carriers

    def _between(self) -> Complex:
        """Return the carriers at the start of each block, (blocks, tones)."""
        starts = self.block * np.arange(len(self.amplitudes))
        carriers: Complex = np.exp(2j * np.pi * np.outer(starts, self.hz) / self.sample_rate)
        return carriers


def _block_of(audio: Audio) -> int:
    return max(1, round(_BLOCK_S * audio.sample_rate))


def _smoothed(columns: Array | Complex, window_s: float) -> Complex:
    """Return `columns`, (blocks, n), smoothed with a Hann window; at the ends it weighs the blocks that there are."""
    half = round(window_s / _BLOCK_S / 2)
    window = np.hanning(2 * half + 3)[1:-1]
    weights = np.convolve(np.ones(len(columns)), window)[half:][: len(columns)]
    smooth = [np.convolve(column, window)[half:][: len(columns)] / weights for column in columns.T]
    return np.stack(smooth, axis=1).astype(np.complex128)
