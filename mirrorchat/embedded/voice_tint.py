"""The voice tint moves neutral speech toward a speaker's pitch and timbre by signal processing. It is not a clone.

Method: WORLD (Morise, Yokomori and Ozawa 2016, "WORLD: a vocoder-based high-quality speech synthesis system") analyses
speech into spectral envelope and aperiodicity. The closed-form optimal transport between two Gaussians (Peyré and
Cuturi 2019, "Computational optimal transport", remark 2.31; full covariance) maps the mel-cepstra of voiced frames;
log-F0 is mapped by its mean and spread, the aperiodicity by its mean. Then WORLD synthesizes the speech. Everything is
at 16 kHz, in frames of 5 ms. Unvoiced frames keep their timbre: those of a recording hold as much of the room as of the
voice, and mapped to them, speech sounded far less natural.
"""

import functools
import importlib
import json
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from mirrorchat.audio.samples import Audio
from mirrorchat.embedded.pitch import FRAME_S, follow_pitch
from mirrorchat.engines import SpeakerEmbedding, Voice, VoiceKind

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SAMPLE_RATE_HZ = 16_000
FRAME_MS = 1000.0 * FRAME_S
STRENGTH = 0.85  # of eSpeak NG's tint: 1 would make its words less intelligible

_FFT_SIZE = 1024
_BINS = _FFT_SIZE // 2 + 1  # 513
_MEL_BANDS = 80
_ANALYSIS_PEAK = 0.5
_CEPSTRA = 24
_F0_FLOOR_HZ, _F0_CEILING_HZ = 60.0, 450.0
_ACTIVE_RANGE_DB = 35.0  # frames that are quieter than the loud ones by more than this are background
_MIN_FRAMES = 30  # fewer voiced frames say nothing about a voice
_SHRINK, _SHRINK_FEW, _FEW_FRAMES = 0.3, 0.5, 150
_CLASS_SIZE = 1 + _CEPSTRA + (_CEPSTRA - 1) ** 2  # 554
_SMOOTHING_FRAMES = 6.0  # 30 ms; a filter that changes faster sounds less natural
_F0_WEIGHT = 5.5  # a speaker's median pitch moves by some 15 % from one utterance to the next: 1 / (8 * 0.15 ** 2)

# Measured on recordings of 1 to 9 s: two speakers with a microphone each reached at most 0.63, half of the pairs 0.03
# or less; eSpeak NG's similar voices f2 and f5 (like two people at one microphone) reached 0.885. One speaker reached
# 0.89 from 4 s to the next 4 s, 0.38 between sentences of 3 s, and never less than 0.21. Pitch and timbre leave most
# pairs in doubt, which costs little: 2 s of speech nearly suffice for a tint.
SAME_FROM, DIFFERENT_TO = 0.9, 0.135

PROFILE_SIZE = 2 + _BINS + _CLASS_SIZE  # 1,069 numbers, 9 kB


@dataclass(frozen=True, eq=False)
class FrameClass:
    """The cepstra of voiced frames: number, mean (24,), and covariance of all but the first (23, 23).

    The first cepstrum is loudness, which belongs to the recording and not to the voice.
    """

    frames: int
    mean: Array
    covariance: Array


@dataclass(frozen=True, eq=False)
class Profile:
    """The statistics of a voice's voiced frames, 9 kB. No word can be recovered from them.

    `f0_mean` and `f0_spread` are of the natural logarithm of Hz; `aperiodicity` (513,) is the mean logit.
    """

    f0_mean: float
    f0_spread: float
    aperiodicity: Array
    voiced: FrameClass

    def to_bytes(self) -> bytes:
        """Return the profile as `PROFILE_SIZE` little-endian float64."""
        voiced = self.voiced
        numbers = [self.f0_mean, self.f0_spread, *self.aperiodicity, float(voiced.frames), *voiced.mean]
        return np.array([*numbers, *voiced.covariance.flat]).astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Profile":
        """Return the profile that `to_bytes` wrote. Raises ValueError for any other bytes."""
        if len(data) != 8 * PROFILE_SIZE:
            raise ValueError("a voice profile has another size")
        numbers = np.frombuffer(data, "<f8")  # read-only, as a shared voice should be
        if not np.isfinite(numbers).all():
            raise ValueError("a voice profile holds numbers that are not finite")
        frames, mean, covariance = np.split(numbers[2 + _BINS :], [1, 1 + _CEPSTRA])
        if frames[0] < 1.0:
            raise ValueError("a voice profile without voiced frames")
        voiced = FrameClass(int(frames[0]), mean, covariance.reshape(_CEPSTRA - 1, _CEPSTRA - 1))
        return cls(float(numbers[0]), float(numbers[1]), numbers[2 : 2 + _BINS], voiced)


