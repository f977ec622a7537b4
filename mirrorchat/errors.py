"""Every failure that a caller can meet, each class with its HTTP status, OpenAI error type and code.

    MirrorChatError                  500 server_error
    ├── InvalidRequest               400 invalid_request_error
    │   ├── MissingField             400 missing_field
    │   ├── InvalidField             400 invalid_value
    │   ├── LanguageNotDetected      400 language_not_detected
    │   ├── InvalidHost              400 invalid_host
    │   ├── InvalidKey               401 invalid_api_key
    │   ├── ForeignPage              403 foreign_page
    │   ├── UnsupportedField         400 unsupported_parameter
    │   ├── NotFound                 404 not_found
    │   │   └── ModelNotFound        404 model_not_found
    │   ├── MethodNotAllowed         405 method_not_allowed
    │   ├── UploadTimeout            408 upload_timeout
    │   ├── SessionBusy              409 session_busy
    │   ├── VoiceConflict            409
    │   │   ├── VoiceExists          409 voice_exists
    │   │   ├── TooManyVoices        409 too_many_voices
    │   │   └── OtherModelsVoice     409 voice_of_another_model
    │   ├── UploadTooLarge           413 upload_too_large
    │   ├── AudioTooLong             413 audio_too_long
    │   ├── UnsupportedAudio         415 unsupported_audio
    │   ├── HeadTooLarge             431 head_too_large
    │   ├── UnknownHost              421 unknown_host
    │   └── UnusableAudio            422
    │       ├── AudioTooShort        422 audio_too_short
    │       ├── SilentAudio          422 silent_audio
    │       ├── NonFiniteAudio       422 non_finite_audio
    │       ├── NoVoice              422 no_voice
    │       └── NoWords              422 no_words
    ├── RateLimited                  429 rate_limit_exceeded  (carries Retry-After)
    │   ├── TooManyTurns             429 too_many_turns
    │   ├── TooManyFailedKeys        429 too_many_failed_keys
    │   ├── TooManyConnections       429 too_many_connections
    │   └── TooManyPartialRequests   429 too_many_partial_requests
    ├── ClientGone                   499 client_gone        (counted; nobody is left to read it)
    ├── RecognitionFailed            500 recognition_failed
    ├── SynthesisFailed              500 synthesis_failed
    ├── ChatError                    502 upstream_error
    │   ├── NoChatApi                502 no_chat_api
    │   │   └── ChatRateLimited      503 chat_rate_limited  (carries Retry-After)
    │   └── ChatInterrupted          502 chat_interrupted
    │       └── ReasoningSent        502 reasoning_sent
    ├── Unavailable                  503 unavailable_error  (may carry Retry-After)
    │   ├── NotReady                 503 not_ready
    │   │   └── EngineFailed         503 not_ready          (the process ends, and gunicorn starts another)
    │   ├── ServerBusy               503 server_busy
    │   ├── ShuttingDown             503 shutting_down
    │   └── ModelNotInstalled        503 model_not_installed
    ├── DeadlineExceeded             504 deadline_exceeded
    ├── ConfigurationError           (startup only: the server refuses to start)
    ├── EvaluationError              (the command line only: recordings cannot be evaluated, or not all of them)
    ├── InstallError                 (the command line only: a model could not be installed or is damaged)
    │   └── SourceFailed             (one source of a model does not work; the next is tried)
    │       └── SourceUnreachable    (it does not answer, or breaks off: it may work later)
    └── CommandError                     (the command line only)
        ├── ServerFailed                 (a server cannot be reached, refuses, or does not answer as MirrorChat does)
        └── SoundDeviceError             (nothing here plays or records, or what does has failed)

The message of each is written for the caller: it never holds a key, a path outside the models folder, or a traceback.
"""

import enum
import logging
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

RESTART_S = 30  # in which most servers have loaded their engines again

_log = logging.getLogger(__name__)


