"""The one reader of a turn's events. It gives the text so far, the first audio, or the whole answer.

Routes only serialize its results: as a wav, as JSON, as a stream of audio or as server-sent events.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Transcript, Voice, VoiceKind
from mirrorchat.errors import SynthesisFailed
from mirrorchat.turn.events import (
    Done,
    Error,
    Event,
    SentenceFailed,
    SpokenAudio,
    StartedOver,
    StillWorking,
    TextDelta,
    Timings,
    VoiceKnown,
)
from mirrorchat.turn.reference import ReferenceQuality

Item = TypeVar("Item")


@dataclass(frozen=True)
class Answer:
    """A whole turn. Only the answer to a recorded question has a `quality` (of its reference) and `timings`."""

    transcript: str
    reply: str
    audio: Audio
    voice: Voice
    quality: ReferenceQuality | None
    timings: Timings


def collect(items: Iterable[Item | StillWorking | StartedOver]) -> list[Item]:
    """Return all items of the last attempt: StartedOver discards the items before it."""
    kept: list[Item] = []
    for item in items:
        if isinstance(item, StartedOver):
            kept.clear()
        elif not isinstance(item, StillWorking):
            kept.append(item)
    return kept


class AnswerReader:
    """Iterates over the events of one turn, once, and keeps the transcript, the reply and the voice so far.

    Raises the reason of an Error and, if `whole`, of a SentenceFailed.
    Example:

        reader = AnswerReader(pipeline.run_turn(question, slot, watch=watch), whole=True)
        answer = reader.collect()
    """

    def __init__(self, events: Iterator[Event], *, whole: bool) -> None:
        self.transcript = ""
        self.voice = Voice(VoiceKind.NEUTRAL, "")
        self.quality: ReferenceQuality | None = None
        self.timings = Timings({})
        self._reply: list[str] = []
        self._whole = whole
        self._events = events

    @property
    def reply(self) -> str:
        """Return the text of the answer so far."""
        return "".join(self._reply).strip()

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            self._note(event)
            yield event

    def first_audio(self) -> Audio:
        """Read up to the first audio and return it. Raises the error that ends the turn before."""
        for event in self:
            if isinstance(event, SpokenAudio):
                return event.audio
        raise SynthesisFailed("the answer held nothing that can be spoken")

    def collect(self) -> Answer:
        """Read to the end and return the whole answer. Raises the error that ended the turn."""
        spoken = [event.audio for event in collect(iter(self)) if isinstance(event, SpokenAudio)]
        if not spoken:
            raise SynthesisFailed("the answer held nothing that can be spoken")
        audio = Audio(np.concatenate([piece.samples for piece in spoken]), spoken[0].sample_rate)
        return Answer(self.transcript, self.reply, audio, self.voice, self.quality, self.timings)

    def _note(self, event: Event) -> None:
        match event:
            case Transcript(text=text):
                self.transcript = text
            case VoiceKnown(voice=voice):
                self.voice = voice
            case TextDelta(text=text):
                self._reply.append(text)
            case StartedOver():
                self._reply.clear()
            case Timings():
                self.timings = event
            case Done(quality=quality):
                self.quality = quality
            case Error(reason=reason):
                raise reason
            case SentenceFailed(reason=reason) if self._whole:
                raise reason
