"""What a turn says while it runs, in this order: Transcript, TextDelta as they come, for each sentence SpokenAudio or
SentenceFailed, then Timings and Done; or Error, and nothing after it. VoiceKnown comes before the first SpokenAudio."""

from dataclasses import dataclass

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Transcript, Voice
from mirrorchat.errors import MirrorChatError
from mirrorchat.turn.reference import ReferenceQuality


@dataclass(frozen=True)
class StillWorking:
    """Nothing has come for pipeline.KEEP_ALIVE_S seconds."""


@dataclass(frozen=True)
class VoiceKnown:
    """The answer will be spoken in `voice`; comes before the first SpokenAudio."""

    voice: Voice


@dataclass(frozen=True)
class TextDelta:
    """A further piece of the answer's text, as the chat API sent it."""

    text: str


@dataclass(frozen=True)
class SpokenAudio:
    """A further piece of `sentence`, the one at `index` (from 0), spoken."""

    index: int
    sentence: str
    audio: Audio


@dataclass(frozen=True)
class SentenceFailed:
    """The `sentence` at `index` could not be spoken; the others are not affected."""

    index: int
    sentence: str
    reason: MirrorChatError


@dataclass(frozen=True)
class StartedOver:
    """The answer broke off before the caller had anything of it: forget every TextDelta and audio so far."""


@dataclass(frozen=True)
class Timings:
    """Seconds spent in each stage. Stages overlap, so they do not add up to `total`."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class Done:
    """The whole answer is out, spoken in `voice`, whose reference is of `quality`. The session has kept the turn."""

    voice: Voice
    quality: ReferenceQuality


@dataclass(frozen=True)
class Error:
    """The turn ended with `reason`; nothing follows."""

    reason: MirrorChatError


Event = (
    Transcript
    | StillWorking
    | VoiceKnown
    | TextDelta
    | SpokenAudio
    | SentenceFailed
    | StartedOver
    | Timings
    | Done
    | Error
)
