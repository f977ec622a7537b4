"""Linear interpolation of frames, as `torch.nn.functional.interpolate` computes it, for any range of its output."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_END = 1 << 30  # a number of frames for an utterance whose end is unknown
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Stretch:
    """`F.interpolate(..., scale_factor=factor, mode="linear")` for any range of its output frames."""

    factor: float

    def length(self, inputs: int) -> int:
        """Return the number of output frames for `inputs` frames."""
        return math.floor(inputs * self.factor)

    def certain(self, inputs: int) -> int:
        """Return how many output frames are final once `inputs` frames are known, whatever follows."""
        if self.length(inputs) == inputs:
            return 0  # torch copies them if they are all
        positions = self._positions(0, self.length(inputs), NO_END, CPU)
        return int(torch.searchsorted(positions, inputs - 1))

    def reach(self, start: int, stop: int, inputs: int) -> tuple[int, int]:
        """Return the range of input frames that output frames `start` to `stop` need; there are `inputs` in all."""
        positions = self._positions(start, stop, inputs, CPU)
        return min(int(positions[0]), inputs - 1), min(int(positions[-1]) + 2, inputs)

    def apply(self, x: Tensor, offset: int, start: int, stop: int, inputs: int) -> Tensor:
        """Return output frames `start` to `stop`, (stop - start, D).

        There are `inputs` input frames in all; `x` (n, D) has those from `offset` on. Indices and weights are made on
        the device of `x`, because the host would wait for the device to upload them.
        """
        positions = self._positions(start, stop, inputs, x.device)
        left = positions.long()
        right = (left + 1).clamp_(max=inputs - 1)
        weight = (positions - left)[:, None]
        return x[left - offset] * (1.0 - weight) + x[right - offset] * weight

    def _positions(self, start: int, stop: int, inputs: int, device: torch.device) -> Tensor:
        """Return the positions of output frames among the inputs, (stop - start,) float32, with the rounding of torch.

        Torch rounds once, from a float32 step, so late in a long utterance its positions are off by 1e-3. It copies the
        inputs if their number does not change.
        """
        frames = torch.arange(start, stop, dtype=torch.float64, device=device)
        if self.length(inputs) == inputs:
            return frames.float()
        step = float(torch.tensor(1.0 / self.factor, dtype=torch.float32))
        return (step * (frames + 0.5) - 0.5).float().clamp_(min=0.0)


def known_frames(stretches: Sequence[Stretch], latents: int, *, ended: bool) -> int:
    """Return the number of frames for `latents`; the number of final ones if more latents may follow."""
    for stretch in stretches:
        latents = stretch.length(latents) if ended else stretch.certain(latents)
    return latents


def first_input(stretches: Sequence[Stretch], frame: int) -> int:
    """Return the first input that output `frame` of all `stretches` needs."""
    for stretch in reversed(stretches):
        frame, _ = stretch.reach(frame, frame + 1, NO_END)
    return frame


def stretched(x: Tensor, offset: int, inputs: int, stretches: Sequence[Stretch], start: int, stop: int) -> Tensor:
    """Return outputs `start` to `stop`, (stop - start, D), of all `stretches` in order; the rest is as for `apply`."""
    if not stretches:
        return x[start - offset : stop - offset]
    *earlier, last = stretches
    count = known_frames(earlier, inputs, ended=True)
    first, end = last.reach(start, stop, count)
    return last.apply(stretched(x, offset, inputs, earlier, first, end), first, start, stop, count)