def speaker_features(profile: Profile) -> SpeakerEmbedding:
    """Return the speaker embedding, shape (553,): log-F0, and mean and covariance of the voiced cepstra.

    It leaves out the first cepstrum, which is loudness.
    """
    voiced = profile.voiced
    return np.concatenate([[profile.f0_mean], voiced.mean[1:], voiced.covariance.ravel()])


def similarity(first: SpeakerEmbedding, second: SpeakerEmbedding) -> float:
    """Return the similarity of two speakers, from 0 to 1.

    It is exp(-d), where d is the Bhattacharyya distance of the mean cepstra plus the weighted squared distance of the
    log-F0.
    """
    size = _CEPSTRA - 1
    apart = first[1 : 1 + size] - second[1 : 1 + size]
    covariance = (first[1 + size :] + second[1 + size :]).reshape(size, size) / 2.0
    distance = apart @ np.linalg.solve(_shrunk(covariance, _SHRINK), apart) / 8.0
    distance += _F0_WEIGHT * (first[0] - second[0]) ** 2
    return float(np.exp(-distance))


@dataclass(frozen=True)
class TintVoice(Voice):
    """A voice of `VoiceTint`. Without a profile it is neutral."""

    profile: Profile | None = field(default=None, compare=False)
    _packed: bytes = field(default=b"", init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_packed", self.profile.to_bytes() if self.profile else b"")

    def to_bytes(self) -> bytes:
        """Return the voice as one line of JSON and the profile."""
        return json.dumps({"kind": self.kind.value, "reason": self.reason}).encode() + b"\n" + self._packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "TintVoice":
        """Return the voice that `to_bytes` wrote. Raises ValueError for any other bytes."""
        head, _, packed = data.partition(b"\n")
        try:
            fields = json.loads(head)
            kind, reason = VoiceKind(fields["kind"]), str(fields["reason"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError("not a voice") from error
        return cls(kind, reason, Profile.from_bytes(packed) if packed else None)


@dataclass(frozen=True, eq=False)
class _Frames:
    """Analysed speech, one row per frame of 5 ms.

    `f0` (frames,) is in Hz, 0 where unvoiced; `envelope` (power) and `aperiodicity` are (frames, 513), the mel-cepstra
    (frames, 80); `voiced` marks the frames with voiced speech.
    """

    f0: Array
    envelope: Array
    aperiodicity: Array
    cepstra: Array
    voiced: Mask


class VoiceTint:
    """Tints speech with WORLD. Thread-safe: it holds no state, and its native calls release the GIL.

    Raises ImportError when pyworld is not installed. Example:

        tint = VoiceTint()
        tinted = tint.apply(speech, source=tint.profile(speech, clean=True), target=tint.profile(reference))
    """

    def __init__(self) -> None:
        self._world = _import_pyworld()

    def profile(self, speech: Audio, *, clean: bool = False) -> Profile | None:
        """Return the profile of `speech` (any rate), or None when less than 0.15 s of it is voiced.

        `clean` is for synthetic speech: its pitch is followed more closely than that of a recording, whose room hums.
        """
        frames = self._analyse(speech.resample(SAMPLE_RATE_HZ), clean)
        voiced = _describe(frames.cepstra, frames.voiced)
        if voiced is None:
            return None
        log_f0 = np.log(frames.f0[frames.voiced])
        return Profile(
            f0_mean=float(np.median(log_f0)),  # the median: an octave error of the pitch follower weighs little
            f0_spread=float(log_f0.std()),
            aperiodicity=_logit(frames.aperiodicity[frames.voiced]).mean(axis=0),
            voiced=voiced,
        )

    def apply(self, speech: Audio, source: Profile, target: Profile, *, strength: float = STRENGTH) -> Audio:
        """Return `speech` (any rate) with its speaker's profile `source` mapped to `target`: 16 kHz, same length.

        With strength 1 timbre and breath reach the target's statistics, with 0 they stay. Deterministic. The caller
        sets the level.
        """
        speech = speech.resample(SAMPLE_RATE_HZ)
        if len(speech.samples) < SAMPLE_RATE_HZ // 20:
            return speech
        frames = self._analyse(speech, clean=True)
        f0 = _map_f0(frames.f0, source, target)
        envelope = _filtered(frames, strength * _timbre_change(frames, source, target))
        aperiodicity = _map_aperiodicity(frames, source, target, strength)
        samples = self._world.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE_HZ, FRAME_MS)
        samples = np.nan_to_num(samples[: len(speech.samples)])
        samples = np.pad(samples, (0, len(speech.samples) - len(samples)))
        return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32), SAMPLE_RATE_HZ)

    def _analyse(self, speech: Audio, clean: bool) -> _Frames:
        world = self._world
        x = np.ascontiguousarray(speech.samples, dtype=np.float64)
        x *= _ANALYSIS_PEAK / max(float(np.abs(x).max(initial=0.0)), 1e-3)  # the floor of the envelope is absolute
        f0 = follow_pitch(speech) if clean else self._recorded_pitch(x)
        times = FRAME_S * np.arange(len(f0))
        envelope = world.cheaptrick(x, f0, times, SAMPLE_RATE_HZ, fft_size=_FFT_SIZE)
        aperiodicity = world.d4c(x, f0, times, SAMPLE_RATE_HZ, fft_size=_FFT_SIZE)
        log_mel = _interpolate(np.log(envelope + 1e-10), *_frequencies())
        loudness_db = 10.0 * np.log10(np.exp(log_mel).mean(axis=1))
        active = loudness_db > np.percentile(loudness_db, 97) - _ACTIVE_RANGE_DB
        cepstra = scipy.fft.dct(log_mel, norm="ortho", axis=1)
        return _Frames(f0, envelope, aperiodicity, cepstra, (f0 > 0) & active)

    def _recorded_pitch(self, x: Array) -> Array:
        """Return the pitch of a recording in Hz for each frame, 0 where unvoiced."""
        bounds = {"f0_floor": _F0_FLOOR_HZ, "f0_ceil": _F0_CEILING_HZ}
        f0, times = self._world.dio(x, SAMPLE_RATE_HZ, frame_period=FRAME_MS, **bounds)
        refined: Array = self._world.stonemask(x, f0, times, SAMPLE_RATE_HZ)
        return refined


