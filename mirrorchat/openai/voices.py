"""`/v1/audio/voices`: voices that callers enrol, list and delete; and the voice that a request names."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Response, g, jsonify, request

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Engines, Language, Voice, VoiceKind
from mirrorchat.errors import InvalidField, MissingField, NotFound, NoVoice, UnsupportedField
from mirrorchat.openai import fields
from mirrorchat.openai.turn import admitted, decoded, in_helper, uploaded, watch
from mirrorchat.server.runtime import runtime
from mirrorchat.turn.enrolled_voices import EnrolledVoice, Part, checked_name

DEFAULT = "default"  # a neutral voice that is always there
# OpenAI's built-in voices, which its examples name: none of them is here, so they mean the default one.
BUILT_IN = (
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar",
)  # fmt: skip
SAMPLE_FIELDS = ("audio_sample", "file", "sample")


def create() -> Response:
    """Compute the voice in a recording, once, and keep it under the field `name` for the key that asks."""
    data = uploaded(*SAMPLE_FIELDS)
    if request.form.get("type", "audio_sample") != "audio_sample":
        raise UnsupportedField("type may only be audio_sample: voices come from recordings", param="type")
    if "name" not in request.form:
        raise MissingField("the field name is missing", param="name")
    name = checked_name(request.form["name"], (DEFAULT, *BUILT_IN))
    keep_sample = fields.flag(request.form, "keep_sample")
    store = runtime().voices
    store.check_room(g.owner, name)  # before the work
    with admitted() as slot:
        audio = decoded(data, "audio_sample")
        engines, stopwatch = runtime().pipeline.engines, watch()

        def compute() -> list[Part]:
            with stopwatch.time("voice"):
                return _parts(engines, audio)

        parts = in_helper(slot, compute)
    voice = store.enrol(g.owner, name, parts, encode_wav(audio) if keep_sample else b"")
    return jsonify(_as_sent(voice))


def list_voices() -> Response:
    """Return the voices of the key that asks, and the default one."""
    default = {"id": DEFAULT, "object": "audio.voice", "name": DEFAULT, "created_at": 0, "type": "default"}
    voices = [_as_sent(voice) for voice in runtime().voices.of(g.owner)]
    return jsonify(object="list", data=[default, *voices], has_more=False)


def get(voice: str) -> Response:
    """Return one voice of the key that asks, by its id or name."""
    return jsonify(_as_sent(runtime().voices.find(g.owner, voice)))


def delete(voice: str) -> Response:
    """Forget a voice, and all that is kept of it."""
    deleted = runtime().voices.delete(g.owner, voice)
    return jsonify(id=deleted.id, object="audio.voice", deleted=True)


def named(field: object, param: str, language: Language) -> Callable[[], Voice]:
    """Return what gives the voice that a field of a request names: a name, an id, or an object with an id.

    `default` and the names of OpenAI's own voices mean the neutral one. Raises NotFound, which lists the choices,
    OtherModelsVoice and InvalidField.
    """
    value = field.get("id") if isinstance(field, dict) else field
    if not isinstance(value, str) or not value.strip():
        raise InvalidField(f"{param} must be the name or the id of a voice, or {DEFAULT}", param=param)
    name, synthesizer, store = value.strip(), runtime().pipeline.engines.synthesizers[language], runtime().voices
    if name.casefold() in (DEFAULT, *BUILT_IN):
        return lambda: replace(synthesizer.voice([]), reason="the default voice")
    try:
        voice = store.load(store.find(g.owner, name), synthesizer)
    except NotFound as error:
        choices = ", ".join([DEFAULT, *(each.name for each in store.of(g.owner))])
        raise NotFound(f"{error.message}; there are {choices}", param=param) from None
    return lambda: voice


def _parts(engines: Engines, audio: Audio) -> list[Part]:
    """Return the voice in `audio` for each synthesizer that speaks here. Raises NoVoice where one hears none."""
    parts: list[Part] = []
    for synthesizer in {id(each): each for each in engines.synthesizers.values()}.values():
        voice = synthesizer.voice([audio])
        if voice.kind is VoiceKind.NEUTRAL:
            raise NoVoice(f"no voice can be computed from the recording: {voice.reason}", param="audio_sample")
        parts.append(Part(synthesizer.info.name, synthesizer.voice_model, voice.to_bytes()))
    return parts


def _as_sent(voice: EnrolledVoice) -> dict[str, Any]:
    return {
        "id": voice.id,
        "object": "audio.voice",
        "name": voice.name,
        "created_at": voice.created_at,
        "type": "audio_sample",
        "models": [f"{engine} ({model})" for engine, model in voice.models],
        "sample_kept": voice.sample,
    }
