"""The XTTS synthesizer asked to speak, with what most tests do not care about filled in."""

from collections.abc import Callable, Iterator
from typing import Any

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Cancel, Deadline, Language, Priority
from mirrorchat.synth import XttsSynthesizer
from mirrorchat.xtts.voice import XttsVoice
from support.xtts_texts import ENGLISH


def speak(
    synthesizer: XttsSynthesizer,
    text: str,
    voice: XttsVoice,
    language: Language = ENGLISH,
    *,
    seed: int = 1,
    priority: Priority = Priority.FIRST,
    deadline: Deadline | None = None,
    cancel: Cancel | None = None,
    buffer_low: Callable[[], bool] = lambda: False,
) -> Iterator[Audio]:
    urgency: dict[str, Any] = {
        "priority": priority,
        "buffer_low": buffer_low,
        "deadline": deadline or Deadline.after(600.0),
    }
    return synthesizer.speak(text, voice, language, seed=seed, cancel=cancel or Cancel(), **urgency)