def _map_f0(f0: Array, source: Profile, target: Profile) -> Array:
    """Map log-F0 from the source's mean and spread to the target's."""
    voiced = f0 > 0
    stretch = np.clip(target.f0_spread / max(source.f0_spread, 1e-3), 0.7, 1.5)  # beyond it Mandarin's tones are lost
    mapped = np.zeros_like(f0)
    log_f0 = (np.log(f0[voiced]) - source.f0_mean) * stretch + target.f0_mean
    mapped[voiced] = np.exp(log_f0).clip(_F0_FLOOR_HZ, _F0_CEILING_HZ)
    return mapped


def _timbre_change(frames: _Frames, source: Profile, target: Profile) -> Array:
    """Return the change of the first 24 cepstra of each frame; that of loudness, the first, is 0."""
    cepstra = frames.cepstra[:, 1:_CEPSTRA]
    change = np.zeros((len(cepstra), _CEPSTRA))
    change[:, 1:] = (cepstra - source.voiced.mean[1:]) @ _transport(source.voiced, target.voiced).T
    change[:, 1:] += target.voiced.mean[1:] - cepstra
    change[frames.f0 <= 0] = 0.0
    smoothed: Array = scipy.ndimage.gaussian_filter1d(change, _SMOOTHING_FRAMES, axis=0)
    return smoothed


