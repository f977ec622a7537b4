"""The one reader of a turn's events. It gives the text so far, the first audio, or the whole answer.

Routes only serialize its results: as a wav, as JSON, as a stream of audio or as server-sent events.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import AnsweredBy, AnswerEnded, EngineInfo, Language, Transcript, Voice, VoiceKind
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
    """A whole turn. Only the answer to a question has its `language`, a `quality` (of its reference) and `timings`.

    `answered_by` is the chat API, None if the chat does not name it. `unspoken` are the sentences that are missing in
    the audio.
    """

    transcript: str
    language: Language | None
    reply: str
    finish_reason: str
    answered_by: EngineInfo | None
    audio: Audio
    unspoken: Sequence[SentenceFailed]
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

    Raises the reason of an Error. A SentenceFailed is kept in `unspoken`, and the other sentences follow it.
    Example:

        reader = AnswerReader(pipeline.run_turn(question, slot, watch=watch))
        answer = reader.collect()
    """

    def __init__(self, events: Iterator[Event]) -> None:
        self.transcript = ""
        self.language: Language | None = None
        self.finish_reason = "stop"
        self.answered_by: EngineInfo | None = None
        self.unspoken: list[SentenceFailed] = []
        self.voice = Voice(VoiceKind.NEUTRAL, "")
        self.quality: ReferenceQuality | None = None
        self.timings = Timings({})
        self._reply: list[str] = []
        self._events = events

    @property
    def reply(self) -> str:
        """Return the text of the answer so far."""
        return "".join(self._reply).strip()

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            self._note(event)
            yield event

    def complete(self) -> Iterator[Event]:
        """Iterate over the events; at their end, raise the reason of the first SentenceFailed, if there was one.

        This is for callers that get only the audio: they must not take it for the whole answer.
        """
        yield from self
        self._check_spoken()

    def first_audio(self) -> Audio:
        """Read up to the first audio and return it. Raises the error that ends the turn before."""
        for event in self.complete():
            if isinstance(event, SpokenAudio):
                return event.audio
        raise SynthesisFailed("the synthesizer made no sound")

    def collect(self) -> Answer:
        """Read to the end and return the whole answer.

        Raises the error that ended the turn, or the reason of a SentenceFailed if no sentence could be spoken.
        """
        spoken = [event.audio for event in collect(iter(self)) if isinstance(event, SpokenAudio)]
        if not spoken:
            self._check_spoken()
            raise SynthesisFailed("the synthesizer made no sound")
        audio = Audio(np.concatenate([piece.samples for piece in spoken]), spoken[0].sample_rate)
        return Answer(
            self.transcript,
            self.language,
            self.reply,
            self.finish_reason,
            self.answered_by,
            audio,
            tuple(self.unspoken),
            self.voice,
            self.quality,
            self.timings,
        )

    def _check_spoken(self) -> None:
        if self.unspoken:
            raise self.unspoken[0].reason

    def _note(self, event: Event) -> None:
        match event:
            case Transcript(text=text, language=language):
                self.transcript, self.language = text, language
            case VoiceKnown(voice=voice):
                self.voice = voice
            case TextDelta(text=text):
                self._reply.append(text)
            case AnsweredBy(info=info):
                self.answered_by = info
            case AnswerEnded(finish_reason=finish_reason):
                self.finish_reason = finish_reason
            case SentenceFailed():
                self.unspoken.append(event)
            case StartedOver():
                self._forget()
            case Timings():
                self.timings = event
            case Done(quality=quality):
                self.quality = quality
            case Error(reason=reason):
                raise reason

    def _forget(self) -> None:
        """Forget an attempt: the answer starts over."""
        self._reply.clear()
        self.unspoken.clear()
        self.finish_reason, self.answered_by = "stop", None
