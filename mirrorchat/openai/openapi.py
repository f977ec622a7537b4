"""OpenAI's routes in the OpenAPI document: the fields that are honoured here; others are ignored or refused by name."""

from mirrorchat.audio.time_stretch import FASTEST, SLOWEST
from mirrorchat.openai import speech, transcriptions
from mirrorchat.openai.chat_request import MESSAGES_LIMIT, RANGES, ROLES, SPOKEN_FORMATS, WHOLE_RANGES
from mirrorchat.server.form import TEXT_LIMIT_CHARS
from mirrorchat.server.openapi.parts import BINARY, TEXT, Schema, answered, operation, record

EVENTS: Schema = {"type": "object", "properties": {"data": TEXT}, "required": ["data"]}
FLAG: Schema = {"type": "boolean"}
FORM_FLAG: Schema = {"type": "string", "enum": ["true", "false"]}
MODEL: Schema = {**TEXT, "description": "of GET /v1/models, or OpenAI's name for such a model"}
VOICE: Schema = {"description": "a voice's name or id, or default", "anyOf": [TEXT, record(id=TEXT)]}
FAILURES = (400, 404, 408, 409, 413, 415, 422, 502, 504)
SPOKEN = ("audio/mpeg", "audio/ogg; codecs=opus", "audio/aac", "audio/flac", "audio/wav", "audio/pcm")
WRITTEN = ("text/plain", "application/x-subrip", "text/vtt")


def openai_paths() -> Schema:
    """Return the paths under /v1."""
    return {**_model_paths(), **_audio_paths(), **_voice_paths(), **_chat_paths()}


def _json(description: str, schema: Schema) -> Schema:
    return {"200": answered(description, **{"application/json": schema})}


def _body(kind: str, schema: Schema) -> Schema:
    return {"required": True, "content": {kind: {"schema": schema}}}


def _range(kind: str, bounds: tuple[float, float]) -> Schema:
    return {"type": kind, "minimum": bounds[0], "maximum": bounds[1]}


def _in_path(name: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": TEXT}]


def _model_paths() -> Schema:
    model = record(id=TEXT, object={"const": "model"}, created={"type": "integer"}, owned_by=TEXT)
    models = record(object={"const": "list"}, data={"type": "array", "items": model})
    return {
        "/v1/models": {"get": operation("List what is loaded", _json("the models", models))},
        "/v1/models/{model_id}": {
            "get": operation("Name one model", _json("it", model), errors=(404,), parameters=_in_path("model_id"))
        },
    }


def _audio_paths() -> Schema:
    transcript = answered(
        "what is said",
        **{"application/json": record(text=TEXT), "text/event-stream": EVENTS},
        **dict.fromkeys(WRITTEN, TEXT),
    )
    speech = answered(
        "the speech, sent while it is made", **dict.fromkeys(SPOKEN, BINARY), **{"text/event-stream": EVENTS}
    )
    return {
        "/v1/audio/transcriptions": {
            "post": operation(
                "Recognize a recording",
                {"200": transcript},
                errors=FAILURES,
                requestBody=_body("multipart/form-data", _transcription()),
            )
        },
        "/v1/audio/translations": {"post": operation("Refused: nothing is translated here", {}, errors=(400,))},
        "/v1/audio/speech": {
            "post": operation(
                "Speak a text", {"200": speech}, errors=FAILURES, requestBody=_body("application/json", _speech())
            )
        },
    }


def _transcription() -> Schema:
    return record(
        ["file"],
        file=BINARY,
        model=MODEL,
        language={**TEXT, "description": "zh or en; any other name of the two"},
        prompt={"type": "string", "maxLength": TEXT_LIMIT_CHARS, "description": "short phrases of it become hot words"},
        response_format={"type": "string", "enum": list(transcriptions.FORMATS)},
        temperature={"type": "number", "minimum": 0, "maximum": 1},
        stream=FORM_FLAG,
    )


def _speech() -> Schema:
    return record(
        ["input", "voice"],
        model=MODEL,
        input={"type": "string", "minLength": 1, "maxLength": speech.INPUT_LIMIT_CHARS},
        voice=VOICE,
        response_format={"type": "string", "enum": list(speech.FORMATS)},
        speed=_range("number", (SLOWEST, FASTEST)),
        stream_format={"type": "string", "enum": ["audio", "sse"]},
    )


def _voice_paths() -> Schema:
    voice = record(id=TEXT, object={"const": "audio.voice"}, name=TEXT, created_at={"type": "integer"}, type=TEXT)
    voices = record(object={"const": "list"}, data={"type": "array", "items": voice})
    deleted = record(id=TEXT, object={"const": "audio.voice"}, deleted={"const": True})
    sample = record(["name", "audio_sample"], name=TEXT, audio_sample=BINARY, keep_sample=FORM_FLAG)
    return {
        "/v1/audio/voices": {
            "get": operation("List the voices of the key", _json("the voices", voices)),
            "post": operation(
                "Enrol a voice",
                _json("the voice", voice),
                errors=FAILURES,
                requestBody=_body("multipart/form-data", sample),
            ),
        },
        "/v1/audio/voices/{voice}": {
            "get": operation("Name one voice", _json("it", voice), errors=(404,), parameters=_in_path("voice")),
            "delete": operation(
                "Forget a voice", _json("it is forgotten", deleted), errors=(404,), parameters=_in_path("voice")
            ),
        },
    }


def _chat_paths() -> Schema:
    completion = record(id=TEXT, object=TEXT, created={"type": "integer"}, model=TEXT, choices={"type": "array"})
    answer = answered("the answer", **{"application/json": completion, "text/event-stream": EVENTS})
    content = {"anyOf": [TEXT, {"type": "array", "items": record(["type"], type=TEXT)}, {"type": "null"}]}
    message = record(["role"], role={"enum": list(ROLES)}, content=content)
    audio = record(voice=VOICE, format={"enum": list(SPOKEN_FORMATS)})
    wanted = record(
        ["messages"],
        model=MODEL,
        messages={"type": "array", "minItems": 1, "maxItems": MESSAGES_LIMIT, "items": message},
        stream=FLAG,
        modalities={"type": "array", "items": {"enum": ["text", "audio"]}},
        audio=audio,
        temperature=_range("number", RANGES["temperature"]),
        max_completion_tokens=_range("integer", WHOLE_RANGES["max_completion_tokens"]),
    )
    return {
        "/v1/chat/completions": {
            "post": operation(
                "Ask the chat APIs, in order; spoken where modalities has audio",
                {"200": answer},
                errors=FAILURES,
                requestBody=_body("application/json", wanted),
            )
        }
    }
