"""Speech faster or slower at the same pitch, while it is being made: FFmpeg's `atempo` (WSOLA) before an encoder."""

import math
from fractions import Fraction

import av
import av.filter
import numpy as np

from mirrorchat.audio.encoders import Encoder
from mirrorchat.audio.samples import Samples

SLOWEST, FASTEST = 0.25, 4.0
STEP_LIMIT = 2.0  # of one filter: faster, it leaves sound out instead of blending it


class TimeStretch:
    """Makes sound at `sample_rate` Hz last 1 / `speed` of its time. For one thread."""

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._sent = 0
        self._graph = graph = av.filter.Graph()
        layout = {"sample_rate": str(sample_rate), "sample_fmt": "flt", "channel_layout": "mono"}
        nodes = [graph.add("abuffer", time_base=f"1/{sample_rate}", **layout)]
        steps = max(1, math.ceil(abs(math.log(speed)) / math.log(STEP_LIMIT) - 1e-9))
        nodes += [graph.add("atempo", f"{speed ** (1 / steps):.6f}") for _ in range(steps)]
        nodes.append(graph.add("aformat", sample_fmts="flt", sample_rates=str(sample_rate), channel_layouts="mono"))
        nodes.append(graph.add("abuffersink"))
        graph.link_nodes(*nodes).configure()

    def push(self, samples: Samples) -> Samples:
        """Take a further piece, 1-D float32, and return what can be said of it by now."""
        if not len(samples):
            return samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "flt", "mono")
        frame.sample_rate, frame.pts = self._sample_rate, self._sent
        frame.time_base = Fraction(1, self._sample_rate)
        self._sent += len(samples)
        self._graph.push(frame)
        return self._pulled()

    def finish(self) -> Samples:
        """Return the rest."""
        if not self._sent:  # a filter that was given nothing has nothing to flush
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


class StretchedEncoder:
    """An Encoder that gives another one its sound faster or slower."""

    def __init__(self, encoder: Encoder, speed: float, sample_rate: int) -> None:
        self.content_type = encoder.content_type
        self._encoder = encoder
        self._stretch = TimeStretch(speed, sample_rate)

    def start(self) -> bytes:
        return self._encoder.start()

    def encode(self, samples: Samples) -> bytes:
        return self._encoder.encode(self._stretch.push(samples))

    def finish(self) -> bytes:
        return self._encoder.encode(self._stretch.finish()) + self._encoder.finish()

    def close(self) -> None:
        self._encoder.close()
