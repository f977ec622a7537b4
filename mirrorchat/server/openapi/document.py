"""The OpenAPI 3.1 document of this server, served at `/openapi.json`; docs/http_api.md says the same in words."""

from flask import Blueprint, Response, jsonify

from mirrorchat import __version__
from mirrorchat.audio.decoding import SHORTEST_S
from mirrorchat.server.answers import FLAGS, STREAMED_FORMATS, WHOLE_FORMATS
from mirrorchat.server.form import HOTWORD_LIMIT_CHARS, HOTWORDS_LIMIT, TEXT_LIMIT_CHARS
from mirrorchat.server.openapi.parts import BINARY, SECONDS, STATUSES, TEXT, Schema, answered, operation, record, ref
from mirrorchat.server.runtime import runtime
from mirrorchat.settings import Settings

EVENTS = ("transcript", "voice", "text", "audio", "sentence_failed", "timings", "done", "error")
EVENT: Schema = {
    "type": "object",
    "properties": {"event": {"enum": list(EVENTS)}, "data": {**TEXT, "contentMediaType": "application/json"}},
    "required": ["event", "data"],
}
LANGUAGE: Schema = {"type": "string", "enum": ["chinese", "zh", "zh-cn", "english", "en"], "description": "any case"}


def routes(more_paths: Schema) -> Blueprint:
    """Return the route of the document, which describes `more_paths` beside the server's own."""
    blueprint = Blueprint("openapi", __name__)

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document(runtime().settings, more_paths))

    return blueprint


def document(settings: Settings, more_paths: Schema) -> Schema:
    """Return the document of a server that runs with `settings`."""
    paths = {**_turn_paths(settings), **more_paths, **_state_paths()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MirrorChat",
            "version": __version__,
            "description": "Ask a question aloud, and hear the answer in your own voice.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _error_schema(), "Answer": _answer_schema(), "Engine": _engine_schema()},
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
    content = {"application/json": {"schema": ref("schemas", "Error")}}
    return {"description": STATUSES[status], "headers": headers, "content": content}


def _answer_schema() -> Schema:
    stage = record(name=TEXT, model=TEXT)
    return record(
        transcript=TEXT,
        reply=TEXT,
        audio={"type": "string", "contentEncoding": "base64", "contentMediaType": "audio/wav"},
        voice=record(kind={"enum": ["clone", "tint", "neutral"]}, reason=TEXT),
        engines=record(recognizer=stage, chat=stage, synthesizer=stage),
        timings={"type": "object", "additionalProperties": SECONDS},
        session_id=TEXT,
        reference=record(
            speech_s=SECONDS,
            snr_db={"type": ["number", "null"]},
            clipped={"type": "number", "minimum": 0, "maximum": 1},
            second_speaker={"type": ["boolean", "null"]},
        ),
    )


def _engine_schema() -> Schema:
    return record(name=TEXT, model=TEXT, device=TEXT, reason=TEXT)


def _question_schema(settings: Settings) -> Schema:
    """Return the form of a question."""
    limits = f"{SHORTEST_S} to {settings.question_limit_s:g} s, up to {settings.upload_limit_mb} MB"
    words = f"at most {HOTWORDS_LIMIT} of at most {HOTWORD_LIMIT_CHARS} characters"
    return record(
        ["audio", "language"],
        audio={**BINARY, "description": f"the recording: wav, flac, mp3, ogg, webm, m4a, aac; {limits}"},
        language=LANGUAGE,
        reply_language={**LANGUAGE, "description": "of the answer; that of the question unless given"},
        text={"type": "string", "maxLength": TEXT_LIMIT_CHARS, "description": "what was said: recognition is skipped"},
        hotwords={"type": "string", "description": f"rare words, one a line or between commas; {words}"},
        stream={"type": "string", "enum": list(FLAGS)},
        response_format={
            "type": "string",
            "enum": list(WHOLE_FORMATS | STREAMED_FORMATS),
            "description": "wav or json; with stream all but json. Overrides the header Accept",
        },
        session_id={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$", "description": "of an earlier answer"},
    )


def _turn_paths(settings: Settings) -> Schema:
    types = ("audio/wav", "audio/ogg; codecs=opus", "audio/mpeg", "audio/pcm")
    audio = dict.fromkeys(types, BINARY)
    answer = answered(
        "the answer", **audio, **{"application/json": ref("schemas", "Answer"), "text/event-stream": EVENT}
    )
    form = {"multipart/form-data": {"schema": _question_schema(settings)}}
    session_id = {"name": "session_id", "in": "path", "required": True, "schema": TEXT}
    return {
        "/process_audio": {
            "post": operation(
                "Answer a spoken question in the asker's voice",
                {"200": answer},
                errors=(400, 404, 408, 409, 413, 415, 422, 502, 504),
                requestBody={"required": True, "content": form},
            )
        },
        "/sessions/{session_id}": {
            "delete": operation(
                "Forget a session at once",
                {"204": {"description": "it is forgotten"}},
                errors=(404,),
                parameters=[session_id],
            )
        },
    }


def _state_paths() -> Schema:
    engines = {"type": "object", "additionalProperties": ref("schemas", "Engine")}
    page = answered("a page for people", **{"text/html": TEXT})
    alive = answered("it is", **{"application/json": record(status={"const": "alive"})})
    ready = answered("which engines answer", **{"application/json": record(status={"const": "ready"}, engines=engines)})
    engines_answer = answered("which engines answer", **{"application/json": record(engines=engines)})
    metrics = answered("in Prometheus's format", **{"text/plain": TEXT})
    document = answered("in OpenAPI 3.1", **{"application/json": {"type": "object"}})
    return {
        "/": {"get": operation("Talk to MirrorChat in a browser", {"200": page}, open_to_all=True)},
        "/engines": {"get": operation("Say which engines answer, to who has a key", {"200": engines_answer})},
        "/healthz": {"get": operation("Say that the process is alive", {"200": alive}, open_to_all=True)},
        "/readyz": {"get": operation("Say which engines answer", {"200": ready}, open_to_all=True)},
        "/metrics": {"get": operation("Say what Prometheus asks for", {"200": metrics})},
        "/openapi.json": {"get": operation("Describe this server", {"200": document})},
    }
