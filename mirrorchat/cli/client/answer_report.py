"""What `mirrorchat ask` shows of an answer while it comes, and says of it at the end."""

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from mirrorchat.cli.client.asked import Answered, AnswerEvent
from mirrorchat.cli.client.sound_outputs import Outputs
from mirrorchat.cli.client.terminal import Waiting, printable
from mirrorchat.engines import Transcript, Voice
from mirrorchat.errors import CommandError
from mirrorchat.turn.events import SentenceFailed, SpokenAudio, StillWorking, TextDelta, Timings, VoiceKnown


class AnswerReport:
    """Takes the events of a turn, in order.

    The reply goes to standard output as it comes (to standard error when `text_aside`: sound has the other); with
    `as_json` one object comes at the end instead. The rest is for people, at a terminal. Time is counted from
    when the report is made.
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
        self._answered: Answered | None = None

    def follow(self, turn: Iterable[AnswerEvent]) -> None:
        """Show the turn until it is out. Raises what ends it; CommandError when a sentence of it was not spoken."""
        with Waiting("waiting for the answer") as waiting:
            for event in turn:
                if not isinstance(event, StillWorking):
                    waiting.stop()
                self._take(event)
        self._summarize()
        self._outputs.finish()
        if self._failed:
            raise CommandError(f"{len(self._failed)} of the answer's sentences could not be spoken")

    def _take(self, event: AnswerEvent) -> None:
        match event:
            case Transcript():
                self._transcript = event
                self._aside(f"you: {printable(event.text)}")
            case TextDelta(text=text):
                self._reply.append(text)
                self._show(_spread(text))
            case SpokenAudio(audio=audio):
                if self._first_audio_s is None:
                    self._first_audio_s = time.monotonic() - self._begun
                self._outputs.add(audio)
            case VoiceKnown(voice=voice):
                self._voice = voice
            case SentenceFailed(reason=reason):
                self._failed.append(event)
                click.echo(f"mirrorchat: a sentence could not be spoken: {reason.message}", err=True)
            case Timings(seconds=seconds):
                self._timings = seconds
            case Answered():
                self._answered = event
                self._voice = event.voice

    def _show(self, text: str) -> None:
        """Show a piece of the reply at once."""
        if self._as_json or (self._text_aside and not sys.stderr.isatty()):
            return
        click.echo(text, nl=False, err=self._text_aside)

    def _aside(self, text: str) -> None:
        if sys.stderr.isatty() and not self._as_json:
            click.echo(text, err=True)

    def _summarize(self) -> None:
        self._show("\n")
        if self._as_json:
            click.echo(json.dumps(self._facts(), ensure_ascii=False))
        if self._voice is not None:
            self._aside(f"voice: {self._voice.kind}, {self._voice.reason}")
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self._timings.items())
        first = "" if self._first_audio_s is None else f"; the first sound after {self._first_audio_s:.2f} s"
        self._aside(f"time: {stages}{first}")
        if self._answered is not None and self._answered.session_id:
            self._aside(f"session: {self._answered.session_id}")

    def _facts(self) -> dict[str, Any]:
        """Return what is known of the answer, in the words of the server's JSON."""
        answered, voice = self._answered, self._voice
        first = self._first_audio_s
        return {
            "transcript": None if self._transcript is None else self._transcript.text,
            "reply": "".join(self._reply).strip(),
            "voice": None if voice is None else {"kind": voice.kind, "reason": voice.reason},
            "engines": {} if answered is None else answered.engines,
            "timings": {f"{stage}_s": round(seconds, 4) for stage, seconds in self._timings.items()},
            "first_audio_s": None if first is None else round(first, 4),
            "audio_s": round(self._outputs.duration_s, 3),
            "session_id": None if answered is None else answered.session_id or None,
            "failed_sentences": [failed.sentence for failed in self._failed],
        }


def _spread(text: str) -> str:
    """Return `text` with its line ends, and no other control characters."""
    return "\n".join(printable(line) for line in text.split("\n"))
