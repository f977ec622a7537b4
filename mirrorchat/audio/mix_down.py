"""The mix-down: which signal of a recording with several channels holds the speech.

The mean of the channels is right where they hear the same. It is wrong where they cancel out (one microphone of a pair
is wired the other way round), where one hears later than another, and where one has only noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import signal_to_noise_db, span_of, speech_frames

Channels = npt.NDArray[np.float32]  # shape (channels, n)
Mix = Callable[[Channels], Samples]

CANDIDATES = 2  # of the loudest channels; each one is decoded and searched for speech
AGREEMENT = (
    0.8  # the least correlation of a channel with the mean that counts as hearing the same: 1 ms apart gives 0.76
)
AUDIBLE = 1e-4  # -40 dB: a channel that is quieter than the loudest by more is silent
AS_MUCH_SPEECH = 0.9  # the detector's counts differ by less for the same speech


def mean_of(channels: Channels) -> Samples:
    """Return the mean of `channels`. It is not finite where one channel is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean: Samples = channels.mean(axis=0, dtype=np.float32)
    return mean


@dataclass(frozen=True)
class Channel:
    """The mix that is one channel."""

    number: int

    def __call__(self, channels: Channels) -> Samples:
        channel: Samples = channels[min(self.number, len(channels) - 1)]
        return channel


class MeanOfChannels:
    """The mix that is the mean, and notes whether the channels hear the same."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = np.zeros(0)
        self._products = np.zeros((0, 0))

    def __call__(self, channels: Channels) -> Samples:
        if len(channels) == 1:
            return Channel(0)(channels)
        if len(channels) != len(self._sums):  # the first block, or a stream that changes its channels midway
            self._count, self._sums, self._products = 0, np.zeros(len(channels)), np.zeros((len(channels),) * 2)
        with np.errstate(over="ignore", invalid="ignore"):
            self._count += channels.shape[1]
            self._sums += channels.sum(axis=1, dtype=np.float64)
            self._products += channels @ channels.T
        return mean_of(channels)

    def doubtful(self) -> list[Channel]:
        """Return the loudest channels if the mean may have lost what they hold, otherwise nothing."""
        if not self._count:
            return []
        means = self._sums / self._count
        covariance = self._products / self._count - np.outer(means, means)
        power, mean_power = covariance.diagonal().clip(0.0), float(covariance.mean())
        loudest = [Channel(int(number)) for number in np.argsort(-power, kind="stable")]
        with_mean = covariance.mean(axis=1)
        audible = power > AUDIBLE * max(float(power.max()), 1e-12)
        agrees = with_mean >= AGREEMENT * np.sqrt(power * max(mean_power, 0.0))
        alike = bool((agrees | ~audible).all()) and mean_power > 0.0
        return [] if alike or not audible.any() else loudest[: min(CANDIDATES, int(audible.sum()))]


def with_most_speech(mean: Audio, channels: Sequence[Audio]) -> Audio:
    """Return the clearest of the `channels` with the most speech; `mean` if it has more, as two people have in two."""
    spans = {signal: span_of(speech_frames(signal)).speech_s for signal in (mean, *channels)}
    full = [signal for signal in channels if spans[signal] >= AS_MUCH_SPEECH * max(spans.values())]
    if not full or not any(spans.values()):
        return mean
    return max(full, key=lambda signal: signal_to_noise_db(signal, speech_frames(signal)) or 0.0)
