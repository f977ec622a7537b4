"""The state of one server process (settings, admission, sessions, engines), and the functions that find it."""

import logging
import os
import threading
import time
from typing import cast

from flask import current_app, g, request

from mirrorchat.chat.ollama import ollama_advice
from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ConfigurationError, ModelNotInstalled, NotReady, ShuttingDown, log_unexpected
from mirrorchat.pipeline import Pipeline
from mirrorchat.server.answers import engine_label
from mirrorchat.server.metrics import Metrics
from mirrorchat.server.request_record import RequestRecord
from mirrorchat.server.socket_watch import SocketWatch
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import upgrade_command
from mirrorchat.startup.loading import build_engines
from mirrorchat.turn.admission import SHUTDOWN_RETRY_S, Admission, Slot
from mirrorchat.turn.enrolled_voices import EnrolledVoices
from mirrorchat.turn.sessions import Sessions

LOAD_FAILED_STATUS = 3  # gunicorn's "worker failed to boot": it stops instead of starting the worker again
LOADER = "load-engines"  # the name of the loading thread
READY_WAIT_S = 10.0  # a question that comes before the engines are loaded waits so long
EXTENSION = "mirrorchat"  # where the app keeps its Runtime

_log = logging.getLogger(__name__)


class Runtime:
    """The state of one server process: its settings, its admission, its sessions, and the engines once loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.admission = Admission(settings.max_turns, settings.max_waiting, turns_per_key=settings.turns_per_key)
        self.metrics = Metrics(self.admission)
        self.sessions = Sessions(
            settings.max_sessions,
            settings.session_ttl_s,
            settings.history_tokens,
            memory_bytes=settings.session_memory_mb * 1_000_000,
        )
        self.sessions.start_sweeping()
        self.sockets = SocketWatch()
        self.voices = EnrolledVoices(settings.voices_dir)
        self._pipeline: Pipeline | None = None
        self._loaded = threading.Event()
        self._settled = threading.Event()  # loaded, or being stopped
        self._waiting = threading.BoundedSemaphore(settings.max_turns + settings.max_waiting)  # other threads stay free
        self._closed = False
        self._lock = threading.Lock()  # of `_closed` and `_pipeline`: engines that load after close() are freed
        threading.Thread(target=self._load, name=LOADER, daemon=True).start()

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline. Raises NotReady until every engine is loaded, and when an engine has failed for good."""
        if self._pipeline is None:
            raise NotReady("the engines are still loading", retry_after_s=5)
        self._pipeline.engines.check_ready()
        return self._pipeline

    def wait_for_pipeline(self) -> Pipeline:
        """Return the pipeline; wait for it if the engines are loading. Raises NotReady and ShuttingDown."""
        if not self._settled.is_set() and self._waiting.acquire(blocking=False):
            try:
                self._settled.wait(READY_WAIT_S)
            finally:
                self._waiting.release()
        if self._pipeline is None and self.admission.closed:
            raise shutting_down()
        return self.pipeline

    def wait_until_loaded(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds; return whether every engine is loaded."""
        return self._loaded.wait(timeout_s)

    def stop_admission(self) -> None:
        """Reject new and queued turns; running turns go on."""
        self.admission.stop_admission(shutting_down())
        self._settled.set()

    def end_turns(self) -> None:
        """Reject new and queued turns, and end each running turn with ShuttingDown."""
        self.admission.end_all(shutting_down())
        self._settled.set()

    def close(self) -> None:
        """End the running turns and free the engines, even those that are still loading."""
        self.end_turns()
        self.sessions.close()
        self.sockets.close()
        with self._lock:
            self._closed = True
            pipeline = self._pipeline
        if pipeline is not None:
            pipeline.close()

    def _load(self) -> None:
        started = time.monotonic()
        try:
            engines = build_engines(self.settings)
        except Exception as error:
            if not self._closed:
                _cannot_start(error)
            return
        settings = self.settings
        pipeline = Pipeline(
            engines,
            system_prompt=settings.system_prompt,
            seed=settings.seed,
            options=settings.speech_options,
            max_turns=settings.max_turns,
        )
        with self._lock:
            if not self._closed:
                self._pipeline = pipeline
        if self._pipeline is None:
            pipeline.close()
            return
        self.metrics.engines = engines
        for stage, info in engines.infos().items():
            _log.info("%-14s %s%s", stage, engine_label(info), f": {info.reason}" if info.reason else "")
        if command := upgrade_command(engines.infos().values()):
            _log.info("to go up a tier: %s", command)
        self._loaded.set()
        self._settled.set()
        _log.info("ready after %.1f s", time.monotonic() - started)
        if advice := ollama_advice(settings, os.environ):
            _log.info("%s", advice)
        if url := _page_url(settings):
            _log.info("open %s", url)


def _page_url(settings: Settings) -> str:
    """Return where a browser on this machine finds the page; "" for a server on a Unix socket."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - it is compared
    if host.startswith("unix:"):
        return ""
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _cannot_start(error: Exception) -> None:
    """Log the reason and end the process, which is of no use without engines."""
    if isinstance(error, ConfigurationError | ModelNotInstalled):
        reason = error.message
    else:
        log_unexpected(error)
        reason = "an engine failed to load"
    _log.critical("the server cannot start: %s", reason)
    os._exit(LOAD_FAILED_STATUS)


def runtime() -> Runtime:
    """Return the runtime of the present request's app."""
    return cast(Runtime, current_app.extensions[EXTENSION])


def request_record() -> RequestRecord:
    """Return the record of the present request. Fetch it before streaming: a response body runs without a request."""
    return cast(RequestRecord, g.record)


def acquire_slot(context: Context) -> Slot:
    """Wait for a slot for the present request. From now on a hang-up cancels `context`.

    Raises the same as `Admission.acquire`.
    """
    record = request_record()
    record.caller = runtime().sockets.watch(request.environ, context)
    slot = runtime().admission.acquire(context, tenant=g.tenant, subject=g.subject)
    record.queue_s = slot.waited_s
    return slot


def shutting_down() -> ShuttingDown:
    """Return the error for a request that arrives while the server is being stopped."""
    return ShuttingDown("the server is being stopped; ask again in a moment", retry_after_s=SHUTDOWN_RETRY_S)
