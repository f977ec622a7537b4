"""The format of an answer that the caller asked for, the headers of an answer, and answers that are sent whole."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from flask import Request, Response, jsonify

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.engines import EngineInfo, Voice
from mirrorchat.errors import InvalidField
from mirrorchat.pipeline import Question
from mirrorchat.turn.events import SentenceFailed, Timings
from mirrorchat.turn.reader import Answer, AnswerReader
from mirrorchat.turn.reference import ReferenceQuality

HEADER_TEXT_BYTES = 1500  # of percent-encoded text: a Chinese character takes 9
TEXT_GIVEN = EngineInfo("none", "text-given", "")  # in place of the recognizer where the request holds the text

# The values of the field `response_format`, and the format that each one means.
WHOLE_FORMATS = {"wav": "wav", "json": "json"}
STREAMED_FORMATS = {
    "wav": "wav", "opus": "opus", "ogg": "opus", "mp3": "mp3", "pcm": "pcm", "sse": "sse", "events": "sse",
}  # fmt: skip
STREAMED_TYPES = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/ogg": "opus", "audio/mpeg": "mp3", "audio/pcm": "pcm",
    "text/event-stream": "sse",
}  # fmt: skip
FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class RequestedFormat:
    """The format that a caller asks for: a value of WHOLE_FORMATS or, with `stream`, of STREAMED_FORMATS."""

    stream: bool
    format: str


def requested_format(request: Request) -> RequestedFormat:
    """Return the format that the fields `stream` and `response_format` or else the header Accept name, or else wav.

    Raises InvalidField for any other value of the fields.
    """
    flag = request.form.get("stream", "false").strip().lower()
    if flag not in FLAGS:
        raise InvalidField("stream must be true or false", param="stream")
    stream = FLAGS[flag]
    if "response_format" in request.form:
        return RequestedFormat(stream, _named_format(request.form["response_format"].strip().lower(), stream))
    return RequestedFormat(stream, _accepted_stream(request) if stream else _accepted_whole(request))


def _named_format(name: str, stream: bool) -> str:
    formats = STREAMED_FORMATS if stream else WHOLE_FORMATS
    if name in formats:
        return formats[name]
    also = "" if stream else f"; with stream=true {', '.join(STREAMED_FORMATS)}"
    raise InvalidField(f"response_format must be one of {', '.join(formats)}{also}", param="response_format")


def _accepted_whole(request: Request) -> str:
    best = request.accept_mimetypes.best_match(["audio/wav", "application/json"], "audio/wav")
    return "wav" if best == "audio/wav" else "json"


def _accepted_stream(request: Request) -> str:
    """Return the format of the best known type in Accept; parameters of types do not count."""
    ranges = sorted(request.accept_mimetypes, key=lambda accepted: -accepted[1])
    names = [name.partition(";")[0].strip().lower() for name, quality in ranges if quality > 0]
    return next((STREAMED_TYPES[name] for name in names if name in STREAMED_TYPES), "wav")


def engines_used(
    question: Question, infos: Mapping[str, EngineInfo], answer: Answer | AnswerReader
) -> dict[str, EngineInfo]:
    """Return the engine of each stage that answers `question`, as far as `answer` tells.

    `infos` are those of Engines.infos. Engines of a language that has not been detected yet are left out.
    """
    heard = question.language or answer.language
    spoken = question.reply_language or heard
    recognizer = {"recognizer": infos[f"recognizer.{heard.code}"]} if heard else {}
    synthesizer = {"synthesizer": infos[f"synthesizer.{spoken.code}"]} if spoken else {}
    return {
        **({"recognizer": TEXT_GIVEN} if question.text else recognizer),
        "chat": answer.answered_by or infos["chat"],
        **synthesizer,
    }


def engine_label(info: EngineInfo) -> str:
    """Return `name/model on device (tier)`, without the parts that an engine does not have."""
    device, tier = f" on {info.device}" if info.device else "", f" ({info.tier})" if info.tier else ""
    return f"{info.name}/{info.model}{device}{tier}"


def whole_answer(
    requested: RequestedFormat, answer: Answer, used: Mapping[str, EngineInfo], session_id: str
) -> Response:
    """Return `answer` as one wav, or as JSON that holds the wav."""
    assert answer.quality is not None, "an answer to a question has the quality of its reference"
    wav = encode_wav(answer.audio)
    if requested.format == "json":
        response = jsonify(_json_answer(answer, wav, used) | session_json(session_id, answer.quality))
    else:
        response = Response(wav, mimetype="audio/wav")
        response.headers["Content-Disposition"] = "attachment; filename=response.wav"
    describe_engines(response, used)
    describe(response, answer, answer.timings, whole=True)
    return response


def _json_answer(answer: Answer, wav: bytes, used: Mapping[str, EngineInfo]) -> dict[str, object]:
    return {
        "transcript": answer.transcript,
        "language": answer.language,
        "reply": answer.reply,
        "audio": base64.b64encode(wav).decode(),
        "voice": voice_json(answer.voice),
        "engines": engines_json(used),
        "timings": timings_json(answer.timings),
        "finish_reason": answer.finish_reason,
        "unspoken": [unspoken_json(failed) for failed in answer.unspoken],
    }


def session_json(session_id: str, quality: ReferenceQuality) -> dict[str, object]:
    """Return the session's id and the quality of its speaker reference, for the JSON of an answer."""
    reference = {
        "speech_s": round(quality.speech_s, 2),
        "snr_db": None if quality.snr_db is None else round(quality.snr_db, 1),
        "clipped": round(quality.clipped, 4),
        "second_speaker": quality.second_speaker,
    }
    return {"session_id": session_id, "reference": reference}


