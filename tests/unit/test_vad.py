"""Where speech is: found once for each recording, whoever asks, and forgotten with it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.speech import say

from mirrorchat.audio import vad
from mirrorchat.audio.samples import Audio


def recording(text: str) -> Audio:
    """Return `text` spoken, as a recording that nobody else holds."""
    speech = say(text)
    return Audio(speech.samples, speech.sample_rate)


def test_a_recording_is_searched_once_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
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
    again = Audio(question.samples, question.sample_rate)  # another recording, though it sounds the same
    assert np.array_equal(vad.speech_frames(again), first)
    assert len(searched) == 2


def test_what_was_found_cannot_be_changed_by_one_who_asked() -> None:
    frames = vad.speech_frames(recording("good morning"))
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = True


def test_nothing_is_kept_of_a_recording_that_nobody_holds() -> None:
    question = recording("good morning")
    vad.speech_frames(question)
    kept = len(vad._searches)
    del question
    assert len(vad._searches) == kept - 1
