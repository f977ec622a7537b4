"""`/v1/audio/voices` enrols, lists and deletes voices; `named` finds the voice that a request names.

A name means the caller's own voice first, then one that comes with the loaded model, then a stock voice of another
server.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Response, g, jsonify, request

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Engines, Language, Synthesizer, Voice, VoiceKind
from mirrorchat.errors import InvalidField, NotFound, NoVoice, OtherModelsVoice, UnsupportedField
from mirrorchat.openai import fields
from mirrorchat.openai.stock_voices import OPENAI_VOICES, is_stock_voice
from mirrorchat.openai.turn import admitted, in_helper, uploaded
from mirrorchat.server.form import decode_upload
from mirrorchat.server.ignored import ignore
from mirrorchat.server.runtime import request_record, runtime
from mirrorchat.turn.enrolled_voices import NAME_LIMIT_CHARS, EnrolledVoice, Part, checked_name, folded
from mirrorchat.turn.stopwatch import Stopwatch

DEFAULT = "default"  # a neutral voice, which every server has
SAMPLE_FIELDS = ("audio_sample", "file", "sample")


def create() -> Response:
    """Compute the voice in a recording, and keep it under the field `name` for the caller's key."""
    data = uploaded(*SAMPLE_FIELDS)
    field = next(name for name in SAMPLE_FIELDS if name in request.files)
    if request.form.get("type", "audio_sample") != "audio_sample":
        raise UnsupportedField("type may only be audio_sample: voices come from recordings", param="type")
    name = checked_name(fields.required(request.form, "name"), {DEFAULT, *OPENAI_VOICES, *_built_in_names()})
    keep_sample = fields.flag(request.form, "keep_sample")
    store = runtime().voices
    store.check_room(g.owner, name)  # before the voice is computed
    with admitted() as slot:
        audio = decode_upload(data, field)
        parts = in_helper(slot, partial(_parts, runtime().pipeline.engines, audio, field, request_record().watch))
    voice = store.enrol(g.owner, name, parts, encode_wav(audio) if keep_sample else b"")
    return jsonify(_as_sent(voice))


def list_voices() -> Response:
    """Return the default voice, the voices of the caller's key, and those that come with the loaded models."""
    own = runtime().voices.of(g.owner)
    taken = {folded(voice.name) for voice in own}
    built_in = [_as_listed(name, "built_in") for key, name in _built_in_names().items() if key not in taken]
    voices = [_as_listed(DEFAULT, "default"), *map(_as_sent, own), *built_in]
    # OpenAI's lists have `data`; clients of other speech servers read `voices`.
    short = [{"id": voice["id"], "name": voice["name"]} for voice in voices]
    return jsonify(object="list", data=voices, has_more=False, voices=short)


def get(voice: str) -> Response:
    """Return one voice of the list, by its id or name."""
    if folded(voice) == DEFAULT:
        return jsonify(_as_listed(DEFAULT, "default"))
    try:
        return jsonify(_as_sent(runtime().voices.find(g.owner, voice)))
    except NotFound:
        if (spelled := _built_in_names().get(folded(voice))) is None:
            raise
        return jsonify(_as_listed(spelled, "built_in"))


def delete(voice: str) -> Response:
    """Delete a voice of the caller's key, with its sample. Raises InvalidField for a voice that nobody enrolled."""
    try:
        deleted = runtime().voices.delete(g.owner, voice)
    except NotFound:
        if folded(voice) in _built_in_names():
            message = f"{voice[:NAME_LIMIT_CHARS]} comes with the model and cannot be deleted"
            raise InvalidField(message, param="voice") from None
        if folded(voice) == DEFAULT or (runtime().settings.api_aliases and is_stock_voice(voice)):
            message = f"{voice[:NAME_LIMIT_CHARS]} is the neutral voice of the server, which cannot be deleted"
            raise InvalidField(message, param="voice") from None
        raise
    return jsonify(id=deleted.id, object="audio.voice", deleted=True)


def named(field: object, param: str, language: Language) -> Callable[[], Voice]:
    """Return a function that returns the voice which a field of a request names.

    Arguments:
        field: the field's value: a name, an id, or an object with an id. `default` means the neutral voice. With
            `api_aliases` the stock voice of another server means it, too, and counts as ignored.
        param: the field's name, for errors.
        language: the language of the speech, which decides the synthesizer.

    Raises:
        NotFound: the caller's key has no such voice; the error lists the choices.
        OtherModelsVoice: another model computed the voice.
        InvalidField: the field is no name.
    """
    value = field.get("id") if isinstance(field, dict) else field
    if not isinstance(value, str) or not value.strip():
        raise InvalidField(f"{param} must be the name or the id of a voice, or {DEFAULT}", param=param)
    name, synthesizer, store = value.strip(), runtime().pipeline.engines.synthesizers[language], runtime().voices
    if folded(name) == DEFAULT:
        return partial(_neutral, synthesizer)
    try:
        enrolled = store.find(g.owner, name)
    except NotFound as error:
        built_in = {folded(each): voice for each, voice in synthesizer.built_in_voices.items()}
        if folded(name) in built_in:
            return partial(built_in.__getitem__, folded(name))
        if runtime().settings.api_aliases and is_stock_voice(name):
            ignore("voice")
            return partial(_neutral, synthesizer)
        choices = ", ".join([DEFAULT, *(each.name for each in store.of(g.owner)), *synthesizer.built_in_voices])
        raise NotFound(f"{error.message}; there are {choices}", param=param) from None
    try:
        voice = store.load(enrolled, synthesizer)
    except (NotFound, OtherModelsVoice) as error:
        error.param = param  # the store knows no fields
        raise
    return lambda: voice


def _built_in_names() -> dict[str, str]:
    """Return the names of the voices that come with the loaded models, by their folded forms."""
    synthesizers = runtime().pipeline.engines.synthesizers.values()
    return {folded(name): name for synthesizer in synthesizers for name in synthesizer.built_in_voices}


def _neutral(synthesizer: Synthesizer) -> Voice:
    return replace(synthesizer.voice([]), reason="the default voice")


def _parts(engines: Engines, audio: Audio, field: str, watch: Stopwatch) -> list[Part]:
    """Return the voice in `audio`, which came in `field`, for each synthesizer. Raises NoVoice if one finds none."""
    parts: list[Part] = []
    for synthesizer in {id(each): each for each in engines.synthesizers.values()}.values():
        with watch.time("voice"):
            voice = synthesizer.voice([audio])
        if voice.kind is VoiceKind.NEUTRAL:
            raise NoVoice(f"no voice can be computed from the recording: {voice.reason}", param=field)
        parts.append(Part(synthesizer.info.name, synthesizer.voice_model, voice.to_bytes()))
    return parts


def _as_listed(name: str, kind: str) -> dict[str, Any]:
    """Return a voice that nobody enrolled; its name is its id."""
    return {"id": name, "object": "audio.voice", "name": name, "created_at": 0, "type": kind}


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