class MirrorChatError(Exception):
    """Base of the tree. `param` names the request field at fault; `retry_after_s` becomes `Retry-After`.

    The `code` of a class is its name in snake case, unless it says another one.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init_subclass__(cls) -> None:
        if "code" not in vars(cls):
            cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON body that every route answers with: OpenAI's error shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(MirrorChatError):
    """The request is at fault."""

    status = 400
    type = "invalid_request_error"


class MissingField(InvalidRequest):
    """A field that every such request has is absent."""


class InvalidField(InvalidRequest):
    """A field has a value that is not allowed."""

    code = "invalid_value"


class LanguageNotDetected(InvalidRequest):
    """The language was to be detected, and no engine does that."""


class InvalidHost(InvalidRequest):
    """The request does not say, in a well-formed `Host`, which server it calls."""


class UnknownHost(InvalidRequest):
    """A server without keys is called by a name that it does not know, which a hostile page may own."""

    status = 421


class ForeignPage(InvalidRequest):
    """A web page of another origin asks a server without keys."""

    status = 403


class InvalidKey(InvalidRequest):
    """The API key is missing or wrong."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class UnsupportedField(InvalidRequest):
    """A field of OpenAI's API that means something, and that cannot be honoured here."""

    code = "unsupported_parameter"


class NotFound(InvalidRequest):
    """There is nothing at this address, or with this id."""

    status = 404


class ModelNotFound(NotFound):
    """No model of this name is served."""


class MethodNotAllowed(InvalidRequest):
    """The route does not take this HTTP method."""

    status = 405


class UploadTimeout(InvalidRequest):
    """The head or the body of the request did not arrive in time."""

    status = 408


class SessionBusy(InvalidRequest):
    """Another turn of the same session still runs."""

    status = 409


class VoiceConflict(InvalidRequest):
    """What is kept does not allow what was asked of a voice."""

    status = 409


class VoiceExists(VoiceConflict):
    """The key has a voice of this name already."""


class TooManyVoices(VoiceConflict):
    """The key has as many voices as are allowed."""


class OtherModelsVoice(VoiceConflict):
    """The voice was computed with another model than the one that is loaded."""

    code = "voice_of_another_model"


class UploadTooLarge(InvalidRequest):
    """The body of the request is too large."""

    status = 413


class AudioTooLong(InvalidRequest):
    """The recording is longer than the server allows."""

    status = 413


class UnsupportedAudio(InvalidRequest):
    """The file is no recording in a format that is read here."""

    status = 415


class HeadTooLarge(InvalidRequest):
    """The head of the request is too large."""

    status = 431


class UnusableAudio(InvalidRequest):
    """A recording from which nothing can be recognized."""

    status = 422


class AudioTooShort(UnusableAudio):
    """The recording is too short to hold a word."""


class SilentAudio(UnusableAudio):
    """The recording holds no sound."""


class NonFiniteAudio(UnusableAudio):
    """The recording holds samples that are not finite numbers."""


class NoVoice(UnusableAudio):
    """A voice was to be enrolled from a recording that none can be computed from."""


class NoWords(UnusableAudio):
    """No words were recognized in the recording."""


