"""Time stretching: streamed speech becomes faster or slower at the same pitch, by FFmpeg's `atempo` (WSOLA)."""

import math
from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np

from mirrorchat.audio.samples import Audio, Samples

FILTER_LIMIT = 2.0  # the speed of one filter; beyond it `atempo` skips samples instead of blending them


class TimeStretch:
    """Plays a stream at `sample_rate` Hz `speed` times as fast (0.25 to 4). Not thread-safe."""

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._sent = 0
        self._graph = graph = av.filter.Graph()
        layout = {"sample_rate": str(sample_rate), "sample_fmt": "flt", "channel_layout": "mono"}
        nodes = [graph.add("abuffer", time_base=f"1/{sample_rate}", **layout)]
        filters = max(1, math.ceil(abs(math.log(speed)) / math.log(FILTER_LIMIT) - 1e-9))
        nodes += [graph.add("atempo", f"{speed ** (1 / filters):.6f}") for _ in range(filters)]
        nodes.append(graph.add("aformat", sample_fmts="flt", sample_rates=str(sample_rate), channel_layouts="mono"))
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes).configure()

    def push(self, samples: Samples) -> Samples:
        """Take the next samples, shape (n,), float32, and return the stretched ones that are complete."""
        if not len(samples):
            return samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "flt", "mono")
        frame.sample_rate, frame.pts = self._sample_rate, self._sent
        frame.time_base = Fraction(1, self._sample_rate)
        self._sent += len(samples)
        self._graph.push(frame)
        return self._pulled()

    def finish(self) -> Samples:
        """Return the remaining samples."""
        if not self._sent:  # flushing an unused filter graph raises
            return np.zeros(0, np.float32)
        self._graph.push(None)
        return self._pulled()

    def _pulled(self) -> Samples:
        parts = [np.zeros(0, np.float32)]
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return np.concatenate(parts)
            assert isinstance(frame, av.AudioFrame)
            parts.append(frame.to_ndarray().reshape(-1).astype(np.float32))


def at_speed(pieces: Iterator[Audio], speed: float) -> Iterator[Audio]:
    """Yield speech in pieces, all of one rate, `speed` times as fast."""
    if speed == 1.0:
        yield from pieces
        return
    stretch: TimeStretch | None = None
    rate = 0
    for piece in pieces:
        if stretch is None:
            stretch, rate = TimeStretch(speed, piece.sample_rate), piece.sample_rate
        if len(samples := stretch.push(piece.samples)):
            yield Audio(samples, rate)
    if stretch is not None and len(samples := stretch.finish()):
        yield Audio(samples, rate)
