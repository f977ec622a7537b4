"""The server: `create_app()`, `/process_audio`, and the health routes.

app = create_app(Settings(host="127.0.0.1"))  # gunicorn or app.run() serves it
"""

from collections.abc import Collection
from contextlib import ExitStack

from flask import Blueprint, Flask, Request, Response, g, jsonify, request

from mirrorchat.access.callers import EXTENSION as ACCESS_EXTENSION
from mirrorchat.access.callers import Access, allowance_headers, check_caller
from mirrorchat.access.cross_origin import allow_origin, check_page, is_preflight
from mirrorchat.access.requested_host import check_requested_host
from mirrorchat.access.trusted_proxies import TrustedProxies, networks_of
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Synthesizer
from mirrorchat.errors import InvalidField, MissingField, NotReady, Unavailable
from mirrorchat.openai import routes as openai_api
from mirrorchat.openai.openapi import openai_paths
from mirrorchat.openai.speech_options import requested_options
from mirrorchat.pipeline import Question
from mirrorchat.server import session_routes
from mirrorchat.server.answers import engines_used, requested_format, whole_answer
from mirrorchat.server.error_responses import error_response
from mirrorchat.server.form import (
    FORM_PARTS,
    TEXT_LIMIT_CHARS,
    check_hotwords,
    decode_upload,
    split_hotwords,
    uploaded_file,
)
from mirrorchat.server.ignored import name_ignored
from mirrorchat.server.incoming_body import leave_body
from mirrorchat.server.metrics import CONTENT_TYPE
from mirrorchat.server.multipart import MultipartOnly
from mirrorchat.server.openapi import document as openapi
from mirrorchat.server.page import page
from mirrorchat.server.request_record import RequestRecord
from mirrorchat.server.runtime import EXTENSION, Runtime, acquire_slot, request_record, runtime, shutting_down
from mirrorchat.server.streams import stream_answer
from mirrorchat.settings import Settings, load_settings
from mirrorchat.turn.hearing import require_detector

OPEN_ENDPOINTS = ("main.healthz", "main.readyz", "page.index", "page.static_file")  # they need no key
UNLOADED_ENDPOINTS = (*OPEN_ENDPOINTS, "main.metrics", "openapi.openapi")  # they answer before the engines are loaded
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

main = Blueprint("main", __name__)


class InMemoryRequest(Request):
    """A request whose uploads never touch the disk. MAX_CONTENT_LENGTH bounds them, since it counts the whole body."""

    max_form_parts = FORM_PARTS
    form_data_parser_class = MultipartOnly


def create_app(settings: Settings | None = None) -> Flask:
    """Return the server. Its engines load in a background thread: questions wait for them, and get 503 after 10 s.

    Arguments:
        settings: the settings; None reads config.py.

    Raises:
        ConfigurationError: config.py is invalid.
    """
    settings = settings or load_settings()
    app = Flask(__name__, static_folder=None)
    app.request_class = InMemoryRequest
    app.config["MAX_CONTENT_LENGTH"] = settings.upload_limit_bytes
    app.extensions[EXTENSION] = Runtime(settings)
    app.extensions[ACCESS_EXTENSION] = Access(settings.api_keys, settings.rate_limit_per_minute)
    app.wsgi_app = TrustedProxies(app.wsgi_app, networks_of(settings.trusted_proxies))  # type: ignore[method-assign]
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(Exception, error_response)
    app.register_blueprint(main)
    app.register_blueprint(page)
    app.register_blueprint(session_routes.routes)
    app.register_blueprint(openai_api.routes)
    app.register_blueprint(openapi.routes(openai_paths()))
    return app


def _begin() -> Response | None:
    method = request.method if request.method in METHODS else "other"
    route = (request.endpoint or "none").removeprefix("main.")
    g.record = RequestRecord(runtime().metrics, method, route, request.content_length or 0)
    settings = runtime().settings
    check_requested_host(request.environ, None if settings.api_keys else settings.allowed_hosts)
    if settings.cors_origins and is_preflight(request):
        return Response(status=204)  # _finish adds the CORS headers
    if request.endpoint in OPEN_ENDPOINTS:
        return None
    if not settings.api_keys and request.method != "OPTIONS":  # which does nothing
        check_page(request, settings.cors_origins)
    check_caller()
    if request.endpoint is not None and request.endpoint not in UNLOADED_ENDPOINTS:
        if request.method == "POST":  # the page reads /engines again and again, and tells its user meanwhile
            runtime().wait_for_pipeline()
        runtime().pipeline  # noqa: B018 - raises NotReady
    return None