def _filtered(frames: _Frames, change: Array) -> Array:
    """Return each frame's envelope, filtered by the change of its cepstra; the frame keeps its energy."""
    padded = np.zeros_like(frames.cepstra)
    padded[:, :_CEPSTRA] = change
    bins_hz, mel_hz = _frequencies()
    gain = _interpolate(scipy.fft.idct(padded, norm="ortho", axis=1), mel_hz, bins_hz).clip(-7.0, 7.0)
    envelope = frames.envelope * np.exp(gain)
    envelope *= (frames.envelope.sum(axis=1) / envelope.sum(axis=1))[:, None]
    return np.ascontiguousarray(envelope)


def _transport(source: FrameClass, target: FrameClass) -> Array:
    """Return the matrix that maps one Gaussian to another at the least cost: A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2."""
    shrink = _SHRINK if target.frames > _FEW_FRAMES else _SHRINK_FEW
    a, b = (_shrunk(kind.covariance, shrink) for kind in (source, target))
    root, inverse = _power(a, 0.5), _power(a, -0.5)
    return inverse @ _power(root @ b @ root, 0.5) @ inverse


def _shrunk(covariance: Array, shrink: float) -> Array:
    """Shrink a covariance toward its diagonal: few frames leave the other entries uncertain."""
    diagonal = np.diag(np.diag(covariance))
    return (1.0 - shrink) * covariance + shrink * diagonal + 1e-4 * np.eye(len(covariance))


def _power(matrix: Array, exponent: float) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    powered: Array = (vectors * values.clip(1e-8) ** exponent) @ vectors.T
    return powered


def _map_aperiodicity(frames: _Frames, source: Profile, target: Profile, strength: float) -> Array:
    voiced = frames.f0 > 0
    mapped = frames.aperiodicity.copy()
    shifted = _logit(mapped[voiced]) + strength * (target.aperiodicity - source.aperiodicity)
    mapped[voiced] = 1.0 / (1.0 + np.exp(-shifted))
    return np.ascontiguousarray(mapped.clip(1e-6, 1.0))


def _describe(cepstra: Array, chosen: Mask) -> FrameClass | None:
    frames = int(chosen.sum())
    if frames <= _MIN_FRAMES:
        return None
    some = cepstra[chosen, :_CEPSTRA]
    return FrameClass(frames, some.mean(axis=0), np.cov(some[:, 1:].T))


def _logit(share: Array) -> Array:
    share = share.clip(1e-4, 1.0 - 1e-4)
    logit: Array = np.log(share / (1.0 - share))
    return logit


@functools.cache
def _frequencies() -> tuple[Array, Array]:
    """Return the frequencies in Hz of the 513 bins and of the 80 mel bands, both from 0 to 8 kHz."""
    top_mel = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    mel_hz = 700.0 * (10.0 ** (np.linspace(0.0, top_mel, _MEL_BANDS) / 2595.0) - 1.0)
    return np.linspace(0.0, SAMPLE_RATE_HZ / 2, _BINS), mel_hz


def _interpolate(rows: Array, known_hz: Array, result_hz: Array) -> Array:
    """Return each row, whose values are at `known_hz`, interpolated linearly at `result_hz`."""
    right = np.searchsorted(known_hz, result_hz).clip(1, len(known_hz) - 1)
    weight = ((result_hz - known_hz[right - 1]) / (known_hz[right] - known_hz[right - 1])).clip(0.0, 1.0)
    mixed: Array = rows[:, right - 1] * (1.0 - weight) + rows[:, right] * weight
    return mixed


def _import_pyworld() -> Any:
    """Import pyworld, which needs pkg_resources for its own version: new setuptools lack it, old ones warn of it."""
    stand_in = types.ModuleType("pkg_resources")
    stand_in.get_distribution = lambda name: types.SimpleNamespace(version="")  # type: ignore[attr-defined]
    is_needed = "pkg_resources" not in sys.modules
    if is_needed:
        sys.modules["pkg_resources"] = stand_in
    try:
        return importlib.import_module("pyworld")
    except ValueError as error:  # built for another numpy
        raise ImportError(str(error)) from error
    finally:
        if is_needed:
            del sys.modules["pkg_resources"]
