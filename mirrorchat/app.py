"""The server: an application factory, one error handler, `/process_audio`, health, and the page."""

import hmac
import logging
import os
import re
import threading
import time
from contextlib import ExitStack
from io import BytesIO
from typing import IO, cast

from flask import Blueprint, Flask, Request, Response, current_app, g, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from mirrorchat import session_routes
from mirrorchat.answers import engine_label, engines_used, wanted_answer, whole_answer
from mirrorchat.audio import decode, require_speakable
from mirrorchat.engines import Deadline, Language
from mirrorchat.errors import (
    ConfigurationError,
    InvalidField,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    MirrorChatError,
    MissingField,
    ModelNotInstalled,
    NotFound,
    NotReady,
    ShuttingDown,
    UploadTooLarge,
    log_unexpected,
)
from mirrorchat.metrics import CONTENT_TYPE, Metrics
from mirrorchat.pipeline import Pipeline, Question, Stopwatch
from mirrorchat.request_record import RequestRecord
from mirrorchat.scheduler import SHUTDOWN_RETRY_S, Place, Scheduler
from mirrorchat.sessions import Sessions, owner_of
from mirrorchat.settings import Settings, load_settings
from mirrorchat.socket_watch import discard_body, hung_up, upload_deadline
from mirrorchat.startup import build_engines
from mirrorchat.streams import stream_answer

TEXT_LIMIT_CHARS = 4000  # of the form field `text`
HOTWORDS_LIMIT = 200
HOTWORD_LIMIT_CHARS = 64
FORM_PARTS = 16
LOAD_FAILED_STATUS = 3  # gunicorn's "worker failed to boot": it stops instead of starting the worker again
OPEN_ENDPOINTS = ("main.healthz", "main.readyz")
UNLOADED_ENDPOINTS = (*OPEN_ENDPOINTS, "main.metrics")  # those that answer before the engines do
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_log = logging.getLogger(__name__)
main = Blueprint("main", __name__)