def _finish(response: Response) -> Response:
    if response.status_code >= 400:
        leave_body(request.environ)
    record = request_record()
    response.headers["X-Request-Id"] = record.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.update(allowance_headers())
    allow_origin(request, response, runtime().settings.cors_origins)
    session_routes.name_session(response)
    name_ignored(response)
    record.status = response.status_code
    if response.is_streamed:
        response.call_on_close(record.end)
        return response
    record.bytes_out = response.content_length or 0
    record.finished()  # unless it has failed
    record.end()
    return response


@main.get("/healthz")
def healthz() -> Response:
    """Return 200 while the process is alive."""
    return jsonify(status="alive")


@main.get("/readyz")
def readyz() -> Response:
    """Return 200; 503 until all engines are loaded, when one fails or hangs, and after SIGTERM.

    It needs no key, so a server with keys says no more here: `/engines` names the engines.
    """
    server = runtime()
    try:
        if server.admission.closed:
            raise shutting_down()
        infos = server.pipeline.engines.infos()
    except Unavailable as error:
        if server.settings.api_keys:
            raise NotReady("the server is not ready", retry_after_s=error.retry_after_s) from None
        raise
    if server.settings.api_keys:
        return jsonify(status="ready")
    return jsonify(status="ready", engines={stage: vars(info) for stage, info in infos.items()})


@main.get("/metrics")
def metrics() -> Response:
    """Return the metrics for Prometheus. Like every route but health, it needs a key if the server has keys."""
    return Response(runtime().metrics.render(), content_type=CONTENT_TYPE)


@main.post("/process_audio")
def process_audio() -> Response:
    """Answer a spoken question: multipart `audio`, `language`, optional `reply_language`, `text`, `stream`, ..."""
    server = runtime()
    watch = request_record().watch
    context = Context.after(server.settings.turn_deadline_s)
    data = uploaded_file("audio")
    language = _language("language")
    reply_language = _language("reply_language") if "reply_language" in request.form else language
    text, hotwords = _text_field(), _hotwords_field()
    if language is None and text is None:
        require_detector(server.pipeline.engines, "language")
    options = requested_options(request.form, _may_speak(reply_language))
    session_id = session_routes.session_field()
    requested = requested_format(request)
    with acquire_slot(context) as slot, ExitStack() as held:
        audio = decode_upload(data, "audio")
        session = held.enter_context(session_routes.open_session(session_id))
        question = Question(audio, language, reply_language, text, session, hotwords, options)
        pipeline = server.pipeline
        if requested.stream:
            response = stream_answer(requested, question, slot)
            held.pop_all()  # the stream holds the session from here on
            return response
        answer = pipeline.answer(question, slot, watch=watch)
    used = engines_used(question, pipeline.engines.infos(), answer)
    return whole_answer(requested, answer, used, session.id)


def _language(name: str) -> Language | None:
    """Return the language that the form's field `name` names; None for `auto`. Raises MissingField, InvalidField."""
    value = request.form.get(name)
    if value is None:
        raise MissingField(f"the field {name} is missing; choose chinese, english or auto", param=name)
    try:
        return Language.parse_or_auto(value)
    except ValueError as error:
        raise InvalidField(f"{name}: {error}", param=name) from None


def _may_speak(language: Language | None) -> Collection[Synthesizer]:
    """Return the synthesizers that may speak an answer in `language`; None means that it is not detected yet."""
    synthesizers = runtime().pipeline.engines.synthesizers
    return synthesizers.values() if language is None else [synthesizers[language]]


def _hotwords_field() -> list[str]:
    words = split_hotwords(request.form.get("hotwords", ""))
    check_hotwords(words, "hotwords")
    return words


def _text_field() -> str | None:
    """Return the words of the question if the caller sent them; a blank field counts as missing."""
    text = request.form.get("text", "").strip()
    if len(text) > TEXT_LIMIT_CHARS:
        raise InvalidField(f"text is longer than {TEXT_LIMIT_CHARS} characters", param="text")
    return text or None
