"""The models of OpenAI's API: the loaded models under their own names, and OpenAI's names for such models."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify

from mirrorchat.engines import EngineInfo, Language
from mirrorchat.errors import InvalidField, ModelNotFound
from mirrorchat.server.ignored import ignore
from mirrorchat.server.runtime import runtime

ALL = "mirrorchat"  # any model of the stage
HEARS, CHATS, SPEAKS = "recognizer", "chat", "synthesizer"
# OpenAI's own names, which many clients use: each means any model of that stage, and of no other.
OPENAI_MODELS: Mapping[str, tuple[str, ...]] = {
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

    With `api_aliases` the name of another server's model means any model of the stage, too, and counts as ignored. But
    a name that is known for another stage is a mistake.

    Raises ModelNotFound, which lists the choices, and InvalidField.
    """
    name = fields.get("model") or ALL
    if not isinstance(name, str):
        raise InvalidField("model must be a text", param="model")
    loaded = models()
    own = [model for model in loaded if model.stage == stage]
    for model in own:
        if model.id == name:
            return model
    any_model, aliases = Model(ALL, stage, tuple(Language)), runtime().settings.api_aliases
    if name == ALL:
        return any_model
    if aliases and name not in _names_of_others(loaded, stage):
        ignore("model")
        return any_model
    choices = ", ".join([ALL, *(model.id for model in own), *(OPENAI_MODELS[stage] if aliases else ())])
    raise ModelNotFound(f"there is no model {name[:100]!r} for this; there are {choices}", param="model")


def _names_of_others(loaded: Sequence[Model], stage: str) -> set[str]:
    openais = {name for other, names in OPENAI_MODELS.items() if other != stage for name in names}
    return openais | {model.id for model in loaded if model.stage != stage}


def list_models() -> Response:
    """Return the models (`GET /v1/models`)."""
    return jsonify(object="list", data=[_as_sent(ALL, ""), *(_as_sent(model.id, model.stage) for model in models())])


def list_speech_models() -> Response:
    """Return the models that speak, as clients of other speech servers read them (`GET /v1/audio/models`)."""
    ids = [ALL, *(model.id for model in models() if model.stage == SPEAKS)]
    return jsonify(models=[{"id": each, "name": each} for each in ids])


def get_model(model_id: str) -> Response:
    """Return a model of the list, or one of OpenAI's names (`GET /v1/models/<id>`)."""
    names = {model.id: model.stage for model in models()} | {ALL: ""}
    openais = {name: stage for stage, known in OPENAI_MODELS.items() for name in known}
    known = (openais | names) if runtime().settings.api_aliases else names
    if model_id not in known:
        raise ModelNotFound(f"there is no model {model_id[:100]!r}; there are {', '.join(names)}", param="model")
    return jsonify(_as_sent(model_id, known[model_id]))


def _as_sent(model_id: str, stage: str) -> dict[str, object]:
    return {"id": model_id, "object": "model", "created": _STARTED, "owned_by": "mirrorchat", "stage": stage or None}
