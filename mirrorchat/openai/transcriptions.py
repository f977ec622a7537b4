"""`POST /v1/audio/transcriptions` recognizes a recording and returns the transcript in OpenAI's formats."""

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, jsonify, request

from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Transcript
from mirrorchat.errors import InvalidField, UnsupportedField
from mirrorchat.openai import fields
from mirrorchat.openai.models import HEARS, chosen
from mirrorchat.openai.timed_words import Segment, as_srt, as_vtt, joined, segments_of
from mirrorchat.openai.turn import admitted, event_response, from_first, in_helper, sse, streamed_turn, uploaded
from mirrorchat.server.form import HOTWORD_LIMIT_CHARS, HOTWORDS_LIMIT, TEXT_LIMIT_CHARS, check_hotwords, decode_upload
from mirrorchat.server.ignored import ignore_others
from mirrorchat.server.runtime import request_record, runtime
from mirrorchat.turn.admission import Slot
from mirrorchat.turn.hearing import Hearing, require_detector

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
HOTWORD_LIMIT_WORDS = 4  # a longer phrase of a prompt is prose, which does not help the recognizer

LISTS = (
    "timestamp_granularities", "include", "keywords", "languages", "known_speaker_names", "known_speaker_references",
)  # fmt: skip
KNOWN = ("file", "model", "language", "prompt", "response_format", "stream", "chunking_strategy", *LISTS)
REFUSED = {
    "include": "log probabilities are not returned; verbose_json has avg_logprob",
    "known_speaker_names": "speakers are not distinguished",
    "known_speaker_references": "speakers are not distinguished",
}


@dataclass(frozen=True)
class RequestedTranscription:
    """A request for a transcript. The recording may be in any of `languages`."""

    languages: tuple[Language, ...]
    format: str
    granularities: tuple[str, ...]
    hotwords: tuple[str, ...]
    stream: bool


def create() -> Response:
    """Return the transcript of the field `file`, or stream it as it is recognized."""
    data = uploaded("file")
    requested = _requested(_form())
    with admitted() as slot:
        audio = decode_upload(data, "file")
        if requested.stream:
            return _streamed(requested, audio, slot)
        hearing = hearing_for(slot, requested.hotwords)
        transcript = in_helper(slot, partial(hearing.hear, audio, requested.languages))
    return _whole(requested, audio, transcript)


def translate() -> Response:
    """Reject `POST /v1/audio/translations`: the server translates no speech."""
    raise UnsupportedField("the server makes no translations: transcribe, then ask the chat", param="model")


def hearing_for(slot: Slot, hotwords: Sequence[str] = ()) -> Hearing:
    """Return the recognition of the present request. It does not use Flask, so that a helper can call it."""
    return Hearing(runtime().pipeline.engines, hotwords, slot.context, request_record().watch)


def _form() -> dict[str, Any]:
    """Return the form's fields; those in LISTS, which clients name with or without `[]`, as lists."""
    form = request.form
    # A part with an unreadable name has the name None.
    plain = {name: form[name] for name in form if name is not None and name.removesuffix("[]") not in LISTS}
    return plain | {name: [*form.getlist(name), *form.getlist(f"{name}[]")] for name in LISTS}


def _requested(form: Mapping[str, Any]) -> RequestedTranscription:
    fields.refuse(form, REFUSED)
    ignore_others(form, KNOWN)
    if form.get("chunking_strategy") not in (None, "", "auto", '"auto"'):
        raise UnsupportedField("chunking_strategy may only be auto", param="chunking_strategy")
    fields.number(form, "temperature", 0.0, 1.0, 0.0)  # recognition does not sample
    format = fields.choice(form, "response_format", FORMATS, "json")
    stream = fields.flag(form, "stream")
    if stream and format not in ("json", "text"):
        raise InvalidField("response_format must be json or text with stream", param="response_format")
    return RequestedTranscription(_languages(form), format, _granularities(form, format), _hotwords(form), stream)


def _languages(form: Mapping[str, Any]) -> tuple[Language, ...]:
    spoken = chosen(form, HEARS).languages
    named = fields.language(form)
    if named is not None and named not in spoken:
        raise InvalidField(f"language: the model {form['model']} does not hear {named.value}", param="language")
    if named is not None:
        return (named,)
    if form.get("language") and len(spoken) > 1:  # it is `auto`
        require_detector(runtime().pipeline.engines, "language")
    given = [fields.language({"languages": value}, "languages") for value in form["languages"]]
    return tuple(dict.fromkeys(each for each in given if each is not None)) or spoken