class Runtime:
    """What one server process holds: its settings, who may enter, and the engines once they are loaded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings.max_turns, settings.max_waiting)
        self.metrics = Metrics(self.scheduler)
        self.sessions = Sessions(settings.max_sessions, settings.session_ttl_s, settings.history_tokens)
        self.sessions.start_sweeping()
        self._pipeline: Pipeline | None = None
        self._loaded = threading.Event()
        threading.Thread(target=self._load, name="load-engines", daemon=True).start()

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline. Raises NotReady until every engine is loaded, and when one has failed for good."""
        if self._pipeline is None:
            raise NotReady("the engines are still loading", retry_after_s=5)
        self._pipeline.engines.check_ready()
        return self._pipeline

    def wait_until_loaded(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds; return whether every engine is loaded."""
        return self._loaded.wait(timeout_s)

    def stop_admission(self) -> None:
        """Admit nobody any more; who waits is told so, what runs goes on."""
        self.scheduler.stop_admission(_shutting_down())

    def end_turns(self) -> None:
        """Admit nobody any more and end each running turn with an error of ours."""
        self.scheduler.end_all(_shutting_down())

    def close(self) -> None:
        """End what runs and free the engines."""
        self.end_turns()
        self.sessions.close()
        if self._pipeline is not None:
            self._pipeline.close()

    def _load(self) -> None:
        started = time.monotonic()
        try:
            engines = build_engines(self.settings)
        except (ConfigurationError, ModelNotInstalled) as error:
            _log.critical("the server cannot start: %s", error.message)
            os._exit(LOAD_FAILED_STATUS)
        except Exception as error:
            log_unexpected(error)
            _log.critical("the server cannot start: an engine failed to load")
            os._exit(LOAD_FAILED_STATUS)
        settings = self.settings
        self._pipeline = Pipeline(
            engines, system_prompt=settings.system_prompt, seed=settings.seed, max_turns=settings.max_turns
        )
        self.metrics.engines = engines
        for stage, info in engines.infos().items():
            _log.info("%-14s %s (%s)", stage, engine_label(info), info.reason)
        _log.info("ready after %.1f s", time.monotonic() - started)
        self._loaded.set()


class InMemoryRequest(Request):
    """A request whose uploads never touch the disk: Werkzeug would spool parts over 500 kB to temporary files."""

    max_form_parts = FORM_PARTS

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()  # its size is bounded by MAX_CONTENT_LENGTH, which counts the whole body


def create_app(settings: Settings | None = None) -> Flask:
    """Return the server. Engines load in a background thread; until then all but the health routes answer 503.

    Raises ConfigurationError for bad settings (read from config.py when none are given).
    """
    settings = settings or load_settings()
    app = Flask(__name__, static_folder=None)
    app.request_class = InMemoryRequest
    app.config["MAX_CONTENT_LENGTH"] = settings.upload_limit_bytes
    runtime = app.extensions["mirrorchat"] = Runtime(settings)
    app.extensions[session_routes.STORE] = runtime.sessions
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(Exception, _error_response)
    app.register_blueprint(main)
    app.register_blueprint(session_routes.routes)
    return app


def _runtime() -> Runtime:
    return cast(Runtime, current_app.extensions["mirrorchat"])


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is being stopped; ask again in a moment", retry_after_s=SHUTDOWN_RETRY_S)


def _begin() -> None:
    method = request.method if request.method in METHODS else "other"
    route = (request.endpoint or "none").removeprefix("main.")
    g.record = RequestRecord(_runtime().metrics, method, route, request.content_length or 0)
    if request.endpoint in OPEN_ENDPOINTS:
        return
    _check_key(request.headers.get("Authorization", ""))
    if request.endpoint not in UNLOADED_ENDPOINTS:
        _runtime().pipeline  # noqa: B018 - raises NotReady


def request_record() -> RequestRecord:
    """Return the record of the request that this thread handles; a stream must take it before it begins."""
    return cast(RequestRecord, g.record)


def enter(deadline: Deadline) -> Place:
    """Wait for a place for the present request, until its caller hangs up. Raises what `Scheduler.enter` does."""
    place = _runtime().scheduler.enter(deadline, owner=g.caller, caller_gone=hung_up(request.environ))
    request_record().admitted(place)
    return place


def _check_key(authorization: str) -> None:
    """Raise InvalidKey where a key is needed and none is given. Callers are told apart by key and address."""
    keys = _runtime().settings.api_keys
    scheme, _, given = authorization.partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    # every key is compared, each in constant time, so that the time taken tells nothing
    matches = [hmac.compare_digest(key.encode(), given.encode()) for key in keys]
    if keys and not any(matches):
        raise InvalidKey("this server needs one of its api_keys as 'Authorization: Bearer KEY'")
    g.owner = owner_of(given if keys else "")
    g.caller = f"{g.owner} {_address()}"


def _address() -> str:
    """Return the caller's address: the one that a proxy on this machine gives, else the connection's own."""
    address = request.remote_addr or ""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return forwarded.rpartition(",")[2].strip()[:64] if forwarded and address in ("127.0.0.1", "::1") else address


def _finish(response: Response) -> Response:
    if response.status_code >= 400:
        discard_body(request.environ)
    record = request_record()
    response.headers["X-Request-Id"] = record.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    session_routes.name_session(response)
    record.status = response.status_code
    if response.is_streamed:
        response.call_on_close(record.end)
        return response
    record.bytes_out = response.content_length or 0
    record.succeeded()  # unless it has failed
    record.end()
    return response


def _error_response(error: Exception) -> Response:
    """Turn any exception into our JSON: the only place where an error becomes a response."""
    known = _as_ours(error)
    request_record().failed(known)
    response = jsonify(known.body())
    response.status_code = known.status
    if known.retry_after_s is not None:
        response.headers["Retry-After"] = str(known.retry_after_s)
    if known.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, HTTPException) and error.code == 405:
        response.headers["Allow"] = dict(error.get_headers()).get("Allow", "")
    return response


def _as_ours(error: Exception) -> MirrorChatError:
    if isinstance(error, MirrorChatError) and type(error) is not MirrorChatError:
        return error
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return _from_http(error)
    if not isinstance(error, MirrorChatError):
        log_unexpected(error)
    return MirrorChatError(
        f"something went wrong inside the server; its log has more under {request_record().request_id}"
    )


def _from_http(error: HTTPException) -> MirrorChatError:
    match error.code:
        case 404:
            return NotFound(f"there is nothing at {request.path[:200]}")
        case 405:
            return MethodNotAllowed(f"{request.method} is not what {request.path[:200]} takes")
        case 413:
            return UploadTooLarge(f"the upload is larger than {_runtime().settings.upload_limit_mb} MB", param="audio")
        case _:
            return InvalidRequest("the request could not be read: send multipart/form-data")


@main.get("/healthz")
def healthz() -> Response:
    """Say that the process is alive."""
    return jsonify(status="alive")


@main.get("/readyz")
def readyz() -> Response:
    """Say which engines answer: 200; 503 until all are loaded, when one fails or is stuck, and after SIGTERM."""
    if _runtime().scheduler.closed:
        raise _shutting_down()
    infos = _runtime().pipeline.engines.infos()
    return jsonify(status="ready", engines={stage: vars(info) for stage, info in infos.items()})


@main.get("/metrics")
def metrics() -> Response:
    """Say what Prometheus asks for. Needs a key where there are any, like everything but health."""
    return Response(_runtime().metrics.render(), content_type=CONTENT_TYPE)


@main.get("/")
def index() -> str:
    """Say what this is and how to call it."""
    return render_template("index.html", infos=_runtime().pipeline.engines.infos(), host=request.host_url)


@main.post("/process_audio")
def process_audio() -> Response:
    """Answer a spoken question: multipart `audio`, `language`, optional `reply_language`, `text`, `stream`, ..."""
    runtime = _runtime()
    watch = request_record().watch = Stopwatch()
    deadline = Deadline.after(runtime.settings.turn_deadline_s)
    with upload_deadline(request.environ):
        data = _audio_field()
    language = _language("language")
    reply_language = _language("reply_language") if "reply_language" in request.form else language
    text, hotwords = _text_field(), _hotwords_field()
    session_id = session_routes.session_field()
    wanted = wanted_answer(request)
    with enter(deadline) as place, ExitStack() as held:
        session = held.enter_context(session_routes.open_session(session_id))
        with watch.time("decode"):
            audio = decode(data, limit_s=runtime.settings.question_limit_s)
            request_record().audio_in_s = audio.duration_s
            require_speakable(audio)
        question = Question(audio, language, reply_language, text, session, hotwords)
        pipeline = runtime.pipeline
        if wanted.stream:
            response = stream_answer(
                wanted, question, place, pipeline=pipeline, watch=watch, environ=request.environ,
                record=request_record(),
            )  # fmt: skip
            held.pop_all()  # the stream holds the session from here on
            return response
        answer = pipeline.answer(question, place, watch=watch, caller_gone=hung_up(request.environ))
    return whole_answer(wanted, answer, engines_used(question, pipeline.engines.infos()), session.id)


def _audio_field() -> bytes:
    if "audio" in request.files:
        data: bytes = request.files["audio"].read()
        return data
    if "audio" in request.form:
        raise InvalidField("audio must be sent as a file (curl: -F audio=@question.wav)", param="audio")
    raise MissingField("the field audio is missing: send a recording as a file (multipart/form-data)", param="audio")


def _language(name: str) -> Language:
    value = request.form.get(name)
    if value is None:
        raise MissingField(f"the field {name} is missing; choose chinese or english", param=name)
    try:
        return Language.parse(value)
    except ValueError as error:
        raise InvalidField(f"{name}: {error}", param=name) from None


def _hotwords_field() -> list[str]:
    """Return the words of the field `hotwords`, one a line or between commas."""
    words = [word.strip() for word in re.split(r"[\n,，、]", request.form.get("hotwords", ""))]
    words = [word for word in words if word]
    if len(words) > HOTWORDS_LIMIT or any(len(word) > HOTWORD_LIMIT_CHARS for word in words):
        limits = f"at most {HOTWORDS_LIMIT} words of at most {HOTWORD_LIMIT_CHARS} characters"
        raise InvalidField(f"hotwords takes {limits}", param="hotwords")
    return words


def _text_field() -> str | None:
    """Return what was said, when the caller wrote it; a blank field counts as absent."""
    text = request.form.get("text", "").strip()
    if len(text) > TEXT_LIMIT_CHARS:
        raise InvalidField(f"text is longer than {TEXT_LIMIT_CHARS} characters", param="text")
    return text or None
