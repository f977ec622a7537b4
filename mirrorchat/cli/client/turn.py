"""A turn of `mirrorchat ask`: the request, the event that completes it, and the report of its events."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from mirrorchat.cli.client.sound_outputs import Outputs
from mirrorchat.cli.client.terminal import Waiting, printable
from mirrorchat.engines import AnsweredBy, Language, Thinking, Transcript, Voice
from mirrorchat.errors import CommandError, MirrorChatError
from mirrorchat.speech.options import NO_OPTIONS, SpeechOptions
from mirrorchat.turn.events import (
    Event,
    SentenceFailed,
    SpokenAudio,
    StartedOver,
    StillWorking,
    TextDelta,
    Timings,
    VoiceKnown,
)


@dataclass(frozen=True)
class TurnRequest:
    """A question: a `recording` in any supported audio format, with the options of pipeline.Question."""

    recording: bytes
    language: Language | None
    reply_language: Language | None
    text: str | None = None
    hotwords: str = ""  # separated by line breaks or commas
    session_id: str | None = None
    options: SpeechOptions = NO_OPTIONS


@dataclass(frozen=True)
class TurnCompleted:
    """The last event of a turn. `engines` has the name and model of each stage; `session_id` may be empty.

    `finish_reason` says how the answer ended, as in OpenAI's API.
    """

    voice: Voice
    engines: Mapping[str, Mapping[str, str]]
    session_id: str = ""
    finish_reason: str = "stop"


TurnEvent = Event | TurnCompleted

UNFINISHED = {
    "length": "the answer was cut off at the length limit of the chat API",
    "content_filter": "the filter of the chat API held back the answer, or the rest of it",
}  # by finish_reason


class TurnReport:
    """Reports a turn from its events, in order.

    The reply goes to standard output while it arrives, or to standard error if `text_aside` is set, because the sound
    goes to standard output. With `as_json` one object is printed at the end instead. All other output goes to
    standard error, and only at a terminal. Times count from the construction of the report.
    """

    def __init__(self, outputs: Outputs, *, as_json: bool, text_aside: bool) -> None:
        self._outputs = outputs
        self._as_json = as_json
        self._text_aside = text_aside
        self._begun = time.monotonic()
        self._first_audio_s: float | None = None
        self._transcript: Transcript | None = None
        self._reply: list[str] = []
        self._timings: dict[str, float] = {}
        self._voice: Voice | None = None
        self._failed: list[SentenceFailed] = []
        self._completed: TurnCompleted | None = None

    def follow(self, turn: Iterable[TurnEvent]) -> None:
        """Report the turn until it ends. Raises its error, or CommandError when a sentence could not be spoken."""
        try:
            self._follow(turn)
        except MirrorChatError:
            if self._reply:
                self._show("\n")
            self._outputs.play_out()
            raise
        self._summarize()
        self._outputs.finish()
        if self._failed:
            raise CommandError(f"{len(self._failed)} of the answer's sentences could not be spoken")

    def _follow(self, turn: Iterable[TurnEvent]) -> None:
        with Waiting("waiting for the answer") as waiting:
            for event in turn:
                if not isinstance(event, StillWorking | Thinking | AnsweredBy):
                    waiting.stop()
                self._handle(event)

    def _handle(self, event: TurnEvent) -> None:
        match event:
            case Transcript():
                self._transcript = event
                self._note(f"you: {printable(event.text)}")
            case TextDelta(text=text):
                self._reply.append(text)
                self._show("\n".join(map(printable, text.split("\n"))))
            case SpokenAudio(audio=audio):
                if self._first_audio_s is None:
                    self._first_audio_s = time.monotonic() - self._begun
                self._outputs.add(audio)
            case VoiceKnown(voice=voice):
                self._voice = voice
            case StartedOver():
                self._start_over()
            case SentenceFailed(reason=reason):
                self._failed.append(event)
                click.echo(f"mirrorchat: a sentence could not be spoken: {reason.message}", err=True)
            case Timings(seconds=seconds):
                self._timings = seconds
            case TurnCompleted():
                self._completed = event
                self._voice = event.voice

    def _start_over(self) -> None:
        """Take back what can be taken back: it was no answer, but the model's reasoning."""
        self._show("\n")
        click.echo("mirrorchat: that was the model's reasoning; the answer follows", err=True)
        self._reply.clear()
        self._failed.clear()
        self._outputs.start_over()

    def _show(self, text: str) -> None:
        """Show a piece of the reply at once."""
        if self._as_json or (self._text_aside and not sys.stderr.isatty()):
            return
        click.echo(text, nl=False, err=self._text_aside)

    def _note(self, text: str) -> None:
        if sys.stderr.isatty() and not self._as_json:
            click.echo(text, err=True)

    def _summarize(self) -> None:
        self._show("\n")
        if self._completed is not None and self._completed.finish_reason in UNFINISHED:
            click.echo(f"mirrorchat: {UNFINISHED[self._completed.finish_reason]}", err=True)
        if self._as_json:
            click.echo(json.dumps(self._metadata(), ensure_ascii=False))
        if self._voice is not None:
            self._note(f"voice: {self._voice.kind}, {self._voice.reason}")
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self._timings.items())
        first = "" if self._first_audio_s is None else f"; the first sound after {self._first_audio_s:.2f} s"
        self._note(f"time: {stages}{first}")
        if self._completed is not None and self._completed.session_id:
            self._note(f"session: {self._completed.session_id}")

    def _metadata(self) -> dict[str, Any]:
        """Return the object for `--json`. Its keys are those of the server's JSON."""
        completed, voice = self._completed, self._voice
        first = self._first_audio_s
        return {
            "transcript": None if self._transcript is None else self._transcript.text,
            "language": None if self._transcript is None else self._transcript.language,
            "reply": "".join(self._reply).strip(),
            "voice": None if voice is None else {"kind": voice.kind, "reason": voice.reason},
            "engines": {} if completed is None else completed.engines,
            "finish_reason": None if completed is None else completed.finish_reason,
            "timings": {f"{stage}_s": round(seconds, 4) for stage, seconds in self._timings.items()},
            "first_audio_s": None if first is None else round(first, 4),
            "audio_s": round(self._outputs.duration_s, 3),
            "session_id": None if completed is None else completed.session_id or None,
            "failed_sentences": [failed.sentence for failed in self._failed],
        }
