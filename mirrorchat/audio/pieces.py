"""Segmentation: a long recording becomes pieces of a length that a recognizer takes, cut at pauses."""

from dataclasses import dataclass

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import FRAME_S, Mask, speech_frames

LONGEST_S = 15.0  # of a piece: the cost of attention grows with its square, and models are trained on up to 20 s


@dataclass(frozen=True)
class Piece:
    """A part of a recording. It begins at `start_s` seconds."""

    start_s: float
    audio: Audio


def pieces_of(audio: Audio, longest_s: float = LONGEST_S) -> list[Piece]:
    """Split `audio` into pieces of at most `longest_s` seconds, without losing a sample.

    Each piece ends in the middle of the longest pause of its second half, or at `longest_s` if there is no pause.
    """
    if audio.duration_s <= longest_s:
        return [Piece(0.0, audio)]
    cuts, voiced = [0.0], speech_frames(audio)
    while audio.duration_s - cuts[-1] > longest_s:
        cuts.append(_next_cut(voiced, cuts[-1], longest_s))
    places = [int(cut * audio.sample_rate) for cut in cuts] + [len(audio.samples)]
    return [
        Piece(cut, Audio(audio.samples[start:end], audio.sample_rate))
        for cut, start, end in zip(cuts, places, places[1:], strict=False)
    ]


def _next_cut(voiced: Mask, start_s: float, longest_s: float) -> float:
    """Return the middle of the longest pause, in seconds, in the second half of the piece that begins at `start_s`."""
    first, last = int((start_s + longest_s / 2) / FRAME_S), int((start_s + longest_s) / FRAME_S)
    edges = np.flatnonzero(np.diff(np.concatenate(([True], voiced[first:last], [True])).astype(np.int8)))
    pauses = edges.reshape(-1, 2)  # first frame without speech, first frame with speech again
    if not len(pauses):
        return start_s + longest_s
    begin, end = pauses[int(np.argmax(pauses[:, 1] - pauses[:, 0]))]
    return (first + (int(begin) + int(end)) / 2) * FRAME_S
