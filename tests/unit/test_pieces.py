"""Segmentation: long recordings are split at pauses without losing a sample."""

import numpy as np
import pytest
from support.speech import say

from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio

RATE = 16_000


def talk(*pauses_s: float) -> tuple[Audio, list[tuple[float, float]]]:
    """Return sentences with pauses between them, and the start and end of each pause in seconds."""
    sentence = say("The boat is on the lake, and the children are at home.").resample(RATE).samples
    parts, pauses = [sentence], []
    for pause_s in pauses_s:
        start = sum(map(len, parts)) / RATE
        pauses.append((start, start + pause_s))
        parts += [np.zeros(int(pause_s * RATE), np.float32), sentence]
    return Audio(np.concatenate(parts), RATE), pauses


def test_a_short_recording_is_one_piece() -> None:
    audio = say("good morning")
    (piece,) = pieces_of(audio)
    assert piece.audio is audio
    assert piece.start_s == 0.0


def test_pieces_end_in_the_longest_pauses_and_lose_nothing() -> None:
    audio, pauses = talk(0.4, 0.9, 0.4, 0.4, 0.9, 0.4)
    pieces = pieces_of(audio, longest_s=12.0)
    assert len(pieces) >= 2
    assert all(piece.audio.duration_s <= 12.0 for piece in pieces)
    assert np.array_equal(np.concatenate([piece.audio.samples for piece in pieces]), audio.samples)
    for piece in pieces[1:]:
        assert any(start <= piece.start_s <= end for start, end in pauses)
    starts = np.cumsum([0] + [len(piece.audio.samples) for piece in pieces[:-1]]) / RATE
    assert [piece.start_s for piece in pieces] == pytest.approx(starts, abs=1e-3)


def test_noise_without_a_pause_is_cut_all_the_same() -> None:
    samples = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32) * 0.1
    pieces = pieces_of(Audio(samples, RATE), longest_s=15.0)
    assert all(0 < piece.audio.duration_s <= 15.0 for piece in pieces)
    assert sum(len(piece.audio.samples) for piece in pieces) == len(samples)