def voice_label(voice: Voice) -> str:
    """Return the value of the header X-MirrorChat-Voice."""
    return f"{voice.kind}; {voice.reason}"


def voice_json(voice: Voice) -> dict[str, str]:
    return {"kind": voice.kind, "reason": voice.reason}


def engines_json(used: Mapping[str, EngineInfo]) -> dict[str, dict[str, str]]:
    return {stage: {"name": info.name, "model": info.model, "tier": info.tier} for stage, info in used.items()}


def unspoken_json(failed: SentenceFailed) -> dict[str, object]:
    return {"index": failed.index, "sentence": failed.sentence, **failed.reason.body()}


def timings_json(timings: Timings) -> dict[str, float]:
    return {f"{stage}_s": round(seconds, 4) for stage, seconds in timings.seconds.items()}


def describe_engines(response: Response, used: Mapping[str, EngineInfo]) -> None:
    """Name the engines in the headers of `response`."""
    engines = ", ".join(f"{stage}={engine_label(info)}" for stage, info in used.items())
    # A chat model's name may hold any character; headers hold ASCII only.
    response.headers["X-MirrorChat-Engines"] = engines.encode("ascii", "replace").decode()


def describe(response: Response, answer: Answer | AnswerReader, timings: Timings, *, whole: bool) -> None:
    """Set the headers of `response` that describe the answer.

    `whole` tells whether the answer's reply is complete. X-MirrorChat-Cut names the headers with incomplete texts.
    """
    response.headers["X-MirrorChat-Voice"] = voice_label(answer.voice)
    if answer.language is not None:
        response.headers["X-MirrorChat-Language"] = answer.language
    if answer.finish_reason != "stop":
        response.headers["X-MirrorChat-Finish-Reason"] = _encode_for_header(answer.finish_reason)
    name_unspoken(response, answer.unspoken)
    response.headers["Server-Timing"] = ", ".join(
        f"{stage};dur={1000 * seconds:.0f}" for stage, seconds in timings.seconds.items()
    )
    fits = {name: _put_text(response, name, getattr(answer, name.lower())) for name in ("Transcript", "Reply")}
    cut = [name.lower() for name, fit in fits.items() if not fit or (name == "Reply" and not whole)]
    if cut:
        response.headers["X-MirrorChat-Cut"] = ", ".join(cut)


def name_unspoken(response: Response, unspoken: Sequence[SentenceFailed]) -> None:
    """Name the sentences that could not be spoken in a header, a line each."""
    if unspoken:
        _put_text(response, "Unspoken", "\n".join(failed.sentence for failed in unspoken))


def _put_text(response: Response, name: str, text: str) -> bool:
    """Set the text header `name`; return whether all of `text` fits into it."""
    encoded = _encode_for_header(text)
    response.headers[f"X-MirrorChat-{name}"] = encoded
    return len(encoded) == len(quote(text, safe=""))


def _encode_for_header(text: str) -> str:
    """Return `text` percent-encoded, at most HEADER_TEXT_BYTES, cut after a whole character."""
    encoded: list[str] = []
    size = 0
    for character in text:
        piece = quote(character, safe="")
        size += len(piece)
        if size > HEADER_TEXT_BYTES:
            break
        encoded.append(piece)
    return "".join(encoded)
