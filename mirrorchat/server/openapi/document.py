"""The OpenAPI 3.1 document of this server, which `/openapi.json` serves; docs/http_api.md describes the same."""

from flask import Blueprint, Response, jsonify

from mirrorchat import __version__
from mirrorchat.audio.decoding import SHORTEST_S
from mirrorchat.engines import Language, Tier, VoiceKind
from mirrorchat.server.answers import FLAGS, STREAMED_FORMATS, WHOLE_FORMATS
from mirrorchat.server.form import HOTWORD_LIMIT_CHARS, HOTWORDS_LIMIT, TEXT_LIMIT_CHARS
from mirrorchat.server.openapi.parts import (
    BINARY,
    EVENT_STREAM,
    FORM,
    INTEGER,
    JSON,
    SECONDS,
    STATUSES,
    TEXT,
    Schema,
    answered,
    followed,
    list_of,
    one_of,
    operation,
    record,
    ref,
    speech_options,
)  # fmt: skip
from mirrorchat.server.runtime import runtime
from mirrorchat.server.session_routes import ID_LIMIT_CHARS
from mirrorchat.settings import Settings

EVENTS = (
    "transcript", "voice", "thinking", "text", "audio", "sentence_failed", "started_over", "timings", "done", "error",
)  # fmt: skip
EVENT = record(event=one_of(EVENTS), data={**TEXT, "contentMediaType": JSON})
LANGUAGE = {
    **TEXT, "description": "a tag or a name of Mandarin Chinese or English (zh, zh-TW, chinese, en, en-US), or auto"
}  # fmt: skip
TIER = {**one_of(["", *Tier]), "description": "how good the engine is; empty for the chat"}
ENGINE = record(name=TEXT, model=TEXT, device=TEXT, reason=TEXT, tier=TIER, upgrade=TEXT)
AUDIO_TYPES = ("audio/wav", "audio/ogg; codecs=opus", "audio/mpeg", "audio/pcm")


def routes(more_paths: Schema) -> Blueprint:
    """Return the route of the document, which describes the server's own paths and `more_paths`."""
    blueprint = Blueprint("openapi", __name__)

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document(runtime().settings, more_paths))

    return blueprint


def document(settings: Settings, more_paths: Schema) -> Schema:
    """Return the document of a server with `settings`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MirrorChat",
            "version": __version__,
            "description": "Ask a question and hear the answer in your own voice.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_turn_paths(settings), **more_paths, **_state_paths()},
        "components": {
            "schemas": {"Error": _error_schema(), "Answer": _answer_schema(), "Engine": ENGINE},
            "responses": {f"Error{status}": _error_response(status) for status in STATUSES},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if settings.api_keys else [],
    }


def _error_schema() -> Schema:
    text_or_null = {"type": ["string", "null"]}
    return record(error=record(message=TEXT, type=TEXT, param=text_or_null, code=TEXT))


def _error_response(status: int) -> Schema:
    headers: Schema = {"X-Request-Id": {"schema": TEXT}}
    if status in (429, 503):
        headers["Retry-After"] = {"schema": {"type": "integer", "minimum": 0}, "description": "seconds"}
    return {"description": STATUSES[status], "headers": headers, "content": {JSON: {"schema": ref("schemas", "Error")}}}


def _answer_schema() -> Schema:
    stage = record(name=TEXT, model=TEXT, tier=TIER)
    return record(
        transcript=TEXT,
        language=one_of(list(Language)),
        reply=TEXT,
        audio={"type": "string", "contentEncoding": "base64", "contentMediaType": "audio/wav"},
        voice=record(kind=one_of(list(VoiceKind)), reason=TEXT),
        engines=record(recognizer=stage, chat=stage, synthesizer=stage),
        timings={"type": "object", "additionalProperties": SECONDS},
        finish_reason={**TEXT, "description": "how the answer ended: stop, length, content_filter, ..."},
        unspoken=list_of(record(index=INTEGER, sentence=TEXT, error={"type": "object"})),
        session_id=TEXT,
        reference=record(
            speech_s=SECONDS,
            snr_db={"type": ["number", "null"]},
            clipped={"type": "number", "minimum": 0, "maximum": 1},
            second_speaker={"type": ["boolean", "null"]},
        ),
    )


def _question_schema(settings: Settings) -> Schema:
    """Return the form of a question."""
    limits = f"{SHORTEST_S} to {settings.question_limit_s:g} s, up to {settings.upload_limit_mb} MiB"
    words = f"at most {HOTWORDS_LIMIT} words of at most {HOTWORD_LIMIT_CHARS} characters each"
    formats = "wav or json; with stream all but json. It overrides the header Accept"
    return record(
        ["audio", "language"],
        audio={
            **BINARY,
            "description": f"the recording: wav, flac, mp3, ogg, webm, mp4, m4a, aac, amr, aiff, au, caf; {limits}",
        },
        language=LANGUAGE,
        reply_language={**TEXT, "description": "the language of the answer; by default that of the question"},
        text={**TEXT, "maxLength": TEXT_LIMIT_CHARS, "description": "the words of the question: skips recognition"},
        hotwords={**TEXT, "description": f"rare words, one a line or between commas; {words}"},
        stream=one_of(list(FLAGS)),
        response_format=one_of(list(WHOLE_FORMATS | STREAMED_FORMATS), formats),
        session_id={**TEXT, "pattern": f"^[A-Za-z0-9_-]{{1,{ID_LIMIT_CHARS}}}$", "description": "of an earlier answer"},
        **speech_options(),
    )


def _turn_paths(settings: Settings) -> Schema:
    content = {**dict.fromkeys(AUDIO_TYPES, BINARY), JSON: ref("schemas", "Answer"), EVENT_STREAM: EVENT}
    ask = operation(
        "Answer a spoken question in the asker's voice",
        followed("the answer", content),
        body={FORM: _question_schema(settings)},
    )
    forgotten = {"204": {"description": "the session is forgotten"}}
    forget = operation("Forget a session at once", forgotten, path_parameter="session_id")
    return {"/process_audio": {"post": ask}, "/sessions/{session_id}": {"delete": forget}}


def _state_paths() -> Schema:
    engines = {"type": "object", "additionalProperties": ref("schemas", "Engine")}
    page = answered("a page for people", {"text/html": TEXT})
    alive = answered("the process is alive", {JSON: record(status={"const": "alive"})})
    state = record(["status"], status={"const": "ready"}, engines={**engines, "description": "only without keys"})
    ready = answered("every engine is loaded", {JSON: state})
    metrics = answered("the metrics in Prometheus's format", {"text/plain": TEXT})
    document = answered("the document in OpenAPI 3.1", {JSON: {"type": "object"}})
    return {
        "/": {"get": operation("Talk to MirrorChat in a browser", page, open_to_all=True)},
        "/engines": {
            "get": operation("Name the engines", answered("the engines", {JSON: record(engines=engines, upgrade=TEXT)}))
        },
        "/healthz": {"get": operation("Report that the process is alive", alive, open_to_all=True)},
        "/readyz": {"get": operation("Report that every engine is loaded", ready, open_to_all=True)},
        "/metrics": {"get": operation("Return the metrics for Prometheus", metrics)},
        "/openapi.json": {"get": operation("Describe this server", document)},
    }
