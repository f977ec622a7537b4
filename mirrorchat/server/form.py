"""The fields that the multipart forms of `/process_audio` and OpenAI's routes share: recordings and hot words."""

import re
from collections.abc import Sequence

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from mirrorchat.audio.decoding import decode, require_speakable
from mirrorchat.audio.samples import Audio
from mirrorchat.errors import InvalidField, InvalidRequest, MissingField, UploadTooLarge
from mirrorchat.server.runtime import request_record, runtime

TEXT_LIMIT_CHARS = 4000
HOTWORDS_LIMIT = 200
HOTWORD_LIMIT_CHARS = 64
FORM_PARTS = 16
LIST_FORM_PARTS = 512  # of a form with lists, such as OpenAI's `keywords`, which have a part for each item


def uploaded_file(*names: str, max_parts: int = FORM_PARTS) -> bytes:
    """Return the file in the first of the form's fields `names` that is present.

    Raises MissingField, InvalidField for a field that is no file, InvalidRequest for a broken form, UploadTooLarge,
    UploadTimeout and TooManyPartialRequests.
    """
    request.max_form_parts = max_parts
    try:
        files, form = request.files, request.form
    except RequestEntityTooLarge:
        limit = f"{runtime().settings.upload_limit_mb} MiB"
        raise UploadTooLarge(f"the upload is larger than {limit}", param=names[0]) from None
    for name in names:
        if name in files:
            data: bytes = files[name].read()
            return data
        if name in form:
            raise InvalidField(f"{name} must be sent as a file (curl: -F {name}=@question.wav)", param=name)
    instruction = "send a recording as a file (multipart/form-data)"
    raise MissingField(f"the field {names[0]} is missing: {instruction}", param=names[0])


def decode_upload(data: bytes, field: str) -> Audio:
    """Return the recording in an uploaded file, resampled to at most 48 kHz.

    The request's record gets the duration and the time of decoding. `audio/` knows no forms: this function names the
    form's `field` in the errors that `audio/` raises.

    Raises AudioTooLong beyond the setting `question_limit_s`, AudioTooShort, SilentAudio, NonFiniteAudio and
    UnsupportedAudio.
    """
    record = request_record()
    with record.watch.time("decode"):
        try:
            audio = decode(data, limit_s=runtime().settings.question_limit_s)
            record.audio_in_s += audio.duration_s
            require_speakable(audio)
        except InvalidRequest as error:
            error.param = field
            raise
    return audio


def split_hotwords(text: str) -> list[str]:
    """Return the hot words in `text`, which are separated by line ends or commas."""
    return [word.strip() for word in re.split(r"[\n,，、]", text) if word.strip()]


def check_hotwords(words: Sequence[str], field: str) -> None:
    """Raise InvalidField, which names the form's `field`, for too many hot words or one that is too long."""
    if len(words) > HOTWORDS_LIMIT or any(len(word) > HOTWORD_LIMIT_CHARS for word in words):
        limits = f"at most {HOTWORDS_LIMIT} words of at most {HOTWORD_LIMIT_CHARS} characters"
        raise InvalidField(f"{field} takes {limits}", param=field)