def _granularities(form: Mapping[str, Any], format: str) -> tuple[str, ...]:
    given = form["timestamp_granularities"]
    for value in given:
        if value not in GRANULARITIES:
            raise InvalidField("timestamp_granularities must be word or segment", param="timestamp_granularities")
    if given and format != "verbose_json":
        raise InvalidField(
            "timestamp_granularities needs response_format verbose_json", param="timestamp_granularities"
        )
    return tuple(given) or ("segment",)


def _hotwords(form: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the `keywords`, and the short phrases of the `prompt`, which end at commas or line ends."""
    prompt, keywords = form.get("prompt", ""), form["keywords"]
    if len(prompt) > TEXT_LIMIT_CHARS:
        raise InvalidField(f"prompt is longer than {TEXT_LIMIT_CHARS} characters", param="prompt")
    check_hotwords(keywords, "keywords")
    phrases = [phrase.strip(" .。!！?？\"'") for phrase in re.split(r"[\n,，、;；:：]", prompt)]
    short = [
        phrase
        for phrase in phrases
        if 0 < len(phrase) <= HOTWORD_LIMIT_CHARS and len(phrase.split()) <= HOTWORD_LIMIT_WORDS
    ]
    return tuple(dict.fromkeys([*(word.strip() for word in keywords if word.strip()), *short]))[:HOTWORDS_LIMIT]


def _whole(requested: RequestedTranscription, audio: Audio, transcript: Transcript) -> Response:
    match requested.format:
        case "json":
            return jsonify(text=transcript.text, usage=_usage(audio))
        case "verbose_json":
            return jsonify(_verbose(requested, audio, transcript))
        case "text":
            return Response(f"{transcript.text}\n", content_type="text/plain; charset=utf-8")
    segments = segments_of(transcript, audio)
    if requested.format == "srt":
        return Response(as_srt(segments), content_type="application/x-subrip; charset=utf-8")
    return Response(as_vtt(segments), content_type="text/vtt; charset=utf-8")


def _usage(audio: Audio) -> dict[str, object]:
    return {"type": "duration", "seconds": math.ceil(audio.duration_s)}


def _verbose(requested: RequestedTranscription, audio: Audio, transcript: Transcript) -> dict[str, object]:
    body: dict[str, object] = {
        "task": "transcribe",
        "language": transcript.language.value,
        "duration": round(audio.duration_s, 3),
        "text": transcript.text,
        "usage": _usage(audio),
    }
    if "segment" in requested.granularities:
        body["segments"] = [_segment(number, each) for number, each in enumerate(segments_of(transcript, audio))]
    if "word" in requested.granularities:
        if transcript.text and not transcript.words:
            reason = "this recognizer does not know the times of words; WeNet and Whisper do"
            raise UnsupportedField(f"timestamp_granularities: {reason}", param="timestamp_granularities")
        body["words"] = [
            {"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)}
            for word in transcript.words
        ]
    return body


def _segment(number: int, segment: Segment) -> dict[str, object]:
    text = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": math.log(max(segment.confidence, 1e-30)) if segment.confidence is not None else 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
        "no_speech_prob": 0.0,
    }


# As it is recognized


def _streamed(requested: RequestedTranscription, audio: Audio, slot: Slot) -> Response:
    """Return the transcript as events, one for each piece of the recording, which is split at pauses."""
    texts = list[str]()
    pieces = partial(_pieces, hearing_for(slot, requested.hotwords), audio, requested.languages)
    turn = streamed_turn(slot, runtime().pipeline.helpers.stream(slot, pieces))

    def delta(text: str) -> Iterator[bytes]:
        texts.append(text)
        yield sse({"type": "transcript.text.delta", "delta": text})

    def end() -> Iterator[bytes]:
        yield sse({"type": "transcript.text.done", "text": "".join(texts)})

    with turn.freed_on_error():
        return event_response(turn, from_first(turn, turn.events), delta, end)


def _pieces(hearing: Hearing, audio: Audio, languages: Sequence[Language], context: Context) -> Iterator[str]:
    """Yield the text of each piece of `audio`. The first piece with words decides the language of the others."""
    before = ""
    for piece in pieces_of(audio):
        context.check()
        transcript = hearing.hear(piece.audio, languages)
        if transcript.text:
            languages = (transcript.language,)
            text = joined([before, transcript.text])
            yield text[len(before) :]
            before = text[-1:]
