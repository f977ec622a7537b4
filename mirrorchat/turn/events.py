"""The events of a turn.

Their order is: Transcript; what the chat yields whenever it arrives (Thinking, AnsweredBy, TextDelta, AnswerEnded);
VoiceKnown; for each sentence SpokenAudio or SentenceFailed; then Timings and Done. Error ends a turn instead, and
nothing follows it. StartedOver may come before the answer is whole, which then begins again; StillWorking may come
anywhere.
"""

from dataclasses import dataclass

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import AnsweredBy, AnswerEnded, Thinking, Transcript, Voice
from mirrorchat.errors import MirrorChatError
from mirrorchat.turn.reference import ReferenceQuality


@dataclass(frozen=True)
class StillWorking:
    """No other event has occurred for turn.helper_threads.KEEP_ALIVE_S seconds."""


@dataclass(frozen=True)
class VoiceKnown:
    """The answer will be spoken in `voice`. This event precedes the first SpokenAudio."""

    voice: Voice


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer's text, as the chat API sent it."""

    text: str


@dataclass(frozen=True)
class SpokenAudio:
    """The next piece of speech of the `sentence` at `index` (from 0).

    The sentence is one of the answer, or the server's own (turn/spoken_notices.py) when there is none to speak.
    """

    index: int
    sentence: str
    audio: Audio


@dataclass(frozen=True)
class SentenceFailed:
    """The `sentence` at `index` cannot be spoken. The other sentences are not affected."""

    index: int
    sentence: str
    reason: MirrorChatError


@dataclass(frozen=True)
class StartedOver:
    """The answer begins again; drop all earlier TextDelta and SpokenAudio.

    The API broke off before the caller heard anything; or what the caller has heard was reasoning (ReasoningSent). Who
    cannot take back what was sent ends the answer with `reason`.
    """

    reason: MirrorChatError


@dataclass(frozen=True)
class Timings:
    """The seconds of each stage. Stages overlap, so their sum is not `total`."""

    seconds: dict[str, float]


@dataclass(frozen=True)
class Done:
    """The answer is complete, in `voice`, whose speaker reference has `quality`. The session has kept the turn."""

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
    | Thinking
    | AnsweredBy
    | TextDelta
    | AnswerEnded
    | SpokenAudio
    | SentenceFailed
    | StartedOver
    | Timings
    | Done
    | Error
)
