"""OpenAI's routes in the OpenAPI document, with the fields that they use; others are ignored or rejected by name."""

from mirrorchat.openai import speech, transcriptions
from mirrorchat.openai.chat_request import MESSAGES_LIMIT, RANGES, ROLES, SPOKEN_FORMATS, WHOLE_RANGES
from mirrorchat.server.form import TEXT_LIMIT_CHARS
from mirrorchat.server.openapi.parts import (
    BINARY,
    EVENT_STREAM,
    FORM,
    INTEGER,
    JSON,
    TEXT,
    Schema,
    answered,
    followed,
    list_of,
    one_of,
    operation,
    range_of,
    record,
    ref,
    speech_options,
)  # fmt: skip

EVENTS = record(data=TEXT)
FLAG: Schema = {"type": "boolean"}
FORM_FLAG = one_of(("true", "false"))
MODEL: Schema = {**TEXT, "description": "of GET /v1/models; another server's name means any such model"}
VOICE: Schema = {
    "description": "a voice's name or id, or default, which a stock voice of another server means, too",
    "anyOf": [TEXT, record(id=TEXT)],
}
SPOKEN = ("audio/mpeg", "audio/ogg; codecs=opus", "audio/aac", "audio/flac", "audio/wav", "audio/pcm")
WRITTEN = ("text/plain", "application/x-subrip", "text/vtt")


def openai_paths() -> Schema:
    """Return the paths under /v1."""
    return {**_model_paths(), **_audio_paths(), **_voice_paths(), **_chat_paths()}


def _list(item: Schema, **more: Schema) -> Schema:
    return {JSON: record(None, object={"const": "list"}, data=list_of(item), **more)}


def _model_paths() -> Schema:
    model = record(id=TEXT, object={"const": "model"}, created=INTEGER, owned_by=TEXT)
    get = operation("Describe one model", answered("the model", {JSON: model}), path_parameter="model_id")
    return {
        "/v1/models": {"get": operation("List the loaded models", answered("the models", _list(model)))},
        "/v1/models/{model_id}": {"get": get},
    }


def _audio_paths() -> Schema:
    written = {JSON: record(text=TEXT), EVENT_STREAM: EVENTS, **dict.fromkeys(WRITTEN, TEXT)}
    spoken = {**dict.fromkeys(SPOKEN, BINARY), EVENT_STREAM: EVENTS}
    transcribe = operation("Recognize a recording", followed("the transcript", written), body={FORM: _transcription()})
    translate = operation("Rejected: the server translates nothing", {"400": ref("responses", "Error400")})
    speak = operation("Speak a text", followed("the speech, while it is made", spoken), body={JSON: _speech()})
    models = answered("the models", {JSON: record(models=list_of(record(id=TEXT, name=TEXT)))})
    return {
        "/v1/audio/models": {"get": operation("List the models that speak", models)},
        "/v1/audio/transcriptions": {"post": transcribe},
        "/v1/audio/translations": {"post": translate},
        "/v1/audio/speech": {"post": speak},
    }


def _transcription() -> Schema:
    return record(
        ["file"],
        file=BINARY,
        model=MODEL,
        language={**TEXT, "description": "a tag or a name of Mandarin Chinese or English, or auto"},
        prompt={**TEXT, "maxLength": TEXT_LIMIT_CHARS, "description": "its short phrases become hot words"},
        response_format=one_of(transcriptions.FORMATS),
        temperature=range_of("number", (0, 1)),
        stream=FORM_FLAG,
    )


def _speech() -> Schema:
    return record(
        ["input"],
        model=MODEL,
        input={**TEXT, "minLength": 1, "maxLength": speech.INPUT_LIMIT_CHARS},
        voice=VOICE,
        response_format=one_of(speech.FORMATS),
        stream_format=one_of(("audio", "sse")),
        **speech_options(),
    )


def _voice_paths() -> Schema:
    voice = record(id=TEXT, object={"const": "audio.voice"}, name=TEXT, created_at=INTEGER, type=TEXT)
    deletion = record(id=TEXT, object={"const": "audio.voice"}, deleted={"const": True})
    sample = record(["name", "audio_sample"], name=TEXT, audio_sample=BINARY, keep_sample=FORM_FLAG)
    one = answered("the voice", {JSON: voice})
    deleted = answered("it is deleted", {JSON: deletion})  # the neutral voice cannot be: 400
    listed = answered("the voices", _list(voice, voices=list_of(record(id=TEXT, name=TEXT))))
    return {
        "/v1/audio/voices": {
            "get": operation("List the voices of the key", listed),
            "post": operation("Enrol a voice", one, body={FORM: sample}),
        },
        "/v1/audio/voices/{voice}": {
            "get": operation("Describe one voice", one, path_parameter="voice"),
            "delete": operation("Delete a voice", deleted, path_parameter="voice"),
        },
    }


def _chat_paths() -> Schema:
    completion = record(id=TEXT, object=TEXT, created=INTEGER, model=TEXT, choices={"type": "array"})
    content = {"anyOf": [TEXT, list_of(record(["type"], type=TEXT)), {"type": "null"}]}
    request = record(
        ["messages"],
        model=MODEL,
        messages=list_of(record(["role"], role=one_of(ROLES), content=content), minItems=1, maxItems=MESSAGES_LIMIT),
        stream=FLAG,
        modalities=list_of(one_of(("text", "audio"))),
        audio=record(voice=VOICE, format=one_of(SPOKEN_FORMATS)),
        temperature=range_of("number", RANGES["temperature"]),
        max_completion_tokens=range_of("integer", WHOLE_RANGES["max_completion_tokens"]),
    )
    ask = operation(
        "Ask the chat APIs, in order; spoken if modalities has audio",
        followed("the answer", {JSON: completion, EVENT_STREAM: EVENTS}),
        body={JSON: request},
    )
    return {"/v1/chat/completions": {"post": ask}}
