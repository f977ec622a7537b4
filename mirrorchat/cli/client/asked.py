"""What `mirrorchat ask` asks, and how an answer ends, be it a server's or that of the engines in this process."""

from collections.abc import Mapping
from dataclasses import dataclass

from mirrorchat.engines import Language, Voice
from mirrorchat.turn.events import Event


@dataclass(frozen=True)
class Asked:
    """A question: a recording in any format that is read, and what goes with it (as in pipeline.Question)."""

    recording: bytes
    language: Language
    reply_language: Language
    text: str | None = None
    hotwords: str = ""  # one a line or between commas
    session_id: str | None = None


@dataclass(frozen=True)
class Answered:
    """The whole answer is out. `engines` has the name and model of each stage; `session_id` is "" where none is."""

    voice: Voice
    engines: Mapping[str, Mapping[str, str]]
    session_id: str = ""


AnswerEvent = Event | Answered
