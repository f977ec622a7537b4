"""Voice activity detection: each recording is searched once, and the result is freed with it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.speech import say

from mirrorchat.audio import vad
from mirrorchat.audio.samples import Audio


def recording(text: str) -> Audio:
    """Return `text` spoken, in an Audio without other references."""
    speech = say(text)
    return Audio(speech.samples, speech.sample_rate)


def test_concurrent_callers_share_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Audio] = []
    detect = vad._detect

    def counted(audio: Audio) -> vad.Mask:
        searched.append(audio)
        return detect(audio)

    monkeypatch.setattr(vad, "_detect", counted)
    question, together = recording("the weather is fine today"), threading.Barrier(4)

    def ask(_: int) -> vad.Mask:
        together.wait(30)
        return vad.speech_frames(question)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(ask, range(4))
    assert first.any()
    assert all(np.array_equal(first, other) for other in others)
    assert len(searched) == 1
    again = Audio(question.samples, question.sample_rate)  # another recording with the same samples
    assert np.array_equal(vad.speech_frames(again), first)
    assert len(searched) == 2


def test_the_result_is_read_only() -> None:
    frames = vad.speech_frames(recording("good morning"))
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = True


def test_the_result_is_freed_with_the_recording() -> None:
    question = recording("good morning")
    vad.speech_frames(question)
    kept = len(vad._searches)
    del question
    assert len(vad._searches) == kept - 1
