"""The models of OpenAI's API: the loaded models under their own names, and OpenAI's names for such models."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify

from mirrorchat.engines import EngineInfo, Language
from mirrorchat.errors import InvalidField, ModelNotFound
from mirrorchat.server.runtime import runtime

ALL = "mirrorchat"  # any model of the stage
HEARS, CHATS, SPEAKS = "recognizer", "chat", "synthesizer"
# OpenAI's own names, which many clients use: each means any model of that stage.
ALIASES: Mapping[str, tuple[str, ...]] = {
    HEARS: ("whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
    CHATS: ("gpt-4o", "gpt-4o-mini", "gpt-audio", "gpt-audio-mini", "gpt-4o-audio-preview"),
    SPEAKS: ("tts-1", "tts-1-hd", "gpt-4o-mini-tts"),
}

_STARTED = int(time.time())


@dataclass(frozen=True)
class Model:
    """A model with its name in requests, its stage, and the languages that it recognizes or speaks."""

    id: str
    stage: str
    languages: tuple[Language, ...]


def models() -> list[Model]:
    """Return the loaded models, each once."""
    server = runtime()
    engines = server.pipeline.engines
    hear = {language: engine.info for language, engine in engines.recognizers.items() if engine.info.name != "none"}
    speak = {language: engine.info for language, engine in engines.synthesizers.items()}
    chats = list(dict.fromkeys(api.model for api in server.settings.chatgpt_apis)) or [engines.chat.info.name]
    return [
        *_of_stage(HEARS, hear),
        *(Model(name, CHATS, tuple(Language)) for name in chats),
        *_of_stage(SPEAKS, speak),
    ]


def _of_stage(stage: str, infos: Mapping[Language, EngineInfo]) -> Iterator[Model]:
    for model_id in dict.fromkeys(_as_id(info.model) for info in infos.values()):
        yield Model(model_id, stage, tuple(each for each, info in infos.items() if _as_id(info.model) == model_id))


def _as_id(name: str) -> str:
    return re.sub(r"[^\w.:/-]+", "-", name).strip("-")


def chosen(fields: Mapping[str, Any], stage: str) -> Model:
    """Return the model of `stage` that the field `model` names; if it is missing, any model of the stage.

    Raises ModelNotFound, which lists the choices, and InvalidField.
    """
    name = fields.get("model") or ALL
    if not isinstance(name, str):
        raise InvalidField("model must be a text", param="model")
    own = [model for model in models() if model.stage == stage]
    for model in own:
        if model.id == name:
            return model
    if name == ALL or name in ALIASES[stage]:
        return Model(ALL, stage, tuple(Language))
    choices = ", ".join([ALL, *(model.id for model in own), *ALIASES[stage]])
    raise ModelNotFound(f"there is no model {name[:100]!r} for this; there are {choices}", param="model")


def list_models() -> Response:
    """Return the models (`GET /v1/models`)."""
    return jsonify(object="list", data=[_as_sent(ALL, ""), *(_as_sent(model.id, model.stage) for model in models())])


def get_model(model_id: str) -> Response:
    """Return a model of the list, or one of OpenAI's names (`GET /v1/models/<id>`)."""
    names = {model.id: model.stage for model in models()} | {ALL: ""}
    aliases = {alias: stage for stage, known in ALIASES.items() for alias in known}
    if model_id not in names and model_id not in aliases:
        raise ModelNotFound(f"there is no model {model_id[:100]!r}; there are {', '.join(names)}", param="model")
    return jsonify(_as_sent(model_id, (aliases | names)[model_id]))


def _as_sent(model_id: str, stage: str) -> dict[str, object]:
    return {"id": model_id, "object": "model", "created": _STARTED, "owned_by": "mirrorchat", "stage": stage or None}
