"""The XTTS synthesizer asked to speak, with what most tests do not care about filled in."""

from collections.abc import Callable, Iterator

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Priority
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
    context: Context | None = None,
    buffer_low: Callable[[], bool] = lambda: False,
) -> Iterator[Audio]:
    return synthesizer.speak(
        text,
        voice,
        language,
        seed=seed,
        priority=priority,
        context=context or Context.after(600.0),
        buffer_low=buffer_low,
    )
