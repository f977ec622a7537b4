"""The tiny checkpoints in `data/wenet-reference`, and what WeNet itself gave for them (README.md there)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from mirrorchat.audio.samples import Audio
from mirrorchat.wenet.features import SAMPLE_RATE, fbank
from support.places import DATA as ALL_DATA

DATA = ALL_DATA / "wenet-reference"


VARIANTS = (
    "aishell", "aishell2", "multi_cn", "wenetspeech", "gigaspeech", "librispeech", "batch_norm", "transformer",
    "conv2d8",
)  # fmt: skip


STREAMING = tuple(name for name in VARIANTS if name != "batch_norm")


ATOL = 1e-4


FloatArray = npt.NDArray[np.float32]


def sound(path: Path) -> FloatArray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return fbank(Audio(samples.mean(axis=1, dtype=np.float32), rate).resample(SAMPLE_RATE).samples)


def unpadded(row: npt.NDArray[np.generic]) -> tuple[int, ...]:
    return tuple(int(value) for value in row if value >= 0)