class RateLimited(MirrorChatError):
    """One caller asks more often than its key, or its address, may."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class TooManyTurns(RateLimited):
    """As many questions of one key are being answered, or wait, as may be."""


class TooManyFailedKeys(RateLimited):
    """Somebody at this address tries keys."""


class TooManyConnections(RateLimited):
    """One address has more connections, or more requests at the same time, than it may."""


class TooManyPartialRequests(RateLimited):
    """One address has more requests whose head or body has not wholly arrived than it may."""


class ClientGone(MirrorChatError):
    """The caller hung up: everything of its turn is dropped."""

    status = 499


class RecognitionFailed(MirrorChatError):
    """The recognizer failed."""


class SynthesisFailed(MirrorChatError):
    """The synthesizer failed."""


class ChatFault(enum.StrEnum):
    """What kind of trouble a chat API gives: each calls for something else to be done."""

    STATUS = "status"  # of HTTP, other than 200
    NAME = "name"  # of its host, which cannot be resolved
    REFUSED = "refused"
    TIMEOUT = "timeout"
    TLS = "tls"
    PROXY = "proxy"
    CONNECTION = "connection"
    REQUEST = "request"  # cannot be sent as the settings have it
    EMPTY = "empty"  # an answer without text
    ERROR = "error"  # an error instead of an answer, with HTTP status 200
    ANSWER = "answer"  # not what a chat API sends


@dataclass(frozen=True)
class ChatFailure:
    """Why one chat API of the ordered list gave no answer. `api` is its masked name (position and host, no key).

    `status` is that of HTTP where the `fault` is one, else 0. `retry_after_s` is what its Retry-After says.
    """

    index: int
    api: str
    reason: str
    fault: ChatFault = field(default=ChatFault.ANSWER, compare=False)
    status: int = field(default=0, compare=False)
    retry_after_s: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.api}: {self.reason}"


class ChatError(MirrorChatError):
    """No whole answer came. `failures` holds one entry for each API tried in this turn."""

    status = 502
    type = "upstream_error"

    def __init__(self, message: str, failures: Sequence[ChatFailure], *, retry_after_s: int | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.failures = tuple(failures)


class NoChatApi(ChatError):
    """No chat API gave an answer."""


class ChatRateLimited(NoChatApi):
    """The last chat API allows no more requests for now, and says when it will."""

    status = 503
    type = "unavailable_error"


class ChatInterrupted(ChatError):
    """A stream broke after some of it had been passed on."""


class ReasoningSent(ChatInterrupted):
    """What had been passed on of a stream was no answer, but reasoning without its opening tag."""


class Unavailable(MirrorChatError):
    """The server cannot answer at present."""

    status = 503
    type = "unavailable_error"


class NotReady(Unavailable):
    """The engines are loading, or one of them has failed."""


class EngineFailed(NotReady):
    """An engine of this process has failed for good: its GPU is lost, or it met a defect. A new process can answer."""

    code = "not_ready"

    def __init__(self, engine: str) -> None:
        super().__init__(f"the {engine} engine has failed: the server starts again", retry_after_s=RESTART_S)


class ServerBusy(Unavailable):
    """All slots are taken and the queue does not help."""


class ShuttingDown(Unavailable):
    """The server is being stopped."""


class ModelNotInstalled(Unavailable):
    """The model that the request needs is not installed."""


class DeadlineExceeded(MirrorChatError):
    status = 504
    type = "timeout_error"


class ConfigurationError(MirrorChatError):
    """A setting, a weight file or a package stops the server from starting; the message says what fixes it."""


class EvaluationError(MirrorChatError):
    """Recordings cannot be evaluated as they are, or some of the evaluation failed; the message says which."""

    code = "evaluation_failed"


class InstallError(MirrorChatError):
    """A model could not be installed, removed or verified; the message says what to do."""

    code = "install_failed"


class SourceFailed(InstallError):
    """A place that models come from does not work, or gives something else than the model."""


class SourceUnreachable(SourceFailed):
    """A place that models come from does not answer, is busy, or breaks off. The same command may succeed later."""


class CommandError(MirrorChatError):
    """A command could not do what it was asked; the message says why."""

    code = "command_failed"


class ServerFailed(CommandError):
    """The server that a command was sent to cannot be reached, refuses, or does not answer as MirrorChat does.

    `refusal_code` is the code that it refuses with, "" when there is none.
    """

    refusal_code = ""


class SoundDeviceError(CommandError):
    """No program of this machine plays or records, or the one that does has failed."""

    code = "sound_device_failed"


def log_unexpected(error: Exception) -> None:
    """Log where an error of ours arose: its kind and frames, never its message, which can hold a caller's words."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("unexpected %s\n%s", type(error).__qualname__, frames)


def as_mirrorchat_error(error: Exception) -> MirrorChatError:
    """Return `error` itself if it is one of the tree; else log it as unexpected, and return what the caller is told."""
    if isinstance(error, MirrorChatError):
        return error
    log_unexpected(error)
    return MirrorChatError("something went wrong inside the server")
