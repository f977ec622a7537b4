"""The record of one request: sizes and times only. Its end writes a line of the log and updates the metrics."""

import logging
import threading
import time
import uuid
from dataclasses import dataclass, field

from mirrorchat.errors import ClientGone, MirrorChatError
from mirrorchat.server.metrics import Metrics, Observed
from mirrorchat.server.socket_watch import CallerSocket
from mirrorchat.turn.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


@dataclass
class RequestRecord:
    """One request, from its arrival on. The request's stages fill it in, and `end` writes it, once.

    `route` is the endpoint's name. `status` is the HTTP status, which a stream sends before its outcome is known.
    `bytes_out` counts the body. `queue_s` is the time in the queue, None until the turn is admitted.
    """

    metrics: Metrics
    method: str
    route: str
    bytes_in: int
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: int = 0
    bytes_out: int = 0
    audio_in_s: float = 0.0
    watch: Stopwatch = field(default_factory=Stopwatch)
    caller: CallerSocket | None = None
    queue_s: float | None = None
    outcome: str = ""
    note: str = ""  # a further word about the outcome
    _started: float = field(default_factory=time.monotonic)
    _ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def finished(self, error: MirrorChatError | None = None) -> None:
        """Set the outcome: the code of `error`, or "ok". The first call counts."""
        self.outcome = self.outcome or (error.code if error else "ok")

    def end(self) -> None:
        """Write the line and count the request, at the first call.

        A caller who hangs up in the middle of a stream leaves it without an outcome.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if self.caller is not None:
            self.caller.close()
        self.outcome = self.outcome or ClientGone.code
        seen = self._observed()
        self.metrics.observe(seen)
        _log.info("%s", self._line(seen))

    def _observed(self) -> Observed:
        watch = self.watch
        return Observed(
            route=self.route,
            outcome=self.outcome,
            total_s=time.monotonic() - self._started,
            stages_s={name: s for name, s in watch.timings().seconds.items() if name != "total"},
            queue_s=self.queue_s,
            first_audio_s=watch.first_audio_s,
            audio_in_s=self.audio_in_s,
            audio_out_s=watch.speech_s,
            detected_language=watch.detected_language,
        )

    def _line(self, seen: Observed) -> str:
        """Return `key=value` pairs, without those of stages that the request did not reach."""
        pairs: dict[str, object] = {
            "request": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "outcome": self.outcome,
            **({"note": self.note} if self.note else {}),
            "ms": round(1000 * seen.total_s),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        times = {"queue": seen.queue_s, **seen.stages_s, "first_audio": seen.first_audio_s}
        pairs |= {f"{name}_ms": round(1000 * s) for name, s in times.items() if s is not None}
        audio = {"audio_in_s": seen.audio_in_s, "audio_out_s": seen.audio_out_s}
        pairs |= {name: f"{s:.2f}" for name, s in audio.items() if s}
        return " ".join(f"{key}={value}" for key, value in pairs.items())
