"""Mutants of recordings in every container: each is read or refused, within a second of processor and little memory."""

import os
import time
from collections.abc import Callable

import numpy as np
import pytest
from support.audio_files import KINDS, WAV_SUBTYPES, Samples, encode, tone, wav
from support.fuzzing import Fuzz
from support.mutants import mutant
from support.usage import forget_peak, memory_mb

from mirrorchat.audio.decoding import decode
from mirrorchat.errors import MirrorChatError

MUTANTS = 8  # of each container
LIMIT_S, LIMIT_MB = 1.0, 60.0
DURATION_S = 60.0
PCM_CONTAINERS = ("WAVEX", "RF64", "AIFF", "AU", "CAF", "W64")
MAKE: dict[str, Callable[[Samples], bytes]] = {
    **{name: lambda samples, kind=kind: encode(samples, kind) for name, kind in KINDS.items()},  # type: ignore[misc]
    **{f"wav {each}": lambda samples, each=each: wav(samples, 48_000, each) for each in WAV_SUBTYPES},  # type: ignore[misc]
    **{
        name: lambda samples, name=name: wav(samples, 48_000, "PCM_16", name)  # type: ignore[misc]
        for name in PCM_CONTAINERS
    },
}


@pytest.mark.parametrize("name", MAKE)
def test_fuzz_of_a_container(fuzz: Fuzz, name: str) -> None:
    whole = MAKE[name](tone(300, 1.5, KINDS[name].sample_rate if name in KINDS else 48_000))
    moov = whole.find(b"moov")  # at the end in most mp4 files: that half is turned to the front as well
    sources = [whole] if moov < 0 else [whole, whole[:32] + whole[moov - 4 :]]
    for case, choose in fuzz.cases(f"a recording as {name}", MUTANTS):
        check(mutant(choose.choice(sources), choose), case)


def check(data: bytes, case: str) -> None:
    """Assert that a recording is read or refused, and what that costs."""
    forget_peak(os.getpid())
    held_mb, used_s = memory_mb(os.getpid(), "VmRSS"), time.process_time()
    try:
        audio = decode(data, limit_s=DURATION_S)
    except MirrorChatError as error:
        assert error.status in (413, 415, 422), case
    else:
        assert np.isfinite(audio.samples).all() and np.abs(audio.samples).max() <= 1.0, case
        assert 4_000 <= audio.sample_rate <= 48_000 and audio.duration_s <= DURATION_S, case
    assert time.process_time() - used_s < LIMIT_S, case
    assert memory_mb(os.getpid(), "VmHWM") - held_mb < LIMIT_MB, case
